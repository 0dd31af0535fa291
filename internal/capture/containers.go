package capture

import (
	"errors"

	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/source"
)

// member is a running container.
type member struct {
	*model.Container
	namespace *namespace // nil where it could not be identified
	monitored bool
	// unreachable is why there is no namespace; nil where the engine does not describe the
	// container.
	unreachable error
	// inner are the inner namespaces in which it has a process.
	inner []*namespace
	// livedAt is when the last search began that found its first process.
	livedAt clock.Instant
	listed  listed
	// lastEvent is the time of its last opened, closed or changed event.
	lastEvent clock.Instant
}

// add applies a container that has started.
func (c *Capture) add(o *source.ContainerChange) {
	container := inNamespace(o.Container, o.Namespace)
	log := c.log.WithField("container", container.Name)
	m := &member{Container: container}
	c.containers[container.ID] = m
	defer c.chooseAgain(container.Name)
	c.owners = nil
	c.changed()
	if o.Kind == engine.Failed { // the engine's package has reported it
		c.judgeRunning(m)
		c.publishDirectory()
		return
	}
	if o.Err != nil {
		c.judgeRunning(m)
		m.unreachable = o.Err
		switch {
		case o.Ended || errors.Is(o.Err, netns.ErrProcessGone):
			m.unreachable = errNoHostPIDNamespace
			log.Debug("The container's process is not visible: it has ended, or this is another pid namespace.")
		case !c.single: // else List returns it
			log.WithError(o.Err).Error("The container cannot be watched.")
		}
		c.publishDirectory()
		return
	}
	n := c.namespaces[o.Namespace]
	if n != nil && n.inner != nil {
		c.dropInner(n)
		n = nil
	}
	if n == nil {
		n = newNamespace(o.Namespace)
		c.namespaces[o.Namespace] = n
		c.tracker.OpenNamespace(n.id)
	}
	n.host = n.host || o.Host
	if n.source != model.SourceProc {
		n.learn(o.Interfaces)
	}
	n.members[container.ID] = m
	m.namespace = n
	n.resumed = n.resumed || c.resumes() || len(c.resume.open[container.ID]) > 0 // the engine describes it late
	m.monitored = c.selected(container)
	c.judgeRunning(m)
	c.reconsider(n)
	if m.monitored && c.resumes() && !container.IsHost() {
		c.recordName(container) // it may have been renamed since
	}
	c.restore(m)
	if m.monitored && !c.single {
		log.Info("Watching " + what(container) + ".")
	}
	c.adjust(n)
	c.computeReach(n, c.now, model.SourceEngine)
	c.computeForwards()
	c.placePending(container.ID)
}

// what names a kind of owner in a log message.
func what(container *model.Container) string {
	if container.IsHost() {
		return "the host's own ports"
	}
	return "container"
}

// choose starts or stops monitoring a container, according to the settings. The events so
// far have described it as known.
func (c *Capture) choose(m *member, known *model.Container) {
	monitored := c.selected(m.Container)
	if monitored == m.monitored || m.namespace == nil {
		return
	}
	c.reportDoubt(m.namespace)
	m.monitored = monitored
	c.judgeRunning(m)
	c.changed()
	log := c.log.WithField("container", m.Name)
	if monitored {
		if !c.single {
			log.Info("Watching container.")
		}
		for _, n := range m.namespaces() {
			c.reconsider(n)
		}
	} else {
		log.Info("The container is not watched any more.")
		c.flushBurst(m.ID)
		if c.drop(m.ID, func(model.Endpoint) bool { return true }) {
			c.leave(known)
		}
		c.forget(m.ID)
		c.publishDirectory()
	}
	for _, n := range m.namespaces() {
		c.adjust(n)
	}
}

// namespaces returns the namespaces of which it is a member.
func (m *member) namespaces() []*namespace { return append([]*namespace{m.namespace}, m.inner...) }

