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
	// stopFlush is how long a stop waits for what the kernel has recorded.
	stopFlush = 2 * time.Second
	// abandonTime is how long a stop waits for watchers beyond the time that they need to
	// read what is left.
	abandonTime = time.Second
	// stuckAfter is how long one read of a namespace may take: the kernel answers in
	// milliseconds.
	stuckAfter = 30 * time.Second
	// maxAbandoned bounds the watchers of one namespace that are stuck.
	maxAbandoned = 3
)

// ending is how far the end of Run has come.
type ending struct {
	stopping   bool
	done       bool
	flushed    chan struct{} // closed when what the kernel recorded is in the inbox
	workers    chan struct{} // closed when all goroutines but the watchers have ended
	patience   *time.Timer
	stopEngine context.CancelFunc
	stopProbe  context.CancelFunc
}

// start starts the sources that are not of one namespace.
func (c *Capture) start(probe source.Probe) *ending {
	e := &ending{patience: stoppedTimer()}
	var engine, probing context.Context
	engine, e.stopEngine = context.WithCancel(context.Background())
	probing, e.stopProbe = context.WithCancel(context.Background())
	c.guard("following the engine", func() { c.engine.Run(engine) })
	c.guard("checking who holds ports", func() { source.NewHolderCheck(c.env).Run(engine) })
	if probe != nil {
		c.guard("reading eBPF", func() { c.env.RunProbe(probing, probe, c.options.OpenProbe) })
	}
	return e
}

// guard runs f in a goroutine. A panic, of what has not handled it itself, ends the program
// with an error: the capture would be incomplete without f.
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

// beginStop waits, for a moment, for what the kernel has recorded by now, while
// everything goes on.
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

// stopSources ends all sources: each sends what it has received before it ends.
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

// abandon leaves watchers behind that the kernel does not let go.
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
		c.log.WithField("containers", strings.Join(names, ", ")).Warn("A watcher is stuck and does not stop; portwatcher leaves it behind.")
	}
	if len(c.running) > 0 {
		e.patience.Reset(abandonTime / 4)
	}
}

// finish reports what is left when all sources have ended.
func (c *Capture) finish() {
	for {
		select {
		case o := <-c.env.Inbox:
			c.now = clock.Now()
			_ = c.handle(o) // the engine's end, and it has ended
			continue
		default:
		}
		break
	}
	close(c.env.Closed)
	c.now = clock.Now()
	c.reportUnread()
	c.reportUnnamed()
	for _, n := range c.namespaces {
		c.reportDoubt(n)
		if n.overrun.pending {
			c.reportOverrun(n)
		}
	}
	c.flushBursts()
	c.keepState()
	c.buildView()
	for _, stage := range c.stages() {
		c.log.Debugf("Openings and closings, stage %s: %d in, %d out, %d counted, %d held, %d of no interest, %d lost.",
			stage.Name, stage.In, stage.Out, stage.Counted, stage.Held, stage.Dropped, stage.Lost)
	}
}

// restartStuck starts another watcher where one has waited for the kernel for too long.
// The old one is stopped and, where nothing can end it, left alone.
func (c *Capture) restartStuck() {
	for _, n := range c.namespaces {
		w := n.watcher
		if w == nil {
			continue
		}
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

// storm notices storms and their end, so that the memory that one took is given back to
// the system at once and not over the minutes that the runtime would take: portwatcher
// runs beside what people really use the machine for.
type storm struct {
	facts   int // since the last storm was over
	checked int // of them, when the timer last fired
}

const (
	stormSize = 10_000 // facts
	stormEnd  = 5 * time.Second
)

// countFacts counts openings and closings, and has the end of a storm noticed.
func (c *Capture) countFacts(n int) {
	before := c.storm.facts
	c.storm.facts += n
	if before < stormSize && c.storm.facts >= stormSize {
		c.timers.storm.Reset(stormEnd)
	}
}

// settleDown gives back what a storm took, if it is over.
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

// reportUnread reports by a gap what the kernel had recorded or counted and nobody read
// before the end.
func (c *Capture) reportUnread() {
	if c.reader != nil {
		c.takeStats(c.reader.Stats())
	}
	k := &c.counts.kernel
	recorded, counted := k.Opened+k.Closed, k.CountedOpened+k.CountedClosed+k.Missed
	unread := recorded - min(recorded, c.counts.ring.In) + counted - min(counted, c.counts.counted.In)
	if unread > 0 && c.watched { // a start that fails has not begun to report
		c.gap(nil, "portwatcher has stopped before it had read everything that eBPF reported of all containers", unread)
	}
}
