package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
	"portwatcher/internal/testutil/kernel"
)

var opened = model.Event{
	Time: time.Date(2026, 11, 22, 18, 36, 28, 0, time.UTC), Type: model.Opened,
	Listener: model.Listener{
		Container: &model.ContainerRef{ID: "x", Name: "web"},
		Protocol:  model.TCP, Address: netip.MustParseAddr("0.0.0.0"), Port: 80,
	},
}

// blocked is a writer that blocks until it is released.
type blocked struct {
	release chan struct{}
	bytes.Buffer
}

func (w *blocked) Write(b []byte) (int, error) {
	<-w.release
	return w.Buffer.Write(b)
}

func TestWriterNeverBlocksTheCapture(t *testing.T) {
	out := &blocked{release: make(chan struct{})}
	w := newWriter(out, output.JSON, 1<<12, 1<<12)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	offered := 0
	offer := func() bool {
		e := opened
		e.ID = uint64(offered + 1)
		if !w.Offer("x", &e) {
			return false
		}
		offered++
		return true
	}
	for offer() {
	}
	if offered < 1<<12-1<<8 {
		t.Errorf("it took %d events, want a queue full", offered)
	}
	close(out.release)
	kernel.Eventually(t, "it takes events again", offer)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(&out.Buffer)
	for n := range offered {
		var e model.Event
		if err := decoder.Decode(&e); err != nil || e.ID != uint64(n+1) {
			t.Fatalf("event %d of %d is %d, error %v", n+1, offered, e.ID, err)
		}
	}
	if decoder.More() {
		t.Error("it wrote more than was offered")
	}
}

func TestWriterWritesAtOnce(t *testing.T) {
	out := make(chan string)
	w := NewWriter(writerFunc(func(b []byte) (int, error) { out <- string(b); return len(b), nil }), output.Text)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for range 3 {
		w.Offer("x", &opened)
		if got, want := <-out, "2026-11-22T18:36:28.000Z web: New port opened: 80/tcp on 0.0.0.0\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestWriterWritesWhatWaitsAtTheEnd(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b, output.Text)
	for range 1000 {
		w.Offer("x", &opened)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil || strings.Count(b.String(), "\n") != 1000 {
		t.Errorf("%d lines, error %v; want 1000", strings.Count(b.String(), "\n"), err)
	}
}

func TestWriterReturnsTheError(t *testing.T) {
	broken := errors.New("broken pipe")
	w := NewWriter(writerFunc(func([]byte) (int, error) { return 0, broken }), output.Text)
	w.Offer("x", &opened)
	if err := w.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}