// inNamespace returns the description of a container with its own namespace.
func inNamespace(container *model.Container, id model.Namespace) *model.Container {
	described := *container
	described.Namespace = id
	return &described
}

// finishContainer applies the end of a container.
func (c *Capture) finishContainer(o *source.ContainerChange) {
	at := min(c.wall.Instant(o.Time), c.now)
	if o.Late {
		c.gap(o.Container, "the container has ended, and portwatcher is behind: its last openings and closings may be missing", 0)
	}
	if o.Kind == engine.Passed {
		c.passed(o.Container)
	} else {
		c.remove(o.Container.ID, at)
	}
}

// remove forgets a container that has ended, and closes its endpoints.
func (c *Capture) remove(id string, at clock.Instant) {
	m := c.containers[id]
	if m == nil {
		return
	}
	c.seeUnseen(m, m.livedAt) // what came later may be of its next life
	delete(c.containers, id)
	defer c.chooseAgain(m.Name)
	defer c.judgeEnded(id, at) // after what closes with it
	defer c.computeForwards()
	c.owners = nil
	c.changed()
	if c.selected(m.Container) {
		c.placeLast(m.Container, m.namespace)
	}
	c.pending.end(id)
	c.flushBurst(id)
	c.publish(c.tracker.CloseContainer(c.changes[:0], id, at, model.SourceEngine))
	c.flushBurst(id)
	c.closeRemembered(id, at, model.SourceEngine)
	if m.monitored {
		c.log.WithField("container", m.Name).Info("The container has ended.")
	}
	for len(m.inner) > 0 {
		c.leaveInner(m.inner[0], m)
	}
	n := m.namespace
	if n == nil {
		c.publishDirectory()
		return
	}
	c.reportDoubt(n)
	if len(n.members) == 1 {
		c.reportOverrun(n)
	}
	delete(n.members, id)
	c.reconsider(n)
	c.adjust(n)
	if n.watcher == nil {
		c.publish(c.tracker.CloseNamespace(c.changes[:0], n.id, at, model.SourceEngine))
		if len(n.members) > 0 {
			c.tracker.OpenNamespace(n.id)
		}
	}
	if len(n.members) == 0 {
		delete(c.namespaces, n.id)
		return
	}
	if n.watcher != nil && n.interfaces.List != nil {
		n.watcher.ReadInterfaces() // the engine takes them away, if they were the container's
	} else {
		c.computeReach(n, at, model.SourceEngine)
	}
}

// passed applies a container that ended before it could be inspected: eBPF's reports of it
// become events.
func (c *Capture) passed(container *model.Container) {
	if c.containers[container.ID] == nil && c.selected(container) {
		c.placeLast(container, nil)
		c.flushBurst(container.ID)
	} else {
		c.pending.drop(container.ID)
	}
}

// update applies a changed description.
func (c *Capture) update(o *source.ContainerChange) {
	container := o.Container
	m := c.containers[container.ID]
	if m == nil {
		c.add(o)
		return
	}
	if m.Name != container.Name && m.monitored {
		c.log.WithField("container", container.Name).Infof("The container was renamed from %q.", m.Name)
		c.recordName(container)
	}
	known, monitored := m.Container, m.monitored
	container = inNamespace(container, known.Namespace)
	m.Container = container
	c.owners = nil
	c.changed()
	c.tracker.UpdateContainer(container)
	c.choose(m, known)
	c.judgeRunning(m)
	c.publishDirectory()
	if m.namespace == nil {
		return
	}
	if m.monitored && !monitored { // no eBPF event will come of its open sockets
		m.namespace.watcher.Poke()
	}
	if m.namespace.source != model.SourceProc {
		m.namespace.learn(o.Interfaces)
	}
	c.computeReach(m.namespace, c.now, model.SourceEngine)
	c.computeForwards()
}

// find returns a running container by its id, nil if there is none.
func (c *Capture) find(id string) *model.Container {
	if m := c.containers[id]; m != nil {
		return m.Container
	}
	return nil
}
