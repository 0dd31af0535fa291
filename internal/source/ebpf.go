package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
)

const (
	// aliveInterval is how often the probe is asked whether it is still attached to its
	// hooks.
	aliveInterval = 5 * time.Second
	// probeRetry is how long to wait before a probe that was lost is loaded again.
	probeRetry = 10 * time.Second
	// countInterval is the least time between two takings of what the kernel counted.
	countInterval = 500 * time.Millisecond
	// limitInterval is longer than the second in which the kernel applies a burst limit.
	limitInterval = 1100 * time.Millisecond
	// flushTime is how long a snapshot waits at most for what eBPF recorded before it:
	// longer only in a storm.
	flushTime = 250 * time.Millisecond
)

// Bounds on what is between the kernel's ring and the capture. What is more stays in
// the ring, where each cgroup has its share.
const (
	chunkLength = 256 // events
	maxChunks   = 64
)

// Probe is eBPF, as far as it is used here; see [probe.Probe].
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

// Reader turns a probe's records into facts. One goroutine decodes them, so that the
// ring is emptied at once whatever else is to do; one reads what there is to read of
// their processes while these live, and sends them; one takes what the kernel counted.
//
// Its exported methods are safe for concurrent use.
type Reader struct {
	env     *Env
	probe   Probe
	chunks  chan chunk
	events  chan []probe.Event // of chunks, to be used again
	free    chan *Facts
	counts  chan chan struct{} // asks for the counts
	stop    func()             // ends run
	stopped chan struct{}      // closed when nothing more is sent
	// taken is the sum of what was counted and lost up to the last taking; limited reports
	// that there is a burst limit.
	taken   atomic.Uint64
	limited atomic.Bool

	mutex   sync.Mutex // for flushes
	flushes flushes

	// Of the resolving goroutine.
	processes *attribute.Cache
	cgroups   *CgroupPaths
}

// chunk is what the decoding goroutine hands on.
type chunk struct {
	events []probe.Event
	bad    bool            // a record was not understood
	ends   []chan struct{} // to be closed when the events are sent
}

// RunProbe opens a probe again after it was lost, and reads it, until ctx ends. The
// first is open already.
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
		env: e, probe: p, chunks: make(chan chunk, maxChunks), events: make(chan []probe.Event, 4), counts: make(chan chan struct{}),
		free: make(chan *Facts, maxChunks), stopped: make(chan struct{}), processes: attribute.NewCache(e.Finder),
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
		func() error { <-ctx.Done(); return r.probe.Close() }, // which ends receive, and that resolve
		func() error { return r.watch(ctx) }, func() error { return r.count(ctx) }, r.resolve, r.receive,
	}
	errs := make([]error, len(parts))
	for i, part := range parts {
		group.Go(func() {
			defer stop() // where one has ended the others are of no use
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
	alive := time.NewTicker(aliveInterval)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-alive.C:
			if err := r.probe.Alive(); err != nil {
				return err
			}
		}
	}
}

// receive decodes records until the probe is closed. It hands them on when the ring is
// empty, or there are enough of them.
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

// nextChunk reads events up to the end of a chunk. What was read before an error that ends
// the reading is returned with it.
func (r *Reader) nextChunk() (next chunk, err error) {
	next.events = r.take()
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
			r.env.Logger.WithError(err).Warn("An eBPF record is not understood; portwatcher scans the namespaces instead.")
			next.bad = true
			return next, nil
		}
		return next, err
	}
}

// take returns an empty list of events with room for a chunk.
func (r *Reader) take() []probe.Event {
	select {
	case events := <-r.events:
		return events
	default:
		return make([]probe.Event, 0, chunkLength)
	}
}

// resolve sends facts until there are no more chunks. After an error it goes on to empty
// the channel, so that receive can end.
func (r *Reader) resolve() (err error) {
	for c := range r.chunks {
		if err == nil {
			if err = protect(func() error { r.sendChunk(&c); return nil }); err != nil {
				r.stop()
			}
		}
		for _, done := range c.ends {
			close(done)
		}
	}
	return err
}

func (r *Reader) sendChunk(c *chunk) {
	if len(c.events) > 0 {
		r.env.send(r.facts(c.events))
	}
	if c.bad {
		r.env.send(Malformed{})
	}
	select {
	case r.events <- c.events[:0]:
	default:
	}
	if r.counted() || r.limited.Load() {
		select {
		case r.counts <- nil:
		default: // it is being done
		}
	}
}

// facts adds to events what can be read of their processes and cgroups.
func (r *Reader) facts(events []probe.Event) *Facts {
	var f *Facts
	select {
	case f = <-r.free:
	default:
		f = &Facts{free: r.free}
	}
	for i := range events {
		e := &events[i]
		fact := Fact{Event: *e}
		if e.Kind == probe.Opened {
			fact.Processes = r.processes.Describe(e.PID, e.Name)
		}
		f.List = append(f.List, fact)
		r.cgroups = r.env.learn(r.cgroups, e.Socket.Cgroup, e.TaskCgroup)
	}
	f.Cgroups = r.cgroups
	return f
}

// maxCgroupPaths bounds the cgroups that are remembered: far more than open ports at
// one time.
const maxCgroupPaths = 4096

