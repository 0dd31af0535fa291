package controller

import (
	"context"
	"time"

	"portwatcher/internal/port"
)

// Tuning are the settings that may change while the controller runs. Its
// functions are called under the controller's lock, from any goroutine.
type Tuning struct {
	// Monitored says whether a container is watched.
	Monitored func(*port.Container) bool
	// Unmatched returns what the user asked for and no container matches; nil
	// means that nothing was asked for.
	Unmatched func([]*port.Container) []string
	// Reported says which ports are reported; nil is all. The container is nil
	// where it is not known.
	Reported     func(*port.Container, port.Protocol, uint16) bool
	ScanInterval time.Duration
	// BurstScans is how many scans make one, BurstDelay the time between them.
	BurstScans int
	BurstDelay time.Duration
	CloseGrace time.Duration
	UDPClients bool
}

// Tune changes the settings of a running controller. What is not reported any
// more is forgotten without an event, but for a gap of each container that is not
// monitored any more; what is from now on is reported as opened.
// It returns at once.
func (c *Controller) Tune(t Tuning) {
	select {
	case <-c.tunings:
	default:
	}
	c.tunings <- t
}

func (c *Controller) tune(ctx context.Context, t Tuning) {
	c.mutex.Lock()
	how := func(w *watcher) { signal(w.poke) }
	if old := &c.Tuning; old.ScanInterval != t.ScanInterval || old.BurstScans != t.BurstScans ||
		old.BurstDelay != t.BurstDelay || old.UDPClients != t.UDPClients {
		how = func(w *watcher) { signal(w.retune) }
	}
	c.Tuning = t
	c.tracker.SetGrace(t.CloseGrace)
	for _, m := range c.containers {
		c.choose(ctx, m, m.Container)
	}
	c.drop(func(e port.Endpoint) bool {
		return !c.reported(c.find(e.Container), e.Protocol, e.Port)
	})
	for _, g := range c.groups {
		c.reconsider(g)
	}
	c.eachWatcher(how)
	c.tellUnmatched()
	c.mutex.Unlock()
	c.keepState()
	signal(c.wake)
}

// reported says whether a port is reported. The caller holds the lock.
func (c *Controller) reported(container *port.Container, p port.Protocol, number uint16) bool {
	return c.Reported == nil || c.Reported(container, p, number)
}
