package controller

import (
	"context"
	"time"
)

const (
	// stuckAfter is how long one look at a namespace may take: the kernel
	// answers in milliseconds.
	stuckAfter = 30 * time.Second
	// maxAbandoned bounds the watchers of one namespace that are stuck.
	maxAbandoned = 3
	// abandonTime is how long a stop waits for watchers that are stuck.
	abandonTime = 300 * time.Millisecond
)

// busy notes that the watcher waits for the kernel from now on; the function
// that it returns notes the end.
func (w *watcher) busy() (done func()) {
	w.busySince.Store(time.Now().UnixNano())
	return func() { w.busySince.Store(0) }
}

// stuckFor returns since when the watcher waits for the kernel, 0 if it does
// not.
func (w *watcher) stuckFor(now time.Time) time.Duration {
	since := w.busySince.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// restartStuck starts another watcher where one has waited for the kernel for
// too long. The old one is told to stop and, where nothing can end it, left
// alone.
func (c *Controller) restartStuck(ctx context.Context) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, g := range c.groups {
		w := g.watcher
		if w == nil {
			continue
		}
		waited := w.stuckFor(time.Now())
		if waited < c.stuckAfter || g.abandoned >= maxAbandoned {
			continue
		}
		c.log.WithField("containers", g.names()).Errorf("The watcher of network namespace %s has been stuck for %s; starting another.",
			g.id, waited.Round(time.Second))
		c.gap(nil, "the watcher of "+g.names()+" was stuck; another has been started")
		g.abandoned++
		w.abandoned = true
		w.stop()
		g.watcher = c.startWatcher(ctx, g)
	}
}

// ended notes that a watcher's goroutine has ended.
func (c *Controller) ended(w *watcher) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if w.abandoned {
		w.group.abandoned--
	}
}

// awaitWatchers waits for all watchers to end, but not for long for those that
// are stuck.
func (c *Controller) awaitWatchers() {
	done := make(chan struct{})
	go func() {
		c.watchers.Wait()
		close(done)
	}()
	for {
		select {
		case <-done:
			return
		case <-time.After(abandonTime):
			if names := c.stuckNames(); names != "" {
				c.log.WithField("containers", names).Warn("A watcher is stuck and does not stop; leaving it behind.")
				return
			}
		}
	}
}

// stuckNames names the containers of watchers that wait for the kernel.
func (c *Controller) stuckNames() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	names := ""
	for _, g := range c.groups {
		if g.abandoned > 0 || g.watcher != nil && g.watcher.stuckFor(time.Now()) > abandonTime {
			names += " " + g.names()
		}
	}
	return names
}
