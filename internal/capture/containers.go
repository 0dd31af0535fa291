package capture

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
	"portwatcher/internal/source"
)

// ErrNoHostPIDNamespace reports that no container's process can be seen.
var ErrNoHostPIDNamespace = errors.New("no container's process can be seen here: portwatcher needs the host's pid namespace (docker run --pid host; in Compose, pid: host)")

// member is a running container.
type member struct {
	*model.Container
	namespace *namespace // nil where it could not be identified
	monitored bool
	// unreachable reports why there is no namespace.
	unreachable error
	listed      listed
	// lastEvent is the time of its last opened, closed or changed event.
	lastEvent clock.Instant
}

// namespace is a network namespace with its containers.
type namespace struct {
	id      model.Namespace
	host    bool
	members map[string]*member
	listed  []*model.Container // the members, as the directory has them
	epoch   uint64             // rises whenever the members change
	unbound map[uint64]unbound
	// connecting are UDP sockets that were about to connect; see settleConnects.
	connecting map[uint64]clock.Instant
	// netnsCookie is the namespace's in eBPF's events, 0 until it is known.
	netnsCookie uint64
	watcher     *source.Watcher // nil while no member is monitored
	source      model.Source    // of the watcher's snapshots; empty before its session is open
	destroy     bool            // destroy notifications are received
	// withoutDestroy is why they are not although they could be; empty otherwise.
	withoutDestroy string
	// scanned is when the last snapshot began.
	scanned clock.Instant
	// resumed means that the first scan finds what happened while portwatcher did not run.
	resumed bool
	// abandoned are watchers that were stuck and have not ended.
	abandoned int
	// ownerless are ports of which the container is not known.
	ownerless doubt
	overrun   overrun
}

// takeContainer applies what the engine reported. An error ends the program.
func (c *Capture) takeContainer(o *source.ContainerChange) error {
	c.reportAway()
	switch o.Kind {
	case engine.Started:
		c.add(o)
	case engine.Stopped, engine.Passed:
		c.finishContainer(o)
	case engine.Updated:
		c.update(o)
	case engine.Lost:
		c.engineIs.lose(o.Change.Err)
		c.changed()
	case engine.Synced:
		return c.takeSynced()
	}
	return nil
}

func (c *Capture) takeSynced() error {
	if c.engineIs.lost != nil && c.engineIs.connected {
		c.engineBack = c.now
	}
	c.engineIs.connect()
	first := !c.synced
	c.synced = true
	c.changed()
	c.reportUnmatched()
	if first {
		if err := c.blind(); err != nil {
			return err
		}
		c.closeForgone()
	}
	return nil
}

// blind returns why, if there are containers and the namespace of none can be reached. A
// process that has just ended proves nothing, unless the processes seen here are not the
// host's.
func (c *Capture) blind() error {
	var why error
	for _, m := range c.containers {
		if m.namespace != nil {
			return nil
		}
		if why == nil || errors.Is(why, ErrNoHostPIDNamespace) { // another reason explains more
			why = m.unreachable
		}
	}
	if errors.Is(why, ErrNoHostPIDNamespace) && procfs.HostProcesses(c.options.ProcRoot) {
		return nil
	}
	return why
}

// reportUnmatched logs once of each name asked for that no container has it.
func (c *Capture) reportUnmatched() {
	if c.tuning.Selection.Empty() {
		return
	}
	all := make([]*model.ContainerRef, 0, len(c.containers))
	for _, m := range c.containers {
		all = append(all, m.Ref())
	}
	for _, entry := range c.tuning.Selection.Unmatched(all) {
		switch {
		case !c.env.Notices.First("unmatched " + entry):
		case c.single:
			c.log.Warnf("No running container matches %q.", entry)
		default:
			c.log.Warnf("No running container matches %q yet; portwatcher waits for it.", entry)
		}
	}
}

