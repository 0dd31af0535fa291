package probe

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// collector keeps the events of one namespace.
type collector struct {
	t     testing.TB
	probe *Probe
	netns uint64

	mu     sync.Mutex
	events []Event
	more   chan struct{} // holds at most one: something was added
}

// collect opens a probe and reads it until the test ends.
func collect(t testing.TB, s *space, options Options) *collector {
	t.Helper()
	p, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{t: t, probe: p, netns: s.cookie, more: make(chan struct{}, 1)}
	var reader sync.WaitGroup
	reader.Go(c.read)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		reader.Wait()
	})
	return c
}

func (c *collector) read() {
	var event Event
	for {
		err := c.probe.Read(&event)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			c.t.Error(err)
			return
		}
		if event.NetnsCookie != c.netns {
			continue
		}
		c.mu.Lock()
		c.events = append(c.events, event)
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
	}
}

// next waits for n events, takes them and returns them. Like the methods below
// it panics on failure, to be called on a space's thread and on the test's own.
func (c *collector) next(n int) []Event {
	c.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		if len(c.events) >= n {
			got := slices.Clone(c.events[:n])
			c.events = append(c.events[:0], c.events[n:]...)
			c.mu.Unlock()
			return got
		}
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-deadline.C:
			c.mu.Lock()
			defer c.mu.Unlock()
			panic(fmt.Sprintf("%d events after %v, want %d: %+v", len(c.events), patience, n, c.events))
		}
	}
}

// one waits for an event and checks its kind and port.
func (c *collector) one(kind Kind, number uint16) Event {
	c.t.Helper()
	e := c.next(1)[0]
	if e.Kind != kind || e.Socket.Port != number {
		panic(fmt.Sprintf("got %+v, want port %d %v", e, number, kind))
	}
	return e
}

// quiet checks that nothing came: it opens a marker port in the namespace, which
// must be the next event.
func (c *collector) quiet(s *space) {
	c.t.Helper()
	s.do(func() { c.quietHere(s) })
}

// quietHere is quiet for functions that do runs.
func (c *collector) quietHere(s *space) {
	c.t.Helper()
	fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	s.bind(fd, inet4(65432))
	s.listen(fd)
	s.close(fd)
	for _, e := range c.next(2) {
		if e.Socket.Port != 65432 || e.Socket.Protocol != model.TCP {
			panic(fmt.Sprintf("unexpected event %+v", e))
		}
	}
}
