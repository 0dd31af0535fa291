package capture

import (
	"portwatcher/internal/clock"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// exposureOf returns who can reach the endpoint of a change, and remembers it while the
// endpoint is open. Only an opening computes it: what differs later is an event of its own,
// and a closed change has the last known.
func (c *Capture) exposureOf(change *tracker.Change) exposure.Reach {
	r, known := c.reaches[change.Endpoint]
	if !known || change.Type == model.Opened {
		r = c.reachOf(change)
	} else if change.Type == model.Changed && change.Container.IsHost() {
		r.Forward = c.forwardOf(change)
	}
	if change.Type == model.Closed {
		delete(c.reaches, change.Endpoint)
	} else {
		c.reaches[change.Endpoint] = r
	}
	return r
}

// reachOf computes who can reach the endpoint of a change now.
func (c *Capture) reachOf(change *tracker.Change) exposure.Reach {
	n := c.namespaces[change.Namespace]
	if n == nil {
		return exposure.Unseen(change.Endpoint.Address)
	}
	if change.Container.IsHost() {
		reach := exposure.Of(listening(change, true), exposure.Namespace{})
		reach.Forward = c.forwardOf(change)
		return reach
	}
	in := exposure.Namespace{Containers: n.listed, Interfaces: n.interfaces.List}
	if n.inner != nil && !n.host {
		switch {
		case n.inner.unseen:
			return exposure.Unseen(change.Endpoint.Address)
		case in.Interfaces == nil:
			return exposure.Inner(change.Endpoint.Address, n.inner.linked)
		}
		in.Containers = nil // the engine forwards nothing to it
	}
	return exposure.Of(listening(change, n.host), in)
}

func listening(change *tracker.Change, host bool) exposure.Listening {
	return exposure.Listening{
		Protocol: change.Endpoint.Protocol, Address: change.Endpoint.Address, Port: change.Endpoint.Port,
		IPv6Only: change.IPv6Only, Host: host,
	}
}

// learn replaces the interfaces of a namespace, unless what is known is newer.
func (n *namespace) learn(i source.Interfaces) {
	if !i.Read.Before(n.interfaces.Read) {
		n.interfaces = i
	}
}

// takeInterfaces applies the interfaces of a namespace.
func (c *Capture) takeInterfaces(o source.InterfacesRead) {
	n := c.namespaceOf(o.Watcher)
	if n == nil {
		return
	}
	n.learn(o.Interfaces)
	if o.Changed.IsZero() {
		c.computeReach(n, c.now, model.SourceEngine)
	} else {
		c.computeReach(n, o.Changed, model.SourceRTNetlink)
	}
}

// computeReach computes again who can reach what is open in a namespace, whose containers,
// networks or interfaces have changed, and emits what differs. While the containers are not
// all known it waits, and after a restart for the first scan, which shows what is open.
func (c *Capture) computeReach(n *namespace, at clock.Instant, from model.Source) {
	if !c.synced || n.resumed {
		return
	}
	for _, open := range c.tracker.OpenIn(n.id) {
		c.compareReach(&open, at, from)
	}
}

// computeReachAgain is computeReach for all namespaces: all containers are known now.
func (c *Capture) computeReachAgain() {
	from := model.SourceEngine
	if c.options.Resume.Again {
		from = model.SourceRestart
	}
	for _, n := range c.namespaces {
		c.computeReach(n, c.now, from)
	}
}

// compareReach emits a changed event where others can reach an open endpoint, given as an
// opened change, than before.
func (c *Capture) compareReach(open *tracker.Change, at clock.Instant, from model.Source) {
	before, known := c.reaches[open.Endpoint]
	reach := c.reachOf(open)
	if reach.Forward == nil && before.Forward != nil && before.Forward.Engine {
		reach.Forward = before.Forward // the container has ended, and its forward is about to
	}
	if !known || before.Equal(reach) {
		return
	}
	c.reaches[open.Endpoint] = reach
	if m := c.containers[open.Container.ID]; m != nil {
		m.listed.made = false
	}
	c.changed()
	if _, held := c.forwards[open.Endpoint]; held {
		c.emitForward(open.Endpoint)
		return
	}
	if b := c.bursts[open.Container.ID]; b != nil {
		if held, ok := b.held[open.Endpoint]; ok && held.Type == model.Opened {
			held.reach = reach // its opened event has not been emitted
			b.held[open.Endpoint] = held
			return
		}
	}
	c.emitReach(open, before, reach, at, from)
}

// emitReach emits that others can reach an open endpoint than before.
func (c *Capture) emitReach(open *tracker.Change, before, reach exposure.Reach, at clock.Instant, from model.Source) {
	change := *open
	change.Type, change.Time, change.Source = model.Changed, max(at, open.OpenedAt), from
	e := c.event(&change, reach)
	if before.SameExposure(reach) {
		e.Change, e.PreviousForward = model.ChangeForward, before.Forward
	} else {
		e.Change, e.PreviousExposure, e.PreviousPublished = model.ChangeExposure, before.Exposure, before.Published
	}
	if m := c.containers[change.Container.ID]; m != nil {
		m.lastEvent = max(m.lastEvent, change.Time)
	}
	c.send(e, c.socketsOf(&change), change.Container.ID, false)
}

// compareWoken compares who can reach the endpoints whose close grace has ended by an
// opening: their container may have another namespace now, or other published ports.
func (c *Capture) compareWoken() {
	c.woken = c.tracker.Woken(c.woken[:0])
	for i := range c.woken {
		c.compareReach(&c.woken[i], c.now, model.SourceEngine)
	}
	clear(c.woken)
}
