package capture

import (
	"iter"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
	"portwatcher/internal/tracker"
)

// forwardWait is how long the opening of a port by a process of the engine waits for the
// container that it serves: the engine opens the port before it reports the container.
const forwardWait = 3 * time.Second

// heldForward is the opening of a port of the host by a process of the engine, of which the
// container is not known yet.
type heldForward struct {
	tracker.Change
	due clock.Instant
}

// forwardOf returns the container that publishes a port of the host.
func (c *Capture) forwardOf(change *tracker.Change) *model.Forward {
	return exposure.ForwardOf(listening(change, true), change.Processes, c.published())
}

// published yields the running containers that publish ports.
func (c *Capture) published() iter.Seq[*model.Container] {
	return func(yield func(*model.Container) bool) {
		for _, m := range c.containers {
			if len(m.Ports) > 0 && !yield(m.Container) {
				return
			}
		}
	}
}

// computeForwards computes again which containers publish the host's own ports: a container
// has started, changed or ended.
func (c *Capture) computeForwards() {
	if host := c.containers[model.HostID]; host != nil && host.namespace != nil && c.synced && !host.namespace.resumed {
		for _, open := range c.tracker.OpenOf(model.HostID) {
			c.compareReach(&open, c.now, model.SourceEngine)
		}
	}
}

// awaitsForward holds an opening by a process of the engine until the container that it serves
// is known, and reports whether it did so. What happens to the endpoint meanwhile follows.
func (c *Capture) awaitsForward(change *tracker.Change, reach exposure.Reach) bool {
	if !change.Container.IsHost() {
		return false
	}
	held, waits := c.forwards[change.Endpoint]
	switch {
	case waits && change.Type == model.Changed:
		held.Processes = change.Processes
		c.forwards[change.Endpoint] = held
		c.counts.changes.Dropped++
		if reach.Forward != nil || !exposure.HeldByEngine(change.Processes) {
			c.emitForward(change.Endpoint)
		}
		return true
	case waits:
		c.emitForward(change.Endpoint)
		return false
	case change.Type != model.Opened || change.Transient || reach.Forward != nil || !exposure.HeldByEngine(change.Processes):
		return false
	}
	c.forwards[change.Endpoint] = heldForward{*change, c.now.Add(forwardWait)}
	if !c.timers.forwardSet {
		c.timers.forwardSet = true
		c.timers.forward.Reset(forwardWait)
	}
	return true
}

// emitForward emits the opening that was held.
func (c *Capture) emitForward(endpoint model.Endpoint) {
	held := c.forwards[endpoint]
	delete(c.forwards, endpoint)
	reach, known := c.reaches[endpoint]
	if !known {
		reach = c.reachOf(&held.Change)
	}
	c.emit(&held.Change, reach, true)
}

// emitForwards emits the openings that were held for forwardWait at a moment.
func (c *Capture) emitForwards(now clock.Instant) {
	var next clock.Instant
	for endpoint, held := range c.forwards {
		switch {
		case !held.due.After(now):
			c.emitForward(endpoint)
		case next.IsZero() || held.due.Before(next):
			next = held.due
		}
	}
	if !next.IsZero() {
		c.timers.forwardSet = true
		c.timers.forward.Reset(next.Sub(now))
	}
}
