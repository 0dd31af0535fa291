package controller

import (
	"fmt"
	"time"

	"portwatcher/internal/port"
	"portwatcher/internal/probe"
	"portwatcher/internal/process"
	"portwatcher/internal/tracker"
)

// fact is what eBPF told of a socket, with what was read at once while its
// process still lived.
type fact struct {
	probe.Event
	processes []port.Process
	// cgroups are the paths of the socket's cgroup and its process's.
	cgroups [2]string
	arrived time.Time
}

func (r *factReader) fact(e *probe.Event) fact {
	f := fact{Event: *e, arrived: time.Now()}
	f.cgroups = [2]string{r.cgroup(e.Socket.Cgroup), r.cgroup(e.TaskCgroup)}
	if e.Kind == probe.Opened {
		f.processes = r.processes.describe(e.PID, e.Name)
	}
	return f
}

func (r *factReader) cgroup(id uint64) string {
	path, err := r.c.Attributor.CgroupPath(id)
	r.c.tellTrouble(0, err)
	return path
}

// takeFact places a fact, or keeps a copy until its container is announced.
func (c *Controller) takeFact(f *fact) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.calm.count()
	if !c.place(f) {
		kept := *f
		c.pending.add(&kept)
	}
	if c.pending.overflow > 0 && time.Since(c.toldOverflow) >= gapInterval {
		c.gap(nil, fmt.Sprintf("%d socket events of containers that the engine has not announced were given up: there were too many to keep", c.pending.overflow))
		c.pending.overflow, c.toldOverflow = 0, time.Now()
	}
}

// place hands a fact to the tracker. It returns false where the fact's
// container is not known yet.
func (c *Controller) place(f *fact) bool {
	if f.Kind == probe.Opened && (f.Socket.AutoBound && f.Socket.Protocol == port.UDP && !c.UDPClients) {
		return true
	}
	if f.Kind == probe.Closed && c.pending.has(f.NetnsCookie, f.Socket.Cookie) {
		return false // behind its opening
	}
	w := c.byCookie[f.NetnsCookie]
	if w != nil {
		w.facts++
	}
	container, stranger := c.Attributor.ContainerIn(f.cgroups[:], c.find)
	switch {
	case w == nil && container != nil:
		// Its watcher is about to register, or it has ended before it could be
		// looked at.
		m := c.containers[container.ID]
		return !m.monitored && m.group != nil
	case w == nil:
		return !stranger
	case w.group.watcher != w: // stopped
		return true
	case f.Kind == probe.Closed && f.Connected:
		w.connects(f)
		return true
	case f.Kind == probe.Closed:
		delete(w.connecting.sockets, f.Socket.Cookie)
		if !c.placeClose(w.group, f) && time.Since(c.lossAt) < lossTime {
			c.placeTransient(w, f, container)
		}
		return true
	case container == nil && stranger:
		return false
	}
	c.placeOpen(w, f, c.ownerOf(w, f, container))
	return true
}

// ownerOf returns who a socket belongs to: the container that its cgroups name,
// else the only one of its namespace.
func (c *Controller) ownerOf(w *watcher, f *fact, container *port.Container) tracker.Owner {
	if container == nil && !w.group.host && len(w.group.members) == 1 && f.Socket.Address != process.EngineResolver {
		for _, m := range w.group.members {
			container = m.Container
		}
	}
	if container == nil {
		return tracker.Owner{}
	}
	if m := c.containers[container.ID]; m == nil || !m.monitored {
		return tracker.Owner{}
	}
	return tracker.Owner{Container: container, Processes: f.processes}
}

// lossTime is how long after a loss of facts a close may be all that is known of
// a port: that of the opening was lost.
const lossTime = 10 * time.Second

// placeTransient reports a port of which only the close is known. eBPF tells
// closes of nothing else than what could be spoken to.
func (c *Controller) placeTransient(w *watcher, f *fact, container *port.Container) {
	owner := c.ownerOf(w, f, container)
	if f.Socket.Port == 0 || !c.reported(owner.Container, f.Socket.Protocol, f.Socket.Port) ||
		f.Socket.AutoBound && f.Socket.Protocol == port.UDP && !c.UDPClients {
		return
	}
	changes, _ := c.tracker.Transient(c.changes[:0], w.group.id, f.Socket, owner, f.Time, port.SourceEBPF)
	c.publish(changes)
}

