package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"portwatcher/internal/probe"
)

const (
	// aliveInterval is how often the probe is asked whether it still hangs on
	// its hooks.
	aliveInterval = 5 * time.Second
	// gapInterval is the least time between two gaps of one source: an overload
	// is one story.
	gapInterval = time.Second
	// probeRetry is how long to wait before a probe that was lost is loaded
	// again.
	probeRetry = 10 * time.Second
)

// Probe is eBPF, as far as the controller uses it; see [probe.Probe].
type Probe interface {
	Read(*probe.Event) error
	Flush() error
	Lost() uint64
	Alive() error
	Close() error
}

// now says whether eBPF tells of every change, and returns the settings.
func (c *Controller) now() (exact bool, tuning Tuning) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.probing, c.Tuning
}

func (c *Controller) setProbing(on bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.probing = on
	c.pending.clear()
	c.eachWatcher(func(w *watcher) { signal(w.retune) })
}

// startProbe opens the probe before anything is watched, so that what opens
// meanwhile is not missed. The error is that of a probe that was insisted on.
func (c *Controller) startProbe() (Probe, error) {
	if c.OpenProbe == nil || c.Source != Auto && c.Source != EBPF {
		c.log.WithField("source", c.Source).Info("eBPF is not used.")
		return nil, nil
	}
	p, err := c.OpenProbe()
	if err != nil && c.Source == EBPF {
		return nil, fmt.Errorf("--source ebpf: %w", err)
	}
	if err != nil {
		c.log.WithError(err).Info("eBPF is not used; sock_diag and its notifications take its place: the processes of short-lived ports stay unknown.")
		return nil, nil
	}
	c.log.Infof("eBPF tells of each opening and closing; a scan by sock_diag checks every %s.", reconcileInterval)
	c.setProbing(true)
	return p, nil
}

// runProbe reads the probe until ctx ends. Where it is lost, the watchers fall
// back, and it is tried again.
func (c *Controller) runProbe(ctx context.Context, p Probe) {
	for ctx.Err() == nil {
		err := c.readProbe(ctx, p)
		if ctx.Err() != nil {
			return
		}
		c.setProbing(false)
		c.log.WithError(err).Warn("eBPF has stopped working; sock_diag takes over until it is back.")
		c.mutex.Lock()
		c.gap(nil, "eBPF has stopped working; sock_diag takes over")
		c.mutex.Unlock()
		for p = nil; p == nil; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(probeRetry):
			}
			if p, err = c.OpenProbe(); err != nil {
				p = nil
				c.log.WithError(err).Debug("eBPF cannot be used yet.")
			}
		}
		c.setProbing(true)
		c.log.Info("eBPF works again.")
	}
}

// readProbe takes over what the probe tells, and closes it at the end.
func (c *Controller) readProbe(ctx context.Context, p Probe) (err error) {
	reader := newFactReader(c, p)
	c.setFacts(reader)
	defer c.setFacts(nil)
	watching, stop := context.WithCancel(ctx)
	why := make(chan error, 2)
	go func() { why <- reader.watch(watching) }()
	go func() { why <- reader.receive() }()
	defer func() {
		stop()
		err = errors.Join(err, <-why, <-why)
	}()
	return reader.run(ctx)
}

func (c *Controller) setFacts(r *factReader) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.facts = r
}

// factReader turns the probe's events into facts. One goroutine receives them,
// so that the kernel's ring buffer is emptied at once whatever else is to do, and
// reads what there is to read of their processes while these live; one takes them
// over, and one watches over both.
type factReader struct {
	c         *Controller
	probe     Probe
	processes processCache
	received  chan struct{} // there is something in waiting
	stopped   chan struct{} // closed when nothing is taken over any more

	mutex    sync.Mutex
	waiting  []fact
	overflow uint64      // events that found no room in waiting
	ended    bool        // receive is
	noticed  uint64      // lost events; run's alone
	told     uint64      // of them, what gaps have told of
	toldAt   time.Time   // the last gap
	again    *time.Timer // when to look at the loss once more
	flushes  flushes
}

// maxWaiting bounds the facts between the ring buffer and the tracker, at 300
// bytes each: several seconds of a storm at a machine's full speed.
const maxWaiting = 1 << 18

func newFactReader(c *Controller, p Probe) *factReader {
	return &factReader{
		c: c, probe: p, processes: processCache{finder: c.Finder},
		received: make(chan struct{}, 1), stopped: make(chan struct{}), again: stoppedTimer(),
	}
}

// watch closes the probe when ctx ends or it is not alive any more, which ends
// the reader.
func (r *factReader) watch(ctx context.Context) error {
	alive := time.NewTicker(aliveInterval)
	defer alive.Stop()
	defer r.again.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.probe.Close()
		case <-alive.C:
			if err := r.probe.Alive(); err != nil {
				return errors.Join(err, r.probe.Close())
			}
		case <-r.again.C:
			r.c.scanAll()
			r.tellLoss()
		}
	}
}

// receive empties the ring buffer until the probe is closed.
func (r *factReader) receive() error {
	defer func() {
		r.mutex.Lock()
		r.ended = true
		r.mutex.Unlock()
		signal(r.received)
	}()
	var event probe.Event
	for {
		err := r.probe.Read(&event)
		var bad *probe.MalformedError
		switch {
		case err == nil:
			f := r.fact(&event)
			r.mutex.Lock()
			if len(r.waiting) < maxWaiting {
				r.waiting = append(r.waiting, f)
			} else {
				r.overflow++
			}
			r.mutex.Unlock()
			signal(r.received)
		case errors.Is(err, probe.ErrFlushed):
			r.flushed()
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.As(err, &bad):
			r.c.log.WithError(err).Warn("An eBPF record is not understood; it is passed over.")
			r.c.scanAll()
		default:
			return err
		}
	}
}

// run takes over what is received, until receive or ctx ends.
func (r *factReader) run(ctx context.Context) error {
	defer close(r.stopped)
	var batch []fact
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.received:
		}
		r.mutex.Lock()
		batch, r.waiting = r.waiting, batch[:0]
		ended := r.ended
		flushed := r.flushes.take()
		lost := r.probe.Lost() + r.overflow
		r.mutex.Unlock()
		if lost != r.noticed {
			r.noticed = lost
			r.c.noticeLoss()
		}
		for i := range batch {
			if i%256 == 0 && ctx.Err() != nil {
				return nil
			}
			r.c.takeFact(&batch[i])
		}
		for _, done := range flushed {
			close(done)
		}
		clear(batch)
		if cap(batch) > 512 { // a storm's memory is given back
			batch = nil
		}
		r.tellLoss()
		if ended {
			return nil
		}
	}
}

// noticeLoss notes that facts were lost just now.
func (c *Controller) noticeLoss() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.lossAt = time.Now()
}

// tellLoss reports what there was no room for, and has everything scanned: at
// once, and again when what was open just now must be in the tables.
func (r *factReader) tellLoss() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	lost := r.probe.Lost() + r.overflow
	if lost == r.told || time.Since(r.toldAt) < gapInterval {
		return
	}
	reason := fmt.Sprintf("%d socket events were lost: they came faster than they could be read; scanned again", lost-r.told)
	r.told, r.toldAt = lost, time.Now()
	r.again.Reset(2 * gapInterval)
	r.c.mutex.Lock()
	r.c.counts.overruns++
	r.c.gap(nil, reason)
	r.c.mutex.Unlock()
	r.c.scanAll()
}

// scanAll has every namespace scanned now.
func (c *Controller) scanAll() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.eachWatcher(func(w *watcher) { signal(w.poke) })
}
