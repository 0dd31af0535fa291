package source

import (
	"context"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portwatcher/internal/probe"
)

// countingProbe counts, and writes no record.
type countingProbe struct {
	Probe // the functions that are not called
	mutex sync.Mutex
	stats probe.Stats
	list  []probe.Count
	flush chan struct{}
	over  chan struct{}
}

func newCountingProbe() *countingProbe {
	return &countingProbe{flush: make(chan struct{}, 1), over: make(chan struct{})}
}

func (p *countingProbe) Read(*probe.Event) error {
	select {
	case <-p.flush:
		return probe.ErrFlushed
	case <-p.over:
		return os.ErrClosed
	}
}

func (p *countingProbe) Flush() error { signal(p.flush); return nil }
func (p *countingProbe) Alive() error { return nil }
func (p *countingProbe) Close() error { close(p.over); return nil }

func (p *countingProbe) Stats() probe.Stats {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.stats
}

func (p *countingProbe) Counts(dst []probe.Count) ([]probe.Count, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	dst = append(dst, p.list...)
	p.list = nil
	return dst, nil
}

func (p *countingProbe) count(opened, closed uint64) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.stats.CountedOpened += opened
	p.stats.CountedClosed += closed
	p.list = append(p.list, probe.Count{NetnsCookie: 7, Opened: opened, Closed: closed})
}

// The kernel counts the closing of a socket whose opening it has counted, and writes no
// record of it, however late that is: it is read all the same.
func TestLateClosingOfACountedSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRig(t, nil)
		p := newCountingProbe()
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.RunProbe(ctx, p, nil) })
		defer running.Wait()
		defer stop()
		synctest.Wait()
		wants := func(opened, closed uint64) {
			t.Helper()
			synctest.Wait()
			if o, c := r.counted(); o != opened || c != closed {
				t.Fatalf("%d opened and %d closed are counted, want %d and %d", o, c, opened, closed)
			}
		}
		p.count(1, 0)
		if !r.Prober.Load().Flush(ctx) {
			t.Fatal("the flush did not end")
		}
		wants(1, 0)
		time.Sleep(time.Hour)
		p.count(0, 1)
		wants(1, 0)
		time.Sleep(limitInterval)
		wants(1, 1)
	})
}

// counted returns the sums of the counts that were sent.
func (r *rig) counted() (opened, closed uint64) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, o := range r.received {
		if counts, ok := o.(*Counts); ok {
			for i := range counts.List {
				opened += counts.List[i].Opened
				closed += counts.List[i].Closed
			}
		}
	}
	return opened, closed
}
