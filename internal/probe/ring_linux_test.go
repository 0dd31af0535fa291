package probe

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRingWindows reads a ring of several windows several times around.
func TestRingWindows(t *testing.T) {
	const portion, portions = 2500, 12
	s := newSpace(t)
	p := mustOpen(t, Options{ringBytes: 2 * windowBytes, budget: unlimited})
	next := 2 // as cycle has it
	for range portions {
		fill(s, portion)
		for _, e := range take(t, p, s).events {
			if e.Kind != Opened {
				continue
			}
			if int(e.Socket.Port) != next {
				t.Fatalf("port %d, want %d", e.Socket.Port, next)
			}
			next++
		}
	}
	if next != 2+portions*portion/2 {
		t.Errorf("%d openings, want %d", next-2, portions*portion/2)
	}
	if stats := p.Stats(); (stats.Opened+stats.Closed)*(recordSize+ringHeader) < 4*windowBytes {
		t.Errorf("%+v: the ring was not read around twice", stats)
	}
}

// TestFlushAnswers: a flush is answered though records keep coming.
func TestFlushAnswers(t *testing.T) {
	s := newSpace(t)
	p := mustOpen(t, Options{})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				fill(s, 100)
			}
		}
	}()
	for range 20 {
		drain(t, p)
	}
	close(stop)
	<-stopped
}

// TestResidentMemory: the ring's size does not show in this process's memory.
func TestResidentMemory(t *testing.T) {
	resident := func(ringBytes int) int {
		p := mustOpen(t, Options{ringBytes: ringBytes})
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "RssFile:")
		kilobytes, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		size, err := strconv.Atoi(kilobytes)
		if err != nil {
			t.Fatalf("RssFile in /proc/self/status: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		return size << 10
	}
	small, large := resident(1), resident(64<<20)
	if large-small > 8<<20 {
		t.Errorf("%d bytes of files with a ring of 64 MiB, %d with one of a page", large, small)
	}
}

// FuzzRing: no header makes the reader leave what is mapped.
func FuzzRing(f *testing.F) {
	f.Add(uint32(recordSize), uint16(0))
	f.Add(uint32(ringBusy|recordSize), uint16(0))
	f.Add(uint32(ringDiscard|recordSize), uint16(8))
	f.Add(uint32(1<<30-1), uint16(4088))
	f.Fuzz(func(t *testing.T, header uint32, at uint16) {
		page := os.Getpagesize()
		r := &ringReader{
			size: uintptr(page), consumer: make([]byte, page), producer: make([]byte, page), window: make([]byte, 2*page),
			position: uintptr(at) &^ 7,
		}
		place := int(r.position) % page
		binary.NativeEndian.PutUint32(r.window[place:], header)
		record, discarded, err := r.next()
		var malformed *MalformedError
		length := int(header &^ (ringBusy | ringDiscard))
		switch {
		case header&ringBusy != 0:
			if record != nil || discarded || err != nil {
				t.Errorf("busy: %v, %v, %v", record, discarded, err)
			}
		case place+ringHeader+length > 2*page:
			if !errors.As(err, &malformed) {
				t.Errorf("%d bytes at %d: error %v, want a *MalformedError", length, place, err)
			}
		case discarded != (header&ringDiscard != 0) || err != nil || !discarded && len(record) != length:
			t.Errorf("%d bytes at %d: got %d, discarded %v, error %v", length, place, len(record), discarded, err)
		}
	})
}

func TestRingCloses(t *testing.T) {
	requireRoot(t)
	if _, err := openRing(-1, uint32(os.Getpagesize())); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}