// add takes in a container that runs.
func (c *Capture) add(o *source.ContainerChange) {
	container := o.Container
	log := c.log.WithField("container", container.Name)
	m := &member{Container: container}
	c.containers[container.ID] = m
	defer c.chooseAgain(container.Name)
	c.owners.forget()
	c.changed()
	if o.Err != nil {
		m.unreachable = o.Err
		switch {
		case o.Ended || errors.Is(o.Err, netns.ErrProcessGone):
			m.unreachable = ErrNoHostPIDNamespace
			log.Debug("The container's process cannot be seen; it has ended, or the pid namespace is another.")
		case !c.single: // else it is returned
			log.WithError(o.Err).Error("The container cannot be watched.")
		}
		c.publishDirectory()
		return
	}
	n := c.namespaces[o.Namespace]
	if n == nil {
		n = newNamespace(o.Namespace)
		c.namespaces[o.Namespace] = n
		c.tracker.OpenNamespace(n.id)
	}
	n.host = n.host || o.Host
	n.members[container.ID] = m
	m.namespace = n
	n.resumed = n.resumed || c.resumes()
	m.monitored = c.wanted(container)
	c.reconsider(n)
	c.restore(m)
	if m.monitored && !c.single {
		log.Info("Watching container.")
	}
	c.adjust(n)
	c.placePending(container.ID)
}

// choose starts or stops to monitor a container, as the settings say. Events have named
// it as in known so far.
func (c *Capture) choose(m *member, known *model.Container) {
	monitored := c.wanted(m.Container)
	if monitored == m.monitored || m.namespace == nil {
		return
	}
	c.reportDoubt(m.namespace)
	m.monitored = monitored
	c.changed()
	log := c.log.WithField("container", m.Name)
	if monitored {
		if !c.single {
			log.Info("Watching container.")
		}
		c.reconsider(m.namespace)
	} else {
		log.Info("Not watching container any more.")
		c.flushBurst(m.ID)
		if c.drop(func(e model.Endpoint) bool { return e.Container == m.ID }) {
			c.leave(known)
		}
		c.forget(m.ID)
		c.publishDirectory()
	}
	c.adjust(m.namespace)
}

// adjust gives a namespace a watcher while it has a monitored member.
func (c *Capture) adjust(n *namespace) {
	wanted := n.monitored()
	switch {
	case c.single:
	case wanted && n.watcher == nil:
		n.watcher = c.startWatcher(n)
	case !wanted && n.watcher != nil:
		n.watcher.Stop()
		n.watcher, n.source, n.destroy = nil, "", false
		delete(c.byCookie, n.netnsCookie)
	}
	c.shareBuffers()
}

func (c *Capture) startWatcher(n *namespace) *source.Watcher {
	c.watched = true
	w := c.begin(c.env, n.id)
	c.running[w] = struct{}{}
	return w
}

// finishContainer applies the end of a container.
func (c *Capture) finishContainer(o *source.ContainerChange) {
	at := min(c.wall.Instant(o.Time), c.now)
	if o.Late {
		c.gap(o.Container, "the container has ended, and portwatcher is behind: what the container did last may be missing", 0)
	}
	if o.Kind == engine.Passed {
		c.passed(o.Container, at)
	} else {
		c.remove(o.Container.ID, at)
	}
}

