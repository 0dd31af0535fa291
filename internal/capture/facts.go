package capture

import (
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// lossTime is how long after a loss of facts a close may be all that is known of a port:
// that of the opening was lost.
const lossTime = 10 * time.Second

// placed is what became of a fact.
type placed int

const (
	applied placed = iota // the tracker has it
	dropped               // it is of no interest: not monitored, or not a container's
	waits                 // its container is not known yet
	lost                  // whose it was cannot be known any more
)

// takeFacts places facts, or keeps them until their container is announced.
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
		c.unnamed++
	}
}

// place hands a fact to the tracker. Where its container is not known yet, or its
// namespace is not watched yet, it returns the id by which the fact waits.
func (c *Capture) place(f *source.Fact, paths *source.CgroupPaths) (placed, string) {
	if f.Kind == probe.Closed {
		if id, behind := c.pending.waitsBehind(f.NetnsCookie, f.Socket.Cookie); behind {
			return waits, id
		}
	}
	n := c.byCookie[f.NetnsCookie]
	if n != nil && n.watcher != nil {
		n.watcher.CountFact()
	}
	owner := c.owners.find(c, paths, f.Socket.Cgroup, f.TaskCgroup)
	switch {
	case n == nil:
		return c.placeWithout(owner, f.NetnsCookie)
	case f.Kind == probe.Closed && f.Connected:
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

// reportUnnamed reports by a gap what happened in cgroups that had ended before their names
// were read: a container came and went while portwatcher was held up.
func (c *Capture) reportUnnamed() {
	if c.unnamed == 0 {
		return
	}
	c.gap(nil, "containers came and went before portwatcher could read which they were: it was held up, or the machine is very busy", c.unnamed)
	c.unnamed = 0
}

// placeWithout decides about what happened in a namespace that is not watched, or not yet.
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
	// Its watcher is about to open its session, or it has ended before it could be
	// inspected.
	if m := c.containers[owner.container.ID]; m != nil && !m.monitored && m.namespace != nil {
		return dropped, ""
	}
	return waits, owner.container.ID
}

// ownerOf returns who a socket belongs to: the container that its cgroups name, else the
// only one of its namespace.
func (c *Capture) ownerOf(n *namespace, f *source.Fact, container *model.Container) tracker.Owner {
	if container == nil && !n.host && len(n.members) == 1 && f.Socket.Address != attribute.EngineResolver {
		for _, m := range n.members {
			container = m.Container
		}
	}
	if container == nil {
		return tracker.Owner{}
	}
	if m := c.containers[container.ID]; m == nil || !m.monitored {
		return tracker.Owner{}
	}
	return tracker.Owner{Container: container, Processes: f.Processes}
}

// placeLoneClose reports a port of which only the close is known. eBPF reports closes of
// nothing else than what could be spoken to.
func (c *Capture) placeLoneClose(n *namespace, f *source.Fact, container *model.Container) {
	owner := c.ownerOf(n, f, container)
	if owner.Container == nil || f.Socket.Port == 0 || !c.reported(owner.Container, f.Socket.Protocol, f.Socket.Port) {
		return
	}
	changes, _ := c.tracker.Transient(c.changes[:0], n.id, f.Socket, owner, f.Time, model.SourceEBPF)
	c.publish(changes)
}

func (c *Capture) placeOpen(n *namespace, f *source.Fact, owner tracker.Owner) {
	if f.Socket.Port == 0 { // it listens without bind: a dump knows the port, or its close does
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
		c.countBeside(owner.Container, f).opened++
	}
	c.publish(changes)
	if n.watcher != nil {
		n.watcher.Opened()
	}
}

// countBeside counts a fact of a socket whose endpoint is open by sockets that were
// counted.
func (c *Capture) countBeside(container *model.Container, f *source.Fact) *burst {
	b := c.burstOf(container)
	b.add(f.Socket.Protocol, f.Socket.Address, f.Socket.Port, f.Processes, f.Time, f.Time)
	b.source = model.SourceEBPF
	return b
}

// placeClose reports whether the socket was known.
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
		c.countBeside(container, f).closed++
	}
	c.publish(changes)
	return known
}

// takeCounts places what eBPF counted, or keeps it until its container is announced.
func (c *Capture) takeCounts(o *source.Counts) {
	for i := range o.List {
		count := &o.List[i]
		c.counts.counted.In += countOf(count)
		c.countFacts(int(countOf(count)))
		c.takeCount(count, o.Cgroups, c.now)
	}
}

// takeCount places a count that arrived at a moment, or keeps it.
func (c *Capture) takeCount(count *source.Count, paths *source.CgroupPaths, at clock.Instant) {
	switch result, id := c.placeCount(count, paths); result {
	case applied:
		c.counts.counted.Out += countOf(count)
	case dropped:
		c.counts.counted.Dropped += countOf(count)
	case waits:
		c.pending.addCount(id, *count, paths, at)
	case lost:
		c.counts.counted.Lost += countOf(count)
		c.unnamed += countOf(count)
	}
}

func countOf(c *source.Count) uint64 { return c.Opened + c.Closed + c.Missed }

