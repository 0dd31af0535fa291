package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/testutil/kernel"
)

func TestCompression(t *testing.T) {
	s := start(t, nil)
	s.capture.set(func(c *fakeCapture) { c.open = manyPorts(100) })
	for _, path := range []string{"/api/v1/ports", "/api/v1/ports?protocol=tcp", "/metrics"} {
		for encoding, packed := range map[string]bool{"gzip": true, "br, GZIP;q=0.5": true, "gzip;q=0": false, "identity": false, "": false} {
			response, body := s.get(t, path, "Accept-Encoding", encoding)
			if (response.Header.Get("Content-Encoding") == "gzip") != packed {
				t.Errorf("%s, %q: %s", path, encoding, response.Header)
			}
			if !packed {
				continue
			}
			content := unpack(t, body)
			if _, plain := s.get(t, path, "Accept-Encoding", "identity"); len(content) < 10_000 || len(content) > len(plain)+100 {
				t.Errorf("%s: %d bytes, %d plain", path, len(content), len(plain))
			}
		}
	}
	if response, _ := s.get(t, "/healthz", "Accept-Encoding", "gzip"); response.Header.Get("Content-Encoding") != "" {
		t.Error("a short answer is compressed")
	}
}

func unpack(t testing.TB, packed string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	r.Multistream(false) // browsers read one stream and ignore what follows
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func FuzzCompression(f *testing.F) {
	f.Add([]byte("one piece"), uint8(1))
	f.Add(bytes.Repeat([]byte("many pieces, "), 1000), uint8(7))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, content []byte, pieces uint8) {
		var whole, inPieces bytes.Buffer
		if err := compress(&whole, content); err != nil {
			t.Fatal(err)
		}
		w := newPieceCompressor(&inPieces)
		for piece := range slices.Chunk(content, len(content)/(int(pieces)+1)+1) {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, compressed := range []string{whole.String(), inPieces.String()} {
			if got := unpack(t, compressed); got != string(content) {
				t.Errorf("%q, want %q", got, content)
			}
		}
	})
}

// TestBudget fills a budget: what is shared is counted once, and who waits gets
// what is given back.
func TestBudget(t *testing.T) {
	b := newBudget(100)
	shared := &body{size: 60}
	first, second := b.hold(t.Context(), nil, shared, time.Hour), b.hold(t.Context(), nil, shared, time.Hour)
	third := b.hold(t.Context(), nil, &body{size: 40}, time.Hour)
	if first == nil || second == nil || third == nil || b.used != 100 {
		t.Fatalf("%d bytes are used", b.used)
	}
	if b.hold(t.Context(), nil, &body{size: 1}, time.Millisecond) != nil {
		t.Error("more is held than the budget allows")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if b.hold(ended, nil, &body{size: 1}, time.Hour) != nil {
		t.Error("who is gone holds something")
	}
	waiting := make(chan *holding)
	go func() { waiting <- b.hold(t.Context(), nil, &body{size: 50}, time.Hour) }()
	first.release()
	if b.used != 100 {
		t.Errorf("%d bytes are used while one holds what was shared", b.used)
	}
	second.release()
	fourth := <-waiting
	third.release()
	fourth.release()
	// What is larger than all has its turn.
	large := b.hold(t.Context(), nil, &body{size: 1000}, time.Hour)
	if large == nil || b.hold(t.Context(), nil, &body{size: 1}, time.Millisecond) != nil {
		t.Error("the large one is not alone")
	}
	large.release()
	if b.used != 0 || len(b.holdings) != 0 {
		t.Errorf("%d bytes are used by %d answers", b.used, len(b.holdings))
	}
}

// TestWhoTakesNothingGivesWay has more clients that take nothing than the budget
// allows: the others are answered, though time alone lets go of nothing.
func TestWhoTakesNothingGivesWay(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) {
		l.memory, l.sendBuffer, l.stallTime, l.sendTime, l.patience = 1<<20, 8<<10, time.Hour, time.Hour, time.Hour
	})
	s.capture.set(func(c *fakeCapture) { c.open = manyPorts(1000) }) // 450 kB
	for range 5 {
		// Each has a list of its own, since it is filtered.
		s.stuck(t, "/api/v1/ports?protocol=tcp")
	}
	for range 3 {
		if _, body := s.get(t, "/api/v1/ports?protocol=tcp"); len(body) < 400_000 {
			t.Errorf("%d bytes", len(body))
		}
	}
	kernel.Eventually(t, "no more is held than allowed", func() bool {
		s.memory.mutex.Lock()
		defer s.memory.mutex.Unlock()
		return s.memory.used <= s.memory.most
	})
}