// learn returns paths with those of the given cgroups too.
func (e *Env) learn(paths *CgroupPaths, ids ...uint64) *CgroupPaths {
	for _, id := range ids {
		if _, known := paths.paths[id]; known || id == 0 {
			continue
		}
		path, err := e.Attributor.CgroupPath(id)
		e.reportTrouble(0, err)
		if path == "" {
			if _, gone := e.Attributor.KnownCgroupPath(id); !gone {
				continue // it may be found later
			}
		}
		next := make(map[uint64]string, len(paths.paths)+1)
		if len(paths.paths) < maxCgroupPaths {
			maps.Copy(next, paths.paths)
		}
		next[id] = path
		paths = NewCgroupPaths(next)
	}
	return paths
}

// counted reports whether the kernel has counted something that was not taken yet.
func (r *Reader) counted() bool {
	return sum(r.probe.Stats()) != r.taken.Load()
}

func sum(s probe.Stats) uint64 { return s.CountedOpened + s.CountedClosed + s.Missed + s.Lost }

// count takes what the kernel counted, until ctx ends: at once where somebody waits for it,
// otherwise in intervals while the kernel goes on to count. With a burst limit the kernel
// may begin to count after the last record of a second: that second is awaited.
func (r *Reader) count(ctx context.Context) error {
	c := counter{Reader: r, cgroups: &CgroupPaths{}, processes: attribute.NewCache(r.env.Finder)}
	due := stoppedTimer()
	defer due.Stop()
	set := false
	for {
		var done chan struct{}
		take, recorded := false, false
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
			set, take = false, true
		case done = <-r.counts:
			take, recorded = done != nil, true
		}
		if take {
			if err := c.take(); err != nil {
				return err
			}
		}
		if done != nil {
			close(done)
		}
		switch {
		case set:
		case r.counted():
			set = true
			due.Reset(countInterval)
		case recorded && r.limited.Load():
			set = true
			due.Reset(limitInterval)
		}
	}
}

// counter is the state of the counting goroutine.
type counter struct {
	*Reader
	last      probe.Stats // of the last taking
	list      []probe.Count
	cgroups   *CgroupPaths
	processes *attribute.Cache
}

// take sends what was counted and lost since the last time. A probe that is closed has
// nothing more.
func (c *counter) take() (err error) {
	s := c.probe.Stats()
	if s.CountedOpened != c.last.CountedOpened || s.CountedClosed != c.last.CountedClosed || s.Missed != c.last.Missed {
		c.list, err = c.probe.Counts(c.list[:0])
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("take what eBPF counted: %w", err)
		}
		counts := &Counts{}
		for i := range c.list {
			one := &c.list[i]
			c.cgroups = c.env.learn(c.cgroups, one.Cgroup, one.TaskCgroup)
			counts.List = append(counts.List, Count{Count: *one, Processes: countedProcesses(c.processes, one)})
		}
		counts.Cgroups = c.cgroups
		if len(counts.List) > 0 {
			c.env.send(counts)
		}
	}
	if s.Lost != c.last.Lost {
		c.env.send(Loss{s.Lost - c.last.Lost})
	}
	c.last = s
	c.Reader.taken.Store(sum(s))
	return nil
}

// countedProcesses describes the process of the last opening.
func countedProcesses(cache *attribute.Cache, c *probe.Count) []model.Process {
	if c.PID == 0 {
		return nil
	}
	return cache.Describe(c.PID, c.Name)
}

// flushes are those who wait until everything of before their asking is sent. One
// flush of the probe is under way at a time: it answers those who asked before it
// began.
type flushes struct {
	next    []chan struct{} // wait for a flush that has not begun
	current []chan struct{} // wait for the one under way
}

// Flush waits, until ctx ends at most, until the capture's inbox has what eBPF
// recorded and counted before this call, and reports whether it has. A snapshot that is
// sent after that opens no socket earlier than eBPF, and only finds what eBPF missed.
func (r *Reader) Flush(ctx context.Context) (done bool) {
	flushed := make(chan struct{})
	r.mutex.Lock()
	r.flushes.next = append(r.flushes.next, flushed)
	r.startFlush()
	r.mutex.Unlock()
	if !r.await(ctx, flushed) {
		return false
	}
	if !r.counted() {
		return true
	}
	counted := make(chan struct{})
	select {
	case r.counts <- counted:
		return r.await(ctx, counted)
	case <-r.stopped:
		return true
	case <-ctx.Done():
		return false
	}
}

// await waits for done. A reader that has ended sends nothing more.
func (r *Reader) await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-r.stopped:
		return true
	case <-ctx.Done():
		return false
	}
}

// flushSoon is Flush for flushTime at most.
func (r *Reader) flushSoon(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	return r.Flush(ctx)
}

// startFlush begins the next flush unless one is under way. The caller holds the
// mutex.
func (r *Reader) startFlush() {
	f := &r.flushes
	if len(f.current) > 0 || len(f.next) == 0 {
		return
	}
	f.current, f.next = f.next, nil
	if err := r.probe.Flush(); err != nil { // the probe is closed: await ends by stopped
		f.current = nil
	}
}

// flushed ends the flush under way, and returns those who wait for it.
func (r *Reader) flushed() []chan struct{} {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	ends := r.flushes.current
	r.flushes.current = nil
	r.startFlush()
	return ends
}