func (c *Controller) placeOpen(w *watcher, f *fact, owner tracker.Owner) {
	g := w.group
	if f.Socket.Port == 0 { // it listens without bind: a dump knows the port, or its close does
		g.unbound[f.Socket.Cookie] = unbound{owner: owner, at: f.Time}
		signal(w.poke)
		return
	}
	if !c.reported(owner.Container, f.Socket.Protocol, f.Socket.Port) {
		owner = tracker.Owner{}
	}
	c.publish(c.tracker.Opened(c.changes[:0], g.id, f.Socket, owner, f.Time, port.SourceEBPF))
	w.arm()
}

// placeClose says whether the socket was known.
func (c *Controller) placeClose(g *group, f *fact) (known bool) {
	if late, ok := g.unbound[f.Socket.Cookie]; ok {
		delete(g.unbound, f.Socket.Cookie)
		if f.Socket.Port != 0 && c.reported(late.owner.Container, f.Socket.Protocol, f.Socket.Port) {
			c.publish(c.tracker.Opened(c.changes[:0], g.id, f.Socket, late.owner, late.at, port.SourceEBPF))
		}
	}
	changes, known := c.tracker.Closed(c.changes[:0], g.id, f.Socket.Cookie, f.Time, port.SourceEBPF)
	c.publish(changes)
	return known
}

// unbound is a socket that listens on a port that eBPF did not tell.
type unbound struct {
	owner tracker.Owner
	at    time.Time
}

// nameUnbound opens the sockets whose port a dump has told. The caller holds
// the lock.
func (w *watcher) nameUnbound(sockets []port.Socket) {
	if len(w.group.unbound) == 0 {
		return
	}
	c := w.c
	for i := range sockets {
		late, ok := w.group.unbound[sockets[i].Cookie]
		if !ok {
			continue
		}
		delete(w.group.unbound, sockets[i].Cookie)
		if !c.reported(late.owner.Container, sockets[i].Protocol, sockets[i].Port) {
			late.owner = tracker.Owner{}
		}
		c.publish(c.tracker.Opened(c.changes[:0], w.group.id, sockets[i], late.owner, late.at, port.SourceEBPF))
	}
}

// register notes that a session is open, makes its namespace known to eBPF's
// events, and places those that waited for it.
func (c *Controller) register(w *watcher, s *session) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	w.source, w.closing = s.source, s.receiver
	if s.netnsCookie == 0 || w.group.watcher != w {
		return
	}
	c.byCookie[s.netnsCookie] = w
	w.group.netnsCookie = s.netnsCookie
	c.placePending()
}

func (c *Controller) unregister(w *watcher, s *session) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	w.source, w.closing = "", nil
	if c.byCookie[s.netnsCookie] == w {
		delete(c.byCookie, s.netnsCookie)
	}
}

// placeLast places the facts that wait for a container which has ended. Its
// namespace may never have been seen: g is nil then. Facts of another namespace
// are those of the container's next life, and go on waiting.
func (c *Controller) placeLast(container *port.Container, g *group) {
	itself := func(id string) *port.Container {
		if id == container.ID {
			return container
		}
		return nil
	}
	if g == nil { // known by nothing but its number in eBPF events
		g = newGroup(port.Namespace{Device: unseenDevice})
	}
	w := c.newWatcher(g)
	for _, f := range c.pending.takeAll() {
		belongs, _ := c.Attributor.ContainerIn(f.cgroups[:], itself)
		opening := f.Kind == probe.Opened && belongs != nil
		if opening && g.netnsCookie == 0 {
			g.netnsCookie = f.NetnsCookie
			if g.id.Device == unseenDevice {
				g.id.Inode = f.NetnsCookie
			}
		}
		switch {
		case f.NetnsCookie != g.netnsCookie:
			c.pending.add(f)
		case opening:
			c.placeOpen(w, f, tracker.Owner{Container: container, Processes: f.processes})
		case f.Kind == probe.Closed:
			c.placeClose(g, f)
		default:
			c.pending.add(f)
		}
	}
	w.second.Stop()
	if g.id.Device == unseenDevice {
		c.publish(c.tracker.CloseNamespace(c.changes[:0], g.id, time.Now(), port.SourceEngine))
	}
}

// unseenDevice is the device of namespaces that were never looked at; the kernel
// gives no such number.
const unseenDevice = ^uint64(0)

// placePending tries the facts that wait once more. The caller holds the lock.
func (c *Controller) placePending() {
	for _, f := range c.pending.takeAll() {
		if !c.place(f) {
			c.pending.add(f)
		}
	}
}
