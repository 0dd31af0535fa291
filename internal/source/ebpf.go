package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/freelist"
	"portwatcher/internal/probe"
)

const (
	// aliveInterval is the time between two checks that the probe is attached to its hooks.
	aliveInterval = 10 * time.Second
	// probeRetry is how long to wait before a lost probe is loaded again.
	probeRetry = 10 * time.Second
	// countInterval is the least time between two readings of the kernel's counts.
	countInterval = 500 * time.Millisecond
	// limitInterval is the time to a reading where the kernel may count without a record. It
	// is longer than the second in which the kernel applies a burst limit.
	limitInterval = 1100 * time.Millisecond
	// flushTime is how long a snapshot waits at most for what eBPF recorded before it.
	// Only a storm takes longer.
	flushTime = 250 * time.Millisecond
)

// Bounds of what is between the kernel's ring and the capture. The rest stays in the ring,
// where each cgroup has its share.
const (
	chunkLength = 256 // events
	maxChunks   = 64
)

// Probe is the part of [probe.Probe] that is used here.
type Probe interface {
	Read(*probe.Event) error
	More() bool
	Flush() error
	Stats() probe.Stats
	Counts([]probe.Count) ([]probe.Count, error)
	Configure(burstLimit int, udpClients bool) error
	Alive() error
	Close() error
}

// Reader turns a probe's records into facts. One goroutine decodes them, so that nothing
// delays the reading of the ring; one reads their processes from /proc while these live,
// and sends the facts; one reads what the kernel counted.
//
// Its exported methods are safe for concurrent use.
type Reader struct {
	env     *Env
	probe   Probe
	chunks  chan *chunk
	unused  freelist.List[chunk]
	free    freelist.List[Facts]
	counts  chan chan struct{} // requests a reading of the counts
	stop    func()             // ends run
	stopped chan struct{}      // closed when nothing more is sent
	// taken is the sum of what was counted and lost up to the last reading; limited means
	// that there is a burst limit.
	taken   atomic.Uint64
	limited atomic.Bool

	mutex   sync.Mutex // for flushes
	flushes flushes

	// Of the resolving goroutine.
	processes *attribute.Cache
	cgroups   *CgroupPaths
}

// chunk is what the decoding goroutine passes to the resolving one.
type chunk struct {
	events []probe.Event
	bad    bool            // a record could not be decoded
	ends   []chan struct{} // to be closed when the events are sent
}

// RunProbe reads a probe until ctx ends. When the probe is lost, it opens another.
func (e *Env) RunProbe(ctx context.Context, first Probe, open func() (Probe, error)) {
	p := first
	for {
		reader := e.newReader(p)
		e.Prober.Store(reader)
		cookie, err := e.hostCookie()
		if err != nil {
			e.Logger.WithError(err).Debug("The cookie of the host's network namespace is not known.")
		}
		e.send(ProbeState{Reader: reader, HostCookie: cookie})
		err = reader.run(ctx)
		e.Prober.Store(nil)
		if ctx.Err() != nil {
			return
		}
		e.send(ProbeState{Err: err})
		for p = nil; p == nil; {
			if !clock.Sleep(ctx, probeRetry) {
				return
			}
			if p, err = open(); err != nil {
				p = nil
				e.Logger.WithError(err).Debug("eBPF cannot be used yet.")
			}
		}
	}
}

func (e *Env) newReader(p Probe) *Reader {
	return &Reader{
		env: e, probe: p, chunks: make(chan *chunk, maxChunks), unused: freelist.New[chunk](4), counts: make(chan chan struct{}),
		free: freelist.New[Facts](maxChunks), stopped: make(chan struct{}), processes: attribute.NewCache(e.Finder),
		cgroups: &CgroupPaths{},
	}
}

// Configure sets the burst limit, openings and closings a second of one container (0 is
// none), and whether UDP sockets whose port the kernel chose are reported.
func (r *Reader) Configure(burstLimit int, udpClients bool) error {
	r.limited.Store(burstLimit > 0)
	return r.probe.Configure(burstLimit, udpClients)
}

// Stats returns what the kernel recorded, counted and lost so far.
func (r *Reader) Stats() probe.Stats { return r.probe.Stats() }

// run reads the probe until ctx ends or the probe is lost, and closes it. A panic in one
// of its goroutines is an error of all.
func (r *Reader) run(ctx context.Context) error {
	defer close(r.stopped)
	ctx, stop := context.WithCancel(ctx)
	r.stop = stop
	var group sync.WaitGroup
	parts := []func() error{
		func() error { <-ctx.Done(); return r.probe.Close() }, // which ends receive, which ends resolve
		func() error { return r.watch(ctx) }, func() error { return r.count(ctx) }, r.resolve, r.receive,
	}
	errs := make([]error, len(parts))
	for i, part := range parts {
		group.Go(func() {
			defer stop() // the others are of no use then
			errs[i] = protect(part)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// protect calls f and returns its error, or its panic as one.
func protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(err, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return f()
}

// watch returns when ctx ends, or with an error when the probe is not attached any more.
func (r *Reader) watch(ctx context.Context) error {
	for clock.Sleep(ctx, clock.Rest(aliveInterval)) {
		if err := r.probe.Alive(); err != nil {
			return err
		}
	}
	return nil
}

// receive decodes records until the probe is closed. It passes them on when the ring is
// empty or the chunk is full.
func (r *Reader) receive() error {
	defer close(r.chunks)
	for {
		next, err := r.nextChunk()
		r.chunks <- next
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return err
		}
	}
}

// nextChunk reads events up to the end of a chunk. With an error, which ends the reading,
// it returns the events before that.
func (r *Reader) nextChunk() (next *chunk, err error) {
	next = r.unused.Take()
	if next.events == nil {
		next.events = make([]probe.Event, 0, chunkLength)
	}
	for {
		next.events = next.events[:len(next.events)+1]
		err := r.probe.Read(&next.events[len(next.events)-1])
		if err == nil {
			if len(next.events) < chunkLength && r.probe.More() {
				continue
			}
			return next, nil
		}
		next.events = next.events[:len(next.events)-1]
		if errors.Is(err, probe.ErrFlushed) {
			next.ends = r.flushed()
			return next, nil
		}
		if _, bad := errors.AsType[*probe.MalformedError](err); bad {
			r.env.Logger.WithError(err).Warn("An eBPF record cannot be decoded; portwatcher scans the namespaces instead.")
			next.bad = true
			return next, nil
		}
		return next, err
	}
}
