package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

// TestManyReaders has 200 readers of 2,000 events a second, of which 50 take
// nothing: the others miss nothing and repeat nothing, those are cut off, and
// neither the memory nor the writer of the journal feels it.
func TestManyReaders(t *testing.T) {
	const (
		fast, slow = 150, 50
		ticks      = 60
		perTick    = 100 // each 50 ms, as the journal commits
		total      = ticks * perTick
	)
	s := start(t, func(_ *Options, l *limits) { l.sendBuffer = 16 << 10 })
	var stuck []net.Conn
	for range slow {
		stuck = append(stuck, s.stuckReader(t))
	}
	readers := make([]*reader, fast)
	for i := range readers {
		readers[i] = s.stream(t, "")
		expect[api.Hello](readers[i], api.StreamHello)
	}
	kernel.Eventually(t, "all read", func() bool { return len(s.streams) == fast+slow })

	memory := watchMemory()
	var reading sync.WaitGroup
	for i, one := range readers {
		reading.Go(func() {
			if err := one.count(total); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	var slowest time.Duration
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for range ticks {
		<-ticker.C
		began := time.Now()
		s.history.recordMany(perTick)
		slowest = max(slowest, time.Since(began))
	}
	began := time.Now()
	reading.Wait()
	t.Logf("all had everything %s after the last commit; the slowest commit took %s", time.Since(began), slowest)
	kernel.Eventually(t, "those that read nothing are cut off", func() bool { return s.cutOff.Load() == slow && len(s.streams) == fast })
	if used := memory(); used > 256<<20 {
		t.Errorf("%d MiB more were in use", used>>20)
	}
	for _, conn := range stuck {
		conn.Close()
	}
	// One query a commit is the feed's; the rest is of readers that fell behind it, on a
	// busy machine all of them.
	if queries, most := s.queriesMade(), ticks+fast*(total/s.limits.batch+1); queries > most {
		t.Errorf("%d queries for %d commits, want %d at most", queries, ticks, most)
	}
}

// count reads the events 1 to last, which have to come in order. It reads
// their ids alone: 150 readers share the machine with the server here.
func (r *reader) count(last uint64) error {
	for next := uint64(1); next <= last; {
		if !r.lines.Scan() {
			return fmt.Errorf("the stream ends before the event %d: %w", next, r.lines.Err())
		}
		line := r.lines.Bytes()
		if bytes.HasPrefix(line, []byte("event: "+api.StreamEnd)) {
			return fmt.Errorf("cut off before the event %d", next)
		}
		digits, isID := bytes.CutPrefix(line, []byte("id: "))
		if !isID {
			continue
		}
		if id, err := strconv.ParseUint(string(digits), 10, 64); err != nil || id != next {
			return fmt.Errorf("event %s, want %d", digits, next)
		}
		next++
	}
	return nil
}

// stuckReader asks for the stream and reads nothing after its start.
func (r *running) stuckReader(t *testing.T) net.Conn {
	t.Helper()
	return r.stuck(t, api.PathEvents, "Accept: "+api.MediaTypeStream)
}

// stuck asks for a path and reads nothing after the start of the answer.
func (r *running) stuck(t *testing.T, path string, headers ...string) net.Conn {
	t.Helper()
	conn := r.dial(t, "")
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n", path, strings.Join(append(headers, "X-End: 1"), "\r\n"))
	start := make([]byte, 15)
	if _, err := io.ReadFull(conn, start); err != nil || !bytes.HasPrefix(start, []byte("HTTP/1.1 200")) {
		t.Fatalf("%s: %q: %v", path, start, err)
	}
	return conn
}

// watchMemory returns a function that returns how much more the heap was at its highest.
func watchMemory() func() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	before, most := stats.HeapInuse, stats.HeapInuse
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				var stats runtime.MemStats
				runtime.ReadMemStats(&stats)
				most = max(most, stats.HeapInuse)
			case <-stop:
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-stopped
		return most - before
	}
}

// TestASlowReaderIsToldWhereToResume reads, but more slowly than events come.
func TestASlowReaderIsToldWhereToResume(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) { l.lag, l.ring, l.batch, l.sendBuffer = 500, 64, 16, 8<<10 })
	one := s.stream(t, "")
	expect[api.Hello](one, api.StreamHello)
	s.history.recordMany(1)
	one.expectID(1) // it is live
	for s.cutOff.Load() == 0 {
		s.history.recordMany(200)
		if s.history.LastID() > 200_000 {
			t.Fatal("it is not cut off")
		}
		time.Sleep(time.Millisecond) // the pace of the events, not a wait
	}
	next := uint64(2)
	for {
		f, ok := one.next()
		if !ok {
			t.Fatal("the stream ends without a word")
		}
		if f.event == api.StreamEnd {
			if !strings.Contains(f.data, fmt.Sprintf(`"resume_after":%d,`, next-1)) {
				t.Fatalf("%s, after the event %d", f.data, next-1)
			}
			break
		}
		if f.id != strconv.FormatUint(next, 10) {
			t.Fatalf("%+v, want %d", f, next)
		}
		next++
	}
	again := s.stream(t, "", "Last-Event-ID", strconv.FormatUint(next-1, 10))
	expect[api.Hello](again, api.StreamHello)
	for ; next <= s.history.LastID(); next++ {
		again.expectID(next)
	}
}

// TestPagesThatNobodyReads has 150 clients that ask for 5,000 events and take
// nothing: little is held for them, and others are answered.
func TestPagesThatNobodyReads(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) { l.sendBuffer, l.stallTime, l.sendTime = 16<<10, time.Hour, time.Hour })
	s.history.recordMany(5000)
	memory := watchMemory()
	for i := range 150 {
		if i%10 == 0 {
			s.stuck(t, "/api/v1/events?limit=5000&after=0", "Accept-Encoding: gzip")
		} else {
			s.stuck(t, "/api/v1/events?limit=5000")
		}
	}
	for _, path := range []string{"/api/v1/ports", "/api/v1/events?limit=5000", "/api/v1/status", "/metrics", "/healthz", "/readyz"} {
		if response, body := s.get(t, path); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s: %s", path, response.Status, body)
		}
	}
	if used := memory(); used > 64<<20 {
		t.Errorf("%d MiB more were in use", used>>20)
	} else {
		t.Logf("%d MiB more were in use", used>>20)
	}
}
