package capture

import (
	"context"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/source"
)

// roundInterval is the time between two calls of round.
const roundInterval = 10 * time.Second

// Run watches until ctx ends, and returns nil then. All its goroutines have ended when it
// returns, except a watcher whose system call does not return.
func (c *Capture) Run(ctx context.Context) error {
	defer close(c.over)
	probe, err := c.startProbe()
	if err != nil {
		close(c.env.Closed)
		return err
	}
	end := c.start(probe)
	rounds := time.NewTimer(clock.Rest(roundInterval))
	defer rounds.Stop()
	stopping := ctx.Done()
	for !end.done {
		select {
		case o := <-c.env.Inbox:
			if failed := c.handleBatch(o); failed != nil && err == nil {
				err = failed
				c.beginStop(end)
				stopping = nil
			}
		case <-stopping:
			stopping = nil
			c.beginStop(end)
		case <-end.flushed:
			end.flushed = nil
			c.stopSources(end)
		case <-end.workers:
			end.workers = nil
		case <-end.patience.C:
			c.abandon(end)
		case t := <-c.tunings:
			c.tune(t)
		case f := <-c.files:
			c.replaceFile(f)
		case <-c.timers.drift.C:
		case reason := <-c.gaps:
			c.gap(nil, reason, 0)
		case <-c.timers.expiry.C:
		case <-c.timers.burst.C:
			c.timers.burstSet = false
			c.now = clock.Now()
			c.flushReadyBursts()
		case <-c.timers.forward.C:
			c.timers.forwardSet = false
			c.now = clock.Now()
			c.emitForwards(c.now)
		case <-c.timers.storm.C:
			c.settleDown()
		case r := <-c.views.requests:
			c.views.waiting = append(c.views.waiting, r)
		case <-c.timers.view.C:
			c.timers.viewSet = false
		case <-rounds.C:
			c.round()
			rounds.Reset(clock.Rest(roundInterval))
		}
		c.afterEach()
		end.done = end.stopping && end.flushed == nil && end.workers == nil && len(c.running) == 0
	}
	c.finish()
	return err
}

// handleBatch handles an observation and those that wait behind it, up to a bound. An
// error ends the program.
func (c *Capture) handleBatch(o source.Observation) error {
	for left := 2 * inboxLength; ; left-- {
		c.now = clock.Now()
		if err := c.handle(o); err != nil || left == 0 {
			return err
		}
		select {
		case o = <-c.env.Inbox:
		default:
			return nil
		}
	}
}

// handle applies an observation.
func (c *Capture) handle(o source.Observation) error {
	switch o := o.(type) {
	case *source.Facts:
		c.takeFacts(o)
		o.Release()
	case *source.Counts:
		c.takeCounts(o)
	case *source.Closes:
		c.takeCloses(o)
	case *source.Scan:
		c.takeScan(o)
	case *source.ContainerChange:
		return c.takeContainer(o)
	case *source.Inner:
		c.takeInner(o)
	case *source.Held:
		c.takeHeld(o)
	case *source.Fresh:
		c.answerFresh(o)
	case *source.Holders:
		c.answerHolders(o)
	case *source.Holdings:
		c.answerHoldings(o)
	case *source.WatcherOf:
		if m := c.containers[o.ID]; m != nil && m.namespace != nil {
			o.Watcher = m.namespace.watcher
		}
	case source.SessionOpened:
		c.sessionOpened(o)
	case source.InterfacesRead:
		c.takeInterfaces(o)
	case source.SessionClosed:
		c.sessionClosed(o)
	case source.Failed:
		c.watcherFailed(o)
	case source.WatcherEnded:
		c.watcherEnded(o)
	case source.Loss:
		c.takeLoss(o)
	case source.Malformed:
		c.scanAll()
	case source.ProbeState:
		c.takeProbeState(o)
	case source.EngineInfo:
		c.takeEngineInfo(o)
	case source.EngineEnded:
		return o.Err
	}
	if question, ok := o.(interface{ Answer() }); ok {
		question.Answer()
	}
	return nil
}

// afterEach does what may be due after each wake-up.
func (c *Capture) afterEach() {
	c.expire()
	c.judge()
	c.setBurstTimer()
	c.serveViews()
}

// round restarts stuck watchers, reports what was dropped, forgets what has waited too
// long, and gives the journal the sockets and processes that changed without an event.
func (c *Capture) round() {
	c.now = clock.Now()
	c.restartStuck()
	c.prunePending()
	c.reportOverruns()
	c.reportUnnamed()
	c.tracker.Prune(c.now)
	c.judgeAgain()
	c.keepState()
}

// expire reports the closings of endpoints whose close grace has ended, and sets the timer
// for the next.
func (c *Capture) expire() {
	next, waits := c.tracker.NextExpiry()
	if !waits {
		return
	}
	now := clock.Now()
	if !next.After(now) {
		c.now = now
		c.publish(c.tracker.Expire(c.changes[:0], now))
		if next, waits = c.tracker.NextExpiry(); !waits {
			return
		}
	}
	c.timers.expiry.Reset(max(next.Sub(now), time.Millisecond))
}
