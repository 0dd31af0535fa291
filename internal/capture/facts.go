package capture

import (
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// lossTime is how long after a loss of facts a close may come whose opening was lost.
const lossTime = 10 * time.Second

type placed int

const (
	applied placed = iota // the tracker has it
	dropped               // it is of no interest: not monitored, or of no container
	waits                 // its container is not known yet
	lost                  // its container cannot be known any more
)

// takeFacts places facts, or keeps them until the engine reports their container.
func (c *Capture) takeFacts(o *source.Facts) {
	c.countFacts(len(o.List))
	c.counts.ring.In += uint64(len(o.List))
	for i := range o.List {
		c.takeFact(&o.List[i], o.Cgroups, c.now)
	}
}

// takeFact places a fact that arrived at a moment, or keeps it.
func (c *Capture) takeFact(f *source.Fact, paths *source.CgroupPaths, at clock.Instant) {
	switch result, container := c.place(f, paths); result {
	case applied:
		c.counts.ring.Out++
	case dropped:
		c.counts.ring.Dropped++
	case waits:
		c.pending.addFact(container, *f, paths, at)
	case lost:
		c.counts.ring.Lost++
		c.unnamed.count++
	}
}

// place passes a fact to the tracker. Where its container is not known yet, or its
// namespace is not watched yet, it returns waits and the id by which the fact waits.
func (c *Capture) place(f *source.Fact, paths *source.CgroupPaths) (placed, string) {
	if f.Kind == probe.Closed {
		if id, behind := c.pending.waitsBehind(f.NetnsCookie, f.Socket.Cookie); behind {
			return waits, id
		}
	}
	n := c.byCookie[f.NetnsCookie]
	switch {
	case n == nil:
	case n.watcher != nil:
		n.watcher.CountFact()
	case n.inner != nil:
		n.inner.lastFact = c.now
	}
	owner := c.findOwner(paths, f.Socket.Cgroup, f.TaskCgroup)
	switch {
	case n == nil:
		result, id := c.placeWithout(owner, f.NetnsCookie)
		if result == lost && !c.unnamed.fact(f) {
			result = dropped
		}
		return result, id
	case f.Kind == probe.Closed && f.Connected:
		if n.watcher == nil {
			c.placeClose(n, f) // no dump shows whether the connect has failed
			return applied, ""
		}
		n.connecting[f.Socket.Cookie] = f.Time
		n.watcher.PokeSoon()
	case f.Kind == probe.Closed:
		delete(n.connecting, f.Socket.Cookie)
		known := c.placeClose(n, f)
		switch counted := c.closeOverflowed(f, known); {
		case known, counted:
		case !c.lossAt.IsZero() && c.now.Sub(c.lossAt) < lossTime:
			c.placeLoneClose(n, f, owner.container)
		}
	case owner.container == nil && owner.stranger != "":
		return waits, owner.stranger
	default:
		c.placeOpen(n, f, c.ownerOf(n, f, owner.container))
	}
	return applied, ""
}

// placeWithout is place for a namespace that is not watched, or not yet.
func (c *Capture) placeWithout(owner cgroupOwner, netns uint64) (placed, string) {
	switch {
	case owner.container != nil:
	case owner.stranger != "":
		return waits, owner.stranger
	case owner.gone && netns != c.hostCookie:
		return lost, ""
	default:
		return dropped, ""
	}
	// Its watcher has not opened its session yet, or it ended before it could be inspected, or
	// it is in another namespace than its own.
	m := c.containers[owner.container.ID]
	if m != nil && !m.monitored && m.namespace != nil {
		return dropped, ""
	}
	if m != nil && m.namespace != nil && m.namespace.netnsCookie != 0 {
		c.env.SearchInner()
	}
	return waits, owner.container.ID
}

// placeLoneClose reports a port of which only the close is known. eBPF reports the closes
// of listening sockets only.
func (c *Capture) placeLoneClose(n *namespace, f *source.Fact, container *model.Container) {
	owner := c.ownerOf(n, f, container)
	if owner.Container == nil || f.Socket.Port == 0 || !c.reported(owner.Container, f.Socket.Protocol, f.Socket.Port) {
		return
	}
	changes, _ := c.tracker.Transient(c.changes[:0], n.id, f.Socket, owner, f.Time, model.SourceEBPF)
	c.publish(changes)
}

func (c *Capture) placeOpen(n *namespace, f *source.Fact, owner tracker.Owner) {
	if f.Socket.Port == 0 { // it listens without bind: a dump has the port, or its close
		n.unbound[f.Socket.Cookie] = unbound{owner: owner, at: f.Time}
		if n.watcher != nil {
			n.watcher.Poke()
		}
		return
	}
	if !c.reported(owner.Container, f.Socket.Protocol, f.Socket.Port) {
		owner = tracker.Owner{}
	}
	counted, known := c.tracker.Beside(n.id, &f.Socket)
	changes := c.tracker.Opened(c.changes[:0], n.id, f.Socket, owner, f.Time, model.SourceEBPF)
	if counted && !known && len(changes) == 0 && owner.Container != nil {
		c.countBeside(owner.Container, f, 1, 0)
	}
	c.publish(changes)
	if n.watcher != nil {
		n.watcher.Opened()
	}
}

// countBeside counts a fact of a socket whose endpoint is open by counted sockets.
func (c *Capture) countBeside(container *model.Container, f *source.Fact, opened, closed uint64) {
	b := c.burstOf(container)
	b.add(f.Socket.Protocol, f.Socket.Address, f.Socket.Port, f.Processes, f.Time, f.Time)
	b.count(opened, closed, model.SourceEBPF)
}

// placeClose passes a close to the tracker, and reports whether the socket was known.
func (c *Capture) placeClose(n *namespace, f *source.Fact) (known bool) {
	if late, ok := n.unbound[f.Socket.Cookie]; ok {
		delete(n.unbound, f.Socket.Cookie)
		if f.Socket.Port != 0 && c.reported(late.owner.Container, f.Socket.Protocol, f.Socket.Port) {
			c.publish(c.tracker.Opened(c.changes[:0], n.id, f.Socket, late.owner, late.at, model.SourceEBPF))
		}
	}
	container := c.tracker.ContainerOf(n.id, f.Socket.Cookie)
	counted, _ := c.tracker.Beside(n.id, &f.Socket)
	changes, known := c.tracker.Closed(c.changes[:0], n.id, f.Socket.Cookie, f.Time, model.SourceEBPF)
	if counted && len(changes) == 0 && container != nil {
		c.countBeside(container, f, 0, 1)
	}
	c.publish(changes)
	return known
}
