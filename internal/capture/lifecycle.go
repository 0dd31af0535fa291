package capture

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/source"
)

const (
	// stopFlush is how long a stop waits for the records of eBPF.
	stopFlush = 2 * time.Second
	// abandonTime is how long a stop waits for a stuck watcher.
	abandonTime = time.Second
	// stuckAfter is how long one read of a namespace may take; the kernel needs
	// milliseconds.
	stuckAfter = 30 * time.Second
	// maxAbandoned bounds the stuck watchers of one namespace.
	maxAbandoned = 3
)

// ending is the progress of the end of Run.
type ending struct {
	stopping   bool
	done       bool
	flushed    chan struct{} // closed when the records of eBPF are in the inbox
	workers    chan struct{} // closed when all goroutines but the watchers have ended
	patience   *time.Timer
	stopEngine context.CancelFunc
	stopProbe  context.CancelFunc
}

// start starts the sources that are not of one namespace.
func (c *Capture) start(probe source.Probe) *ending {
	e := &ending{patience: clock.StoppedTimer()}
	var engine, probing context.Context
	engine, e.stopEngine = context.WithCancel(context.Background())
	probing, e.stopProbe = context.WithCancel(context.Background())
	c.guard("following the engine", func() { c.engine.Run(engine) })
	c.guard("checking who holds ports", func() { source.NewHolderCheck(c.env).Run(engine) })
	c.guard("searching for namespaces", func() { c.env.RunInner(engine) })
	if probe != nil {
		c.guard("reading eBPF", func() { c.env.RunProbe(probing, probe, c.options.OpenProbe) })
	}
	return e
}

// guard runs f in a goroutine. A panic ends the program with an error: the capture would
// be incomplete without f.
func (c *Capture) guard(what string, f func()) {
	c.background.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				err := fmt.Errorf("%s: panic: %v\n%s", what, p, debug.Stack())
				select {
				case c.env.Inbox <- source.EngineEnded{Err: err}:
				case <-c.env.Closed:
				}
			}
		}()
		f()
	})
}

// beginStop waits, for stopFlush at most, for the records of eBPF so far; meanwhile
// everything runs.
func (c *Capture) beginStop(e *ending) {
	if e.stopping {
		return
	}
	e.stopping = true
	flushed := make(chan struct{})
	e.flushed = flushed
	reader := c.reader
	go func() {
		defer close(flushed)
		if reader != nil {
			ctx, cancel := context.WithTimeout(context.Background(), stopFlush)
			defer cancel()
			reader.Flush(ctx)
		}
	}()
}

func (c *Capture) stopSources(e *ending) {
	e.stopEngine()
	e.stopProbe()
	for w := range c.running {
		w.Stop()
	}
	workers := make(chan struct{})
	e.workers = workers
	go func() {
		c.background.Wait()
		close(workers)
	}()
	e.patience.Reset(abandonTime)
}

// abandon forgets the watchers that do not end because the kernel does not answer.
func (c *Capture) abandon(e *ending) {
	var names []string
	now := clock.Now()
	for w := range c.running {
		if w.StuckFor(now) == 0 {
			continue
		}
		delete(c.running, w)
		if n := c.namespaces[w.Namespace()]; n != nil {
			names = append(names, n.names())
		}
	}
	if len(names) > 0 {
		c.log.WithField("containers", strings.Join(names, ", ")).Warn("A watcher is stuck and does not stop; portwatcher stops without it.")
	}
	if len(c.running) > 0 {
		e.patience.Reset(abandonTime / 4)
	}
}

// finish emits what is left when all sources have ended.
func (c *Capture) finish() {
	for len(c.env.Inbox) > 0 {
		c.now = clock.Now()
		_ = c.handle(<-c.env.Inbox) // the only error is the end of the engine's source
	}
	close(c.env.Closed)
	c.now = clock.Now()
	c.reportUnread()
	c.placeWaiting()
	c.reportUnnamed()
	for _, n := range c.namespaces {
		c.reportDoubt(n)
		c.reportOverrun(n)
	}
	for endpoint := range c.forwards {
		c.emitForward(endpoint)
	}
	c.flushBursts()
	c.keepState()
	c.buildView()
	for _, stage := range c.stages() {
		c.log.Debugf("Openings and closings, stage %s: %d in, %d out, %d counted, %d held, %d of no interest, %d lost.",
			stage.Name, stage.In, stage.Out, stage.Counted, stage.Held, stage.Dropped, stage.Lost)
	}
}

// restartStuck starts another watcher where one has waited too long for the kernel. The
// old one stops when the kernel answers, if ever.
func (c *Capture) restartStuck() {
	for n := range c.watchedNamespaces() {
		w := n.watcher
		waited := w.StuckFor(c.now)
		if waited < c.stuckAfter || n.abandoned >= maxAbandoned {
			continue
		}
		c.log.WithField("containers", n.names()).Errorf("The watcher of network namespace %s has been stuck for %s; portwatcher starts another.",
			n.id, waited.Round(time.Second))
		c.gap(nil, "the watcher of "+n.names()+" was stuck; another has been started", 0)
		n.abandoned++
		w.Stop()
		n.watcher = c.startWatcher(n)
	}
}

// storm detects the end of a storm of openings and closings, so that its memory is
// returned to the system then, and not over the minutes that the runtime would take.
type storm struct {
	facts   int // since the end of the last storm
	checked int // of them, when the timer last fired
}

const (
	stormSize = 10_000 // facts
	stormEnd  = 5 * time.Second
)

// countFacts counts openings and closings, and sets the timer in a storm.
func (c *Capture) countFacts(n int) {
	before := c.storm.facts
	c.storm.facts += n
	if before < stormSize && c.storm.facts >= stormSize {
		c.timers.storm.Reset(stormEnd)
	}
}

// settleDown returns the memory of a storm, if that has ended.
func (c *Capture) settleDown() {
	if c.storm.facts-c.storm.checked > stormSize/10 {
		c.storm.checked = c.storm.facts
		c.timers.storm.Reset(stormEnd)
		return
	}
	c.storm = storm{}
	c.tracker.Prune(clock.Now())
	c.changes = nil
	go debug.FreeOSMemory()
}

// reportUnread reports by a gap what eBPF has recorded or counted and was not read before
// the end.
func (c *Capture) reportUnread() {
	c.endReader()
	k := &c.counts.kernel
	recorded, counted := k.Opened+k.Closed, k.CountedOpened+k.CountedClosed+k.Missed
	unread := recorded - min(recorded, c.counts.ring.In) + counted - min(counted, c.counts.counted.In)
	if unread > 0 && c.watched { // where the start failed nothing was to be reported
		c.gap(nil, "portwatcher has stopped before it had read everything that eBPF reported of all containers", unread)
	}
}
