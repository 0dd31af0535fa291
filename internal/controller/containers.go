package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
)

// add takes a container in that runs. The caller holds the lock, here and
// below.
func (c *Controller) add(ctx context.Context, container *port.Container) {
	log := c.log.WithField("container", container.Name)
	m := &member{Container: container}
	c.containers[container.ID] = m
	id, err := c.identify(container)
	switch {
	case errors.Is(err, netns.ErrProcessGone):
		m.unreachable = ErrNoHostPIDNamespace
		log.Debug("The container's process cannot be seen; it has ended, or the pid namespace is another.")
		return
	case err != nil:
		m.unreachable = err
		if !c.still { // else it is returned
			log.WithError(err).Error("The container cannot be watched.")
		}
		return
	}
	g := c.groups[id]
	if g == nil {
		g = newGroup(id)
		c.groups[id] = g
	}
	g.host = g.host || c.isHost(id, container)
	g.members[container.ID] = m
	m.group = g
	g.resumed = g.resumed || c.resumes()
	c.reconsider(g)
	c.restore(m)
	c.choose(ctx, m, container)
	c.placePending()
}

// isHost says whether a namespace is the host's: that of the host's first
// process, or of a container that says so. Others can be there without saying so,
// by network_mode: container:x, when x has ended since.
func (c *Controller) isHost(id port.Namespace, container *port.Container) bool {
	if container.NetworkMode == "host" {
		c.hostNamespace = id
	} else if c.hostNamespace == (port.Namespace{}) {
		first := 1
		if process.HostProcesses(c.ProcRoot) {
			first = 2 // the kernel's own, which some systems let be looked at where they hide 1
		}
		host, err := netns.Identify(c.ProcRoot, first)
		if err != nil {
			c.log.WithError(err).Debug("The host's network namespace is not known yet.")
			return false
		}
		c.hostNamespace = host
	}
	return id == c.hostNamespace
}

// choose starts or stops to monitor a container, as the settings say. Events have
// named it as in known so far.
func (c *Controller) choose(ctx context.Context, m *member, known *port.Container) {
	monitored := c.Monitored(m.Container)
	if monitored == m.monitored || m.group == nil {
		return
	}
	m.monitored = monitored
	log := c.log.WithField("container", m.Name)
	if monitored {
		if !c.still {
			log.Info("Watching container.")
		}
		c.reconsider(m.group)
	} else {
		log.Info("Not watching container any more.")
		if c.drop(func(e port.Endpoint) bool { return e.Container == m.ID }) {
			c.leave(known)
		}
		c.forget(m.ID)
	}
	c.adjust(ctx, m.group)
}

// adjust gives a group a watcher while it has a monitored member.
func (c *Controller) adjust(ctx context.Context, g *group) {
	wanted := false
	for _, m := range g.members {
		wanted = wanted || m.monitored
	}
	switch {
	case wanted && g.watcher == nil:
		g.watcher = c.startWatcher(ctx, g)
	case !wanted && g.watcher != nil:
		g.watcher.stop()
		g.watcher = nil
	}
}

// remove takes a container out that has ended.
func (c *Controller) remove(id string, at time.Time) {
	m := c.containers[id]
	if m == nil {
		return
	}
	delete(c.containers, id)
	if c.Monitored(m.Container) {
		c.placeLast(m.Container, m.group)
	}
	c.publish(c.tracker.CloseContainer(c.changes[:0], id, at, port.SourceEngine))
	c.closeRemembered(id, at, port.SourceEngine)
	if m.monitored {
		c.log.WithField("container", m.Name).Info("The container has ended.")
	}
	g := m.group
	if g == nil {
		return
	}
	delete(g.members, id)
	c.reconsider(g)
	c.adjust(context.Background(), g) // only ever stops a watcher here
	if g.watcher == nil {
		c.publish(c.tracker.CloseNamespace(c.changes[:0], g.id, at, port.SourceEngine))
	}
	if len(g.members) == 0 {
		delete(c.groups, g.id)
	}
}

// passed takes over a container that ended before it could be looked at: what
// eBPF told of it is reported.
func (c *Controller) passed(container *port.Container, at time.Time) {
	if c.containers[container.ID] == nil && c.Monitored(container) {
		c.placeLast(container, nil)
		c.publish(c.tracker.CloseContainer(c.changes[:0], container.ID, at, port.SourceEngine))
	}
}

// update takes over a changed description.
func (c *Controller) update(ctx context.Context, container *port.Container) {
	m := c.containers[container.ID]
	if m == nil {
		c.add(ctx, container)
		return
	}
	if m.Name != container.Name && m.monitored {
		c.log.WithField("container", container.Name).Infof("The container was renamed from %q.", m.Name)
	}
	known, monitored := m.Container, m.monitored
	m.Container = container
	c.tracker.UpdateContainer(container)
	c.choose(ctx, m, known)
	if m.group == nil {
		return
	}
	if m.monitored && !monitored { // its sockets are there, and no eBPF event will come
		signal(m.group.watcher.poke)
	}
	c.reach(m.group)
}

// reconsider has the owners of a group's sockets that belonged to nobody asked
// for again: its members have changed.
func (c *Controller) reconsider(g *group) {
	g.epoch++
	c.tracker.Reconsider(g.id)
}

// lookup finds a running container for attribution. The caller does not hold
// the lock.
func (c *Controller) lookup(id string) *port.Container {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.find(id)
}

// find finds a running container by its id.
func (c *Controller) find(id string) *port.Container {
	if m := c.containers[id]; m != nil {
		return m.Container
	}
	return nil
}

func newGroup(id port.Namespace) *group {
	return &group{id: id, members: map[string]*member{}, unbound: map[uint64]unbound{}}
}

func (g *group) containers() []*port.Container {
	all := make([]*port.Container, 0, len(g.members))
	for _, m := range g.members {
		all = append(all, m.Container)
	}
	return all
}

func (g *group) ownership(c *Controller) process.Members {
	return process.Members{Lookup: c.lookup, Namespace: g.containers(), Host: g.host}
}

// pids are the first processes of the members: any of them leads into the
// namespace.
func (g *group) pids() []int {
	pids := make([]int, 0, len(g.members))
	for _, m := range g.members {
		pids = append(pids, m.PID)
	}
	slices.Sort(pids)
	return pids
}

// names lists the monitored members, for messages.
func (g *group) names() string {
	var names []string
	for _, m := range g.members {
		if m.monitored {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