// remove takes out a container that has ended.
func (c *Capture) remove(id string, at clock.Instant) {
	m := c.containers[id]
	if m == nil {
		return
	}
	delete(c.containers, id)
	defer c.chooseAgain(m.Name)
	c.owners.forget()
	c.changed()
	if c.wanted(m.Container) {
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
	n := m.namespace
	if n == nil {
		c.publishDirectory()
		return
	}
	c.reportDoubt(n)
	if n.overrun.pending && len(n.members) == 1 {
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
	}
}

// passed applies a container that ended before it could be inspected: what eBPF
// reported of it becomes events.
func (c *Capture) passed(container *model.Container, at clock.Instant) {
	if c.containers[container.ID] == nil && c.wanted(container) {
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
	}
	known, monitored := m.Container, m.monitored
	m.Container = container
	c.owners.forget()
	c.changed()
	c.tracker.UpdateContainer(container)
	c.choose(m, known)
	c.publishDirectory()
	if m.namespace == nil {
		return
	}
	if m.monitored && !monitored { // its sockets are there, and no eBPF event will come
		m.namespace.watcher.Poke()
	}
	c.computeReach(m.namespace)
}

// reconsider has the owners of a namespace's sockets that belonged to nobody resolved
// again: its members have changed.
func (c *Capture) reconsider(n *namespace) {
	n.epoch++
	c.tracker.Reconsider(n.id)
	c.publishDirectory()
}

// publishDirectory makes the running containers known to the sources.
func (c *Capture) publishDirectory() {
	d := &source.Directory{
		Containers: make(map[string]*model.Container, len(c.containers)),
		Namespaces: make(map[model.Namespace]*source.Members, len(c.namespaces)),
		Forms:      c.forms,
	}
	for id, m := range c.containers {
		d.Containers[id] = m.Container
	}
	for id, n := range c.namespaces {
		n.listed = n.containers()
		d.Namespaces[id] = &source.Members{Containers: n.listed, Names: n.names(), Host: n.host, Epoch: n.epoch}
	}
	c.env.Directory.Store(d)
}

// find returns a running container by its id, nil if there is none.
func (c *Capture) find(id string) *model.Container {
	if m := c.containers[id]; m != nil {
		return m.Container
	}
	return nil
}

// computeReach computes anew who can reach what is open in a namespace: its containers'
// networks have changed.
func (c *Capture) computeReach(n *namespace) {
	members := n.containers()
	for _, open := range c.tracker.OpenIn(n.id) {
		c.reaches[open.Endpoint] = exposure.Of(listening(&open, n), members)
	}
	for _, m := range n.members {
		m.listed.made = false
	}
	c.changed()
}

func newNamespace(id model.Namespace) *namespace {
	return &namespace{id: id, members: map[string]*member{}, unbound: map[uint64]unbound{}, connecting: map[uint64]clock.Instant{}}
}

func (n *namespace) containers() []*model.Container {
	all := make([]*model.Container, 0, len(n.members))
	for _, id := range slices.Sorted(maps.Keys(n.members)) {
		all = append(all, n.members[id].Container)
	}
	return all
}

// monitored reports whether a member is monitored.
func (n *namespace) monitored() bool {
	for _, m := range n.members {
		if m.monitored {
			return true
		}
	}
	return false
}

// names lists the monitored members, for messages.
func (n *namespace) names() string {
	var names []string
	for _, m := range n.members {
		if m.monitored {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// onlyMember returns the container of a socket of which nothing but its namespace is
// known; nil if it is not monitored. certain is false where several containers share
// the namespace.
func (n *namespace) onlyMember() (_ *model.Container, certain bool) {
	if n.host || len(n.members) != 1 {
		return nil, n.host // of the host's own sockets nothing is expected
	}
	for _, m := range n.members {
		if m.monitored {
			return m.Container, true
		}
	}
	return nil, true
}

// takeEngineInfo applies what the engine reports about itself.
func (c *Capture) takeEngineInfo(o source.EngineInfo) {
	c.engineIs.name, c.engineIs.version = o.Name, o.Version
	if c.hostName == "" {
		c.hostName = o.Name
	}
	c.changed()
}

// startProbe opens the probe before anything is watched, so that what opens meanwhile is
// not missed. The error is that of a probe that was insisted on.
func (c *Capture) startProbe() (source.Probe, error) {
	mode := c.options.Mode
	if c.options.OpenProbe == nil || mode != source.Auto && mode != source.EBPF {
		c.log.WithField("source", mode).Info("eBPF is not used.")
		return nil, nil
	}
	p, err := c.options.OpenProbe()
	if err != nil && mode == source.EBPF {
		return nil, fmt.Errorf("--source ebpf: %w", err)
	}
	if err != nil {
		c.log.WithError(err).Info("eBPF is not used; sock_diag and its notifications take its place: the processes of short-lived ports stay unknown.")
		return nil, nil
	}
	c.log.Info("eBPF reports each opening and closing; a scan by sock_diag reconciles from time to time.")
	return p, nil
}