// placeCount hands a count to the tracker, and what is no event of its own to the
// container's burst.
func (c *Capture) placeCount(count *source.Count, paths *source.CgroupPaths) (placed, string) {
	n := c.byCookie[count.NetnsCookie]
	owner := c.owners.find(c, paths, count.Cgroup, count.TaskCgroup)
	switch {
	case n == nil:
		return c.placeWithout(owner, count.NetnsCookie)
	case owner.container == nil && owner.stranger != "":
		return waits, owner.stranger
	}
	if n.watcher != nil {
		n.watcher.CountFact()
	}
	fact := source.Fact{Event: probe.Event{Socket: count.Socket}, Processes: count.Processes}
	if !c.applyCount(n, count, c.ownerOf(n, &fact, owner.container)) {
		return dropped, ""
	}
	return applied, ""
}

// applyCount returns false where nobody is interested in the endpoint.
func (c *Capture) applyCount(n *namespace, count *source.Count, owner tracker.Owner) bool {
	s := &count.Socket
	if owner.Container != nil && !count.Rest && !c.reported(owner.Container, s.Protocol, s.Port) {
		owner = tracker.Owner{}
	}
	opened, closed := count.Opened, count.Closed+count.Missed
	if count.Rest || s.Port == 0 {
		if n.watcher != nil {
			n.watcher.Poke() // which of them are open, a dump shows
		}
	} else {
		changes := c.tracker.Counted(c.changes[:0], n.id, tracker.Counted{
			Socket: *s, Owner: owner, Opened: count.Opened, Closed: count.Closed, Missed: count.Missed,
			LastOpened: count.LastOpened, LastClosed: count.LastClosed, ClosedCookie: count.ClosedCookie, NotBefore: c.lastOf(owner.Container), Source: model.SourceEBPF,
		})
		for i := range changes {
			switch changes[i].Type {
			case model.Opened:
				opened -= min(opened, 1)
			case model.Closed:
				closed -= min(closed, 1)
			}
		}
		c.publish(changes)
	}
	if owner.Container == nil {
		return false
	}
	if opened+closed == 0 {
		return true
	}
	processes := owner.Processes
	if !count.SameProcess {
		processes = nil
	}
	b := c.burstOf(owner.Container)
	b.add(s.Protocol, s.Address, s.Port, processes, count.First, count.Last)
	b.opened += opened
	b.closed += closed
	b.source = model.SourceEBPF
	if count.Rest || s.Port == 0 {
		b.unknown(opened, closed, c.now)
	}
	return true
}

// takeLoss reports what eBPF could neither record nor count, and has everything
// scanned: at once, and again by the rounds of the watchers.
func (c *Capture) takeLoss(o source.Loss) {
	c.lossAt = c.now
	c.counts.overruns++
	c.gap(nil, "socket events were lost: there was no room left to record or to count them; all namespaces are scanned again", o.Count)
	c.scanAll()
}

// takeProbeState begins or ends the use of eBPF.
func (c *Capture) takeProbeState(o source.ProbeState) {
	if o.Reader == nil {
		if c.reader != nil {
			c.takeStats(c.reader.Stats())
		}
		c.log.WithError(o.Err).Warn("eBPF has stopped working; sock_diag takes over until it is back.")
		c.gap(nil, "eBPF has stopped working; sock_diag takes over", 0)
	} else if c.counts.probes++; c.counts.probes > 1 {
		c.log.Info("eBPF works again.")
	}
	c.reader, c.hostCookie = o.Reader, o.HostCookie
	c.pending.dropAll() // no namespace's number is known without eBPF
	c.applySettings()
	c.retuneAll()
	c.changed()
}

// ownerCache remembers which container the cgroups of facts belong to, until the
// containers change.
type ownerCache struct{ known map[[2]uint64]cgroupOwner }

// cgroupOwner is a container, or the id of one that may be announced yet, or nobody.
type cgroupOwner struct {
	container *model.Container
	stranger  string
	gone      bool // nobody: the cgroup had ended before its path could be read
}

// learnForm remembers in which form cgroup paths name containers of this engine, and
// makes it known to the sources.
func (c *Capture) learnForm(paths []string) {
	if forms := c.forms.Learn(c.find, paths...); forms != c.forms {
		c.forms = forms
		c.publishDirectory()
	}
}

// maxOwners bounds the cache.
const maxOwners = 4096

func (o *ownerCache) forget() { o.known = nil }

// find returns the owner by the cgroup of a socket, else by that of its process.
func (o *ownerCache) find(c *Capture, cgroups *source.CgroupPaths, socket, task uint64) cgroupOwner {
	key := [2]uint64{socket, task}
	if owner, ok := o.known[key]; ok {
		return owner
	}
	paths := []string{cgroups.Path(socket), cgroups.Path(task)}
	var owner cgroupOwner
	owner.container, owner.stranger = attribute.ContainerIn(c.forms, c.find, paths...)
	if owner.container != nil {
		c.learnForm(paths)
	}
	owner.gone = cgroups.Gone(socket) || cgroups.Gone(task)
	if o.known == nil || len(o.known) >= maxOwners {
		o.known = map[[2]uint64]cgroupOwner{}
	}
	o.known[key] = owner
	return owner
}
