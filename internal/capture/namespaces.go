package capture

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/source"
)

type namespace struct {
	id      model.Namespace
	host    bool
	members map[string]*member
	listed  []*model.Container // the members, as the directory has them
	epoch   uint64             // rises whenever the members change
	// interfaces are those of the namespace, as they were last read.
	interfaces source.Interfaces
	unbound    map[uint64]unbound
	// connecting are UDP sockets that began to connect; see settleConnects.
	connecting map[uint64]clock.Instant
	// netnsCookie is the namespace's in eBPF's events, 0 until it is known.
	netnsCookie uint64
	watcher     *source.Watcher // nil while no member is monitored
	source      model.Source    // of the watcher's snapshots; empty before its session is open
	destroy     bool            // destroy notifications are received
	// withoutDestroy is why they are not although they could be; else empty.
	withoutDestroy string
	// scanned is when the last snapshot began.
	scanned clock.Instant
	// resumed means that the first scan shows what happened while portwatcher did not run.
	resumed bool
	// abandoned are watchers that were stuck and have not ended.
	abandoned int
	// ownerless are ports whose container is not known.
	ownerless doubt
	overrun   overrun
	// inner is nil for the own namespace of a container.
	inner *inner
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

// onlyMember returns the container of a socket of which only the namespace is known; nil
// if it is not monitored. certain is false where several containers share the namespace.
func (n *namespace) onlyMember() (_ *model.Container, certain bool) {
	if n.host && attribute.HostOwner(n.listed) == nil {
		return nil, true // the host's own sockets are not reported
	}
	if len(n.members) != 1 {
		return nil, false
	}
	for _, m := range n.members {
		if m.monitored {
			return m.Container, true
		}
	}
	return nil, true
}

// adjust gives a namespace a watcher while it has a monitored member.
func (c *Capture) adjust(n *namespace) {
	monitored := n.monitored()
	switch {
	case c.single, n.inner != nil && n.inner.unseen:
	case monitored && n.watcher == nil:
		n.watcher = c.startWatcher(n)
	case !monitored && n.watcher != nil:
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

// reconsider makes the next scan of a namespace resolve the owners of its sockets without
// an owner again: its members have changed.
func (c *Capture) reconsider(n *namespace) {
	n.epoch++
	c.tracker.Reconsider(n.id)
	c.publishDirectory()
}

// publishDirectory replaces the list of the running containers that the sources use.
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
		members := &source.Members{Containers: n.listed, Names: n.names(), Host: n.host, Epoch: n.epoch}
		if n.inner != nil {
			members.Inner = n.inner.pids
		}
		d.Namespaces[id] = members
	}
	c.env.Directory.Store(d)
}

// namespaceOf returns the namespace of a watcher; nil where that was stopped or replaced.
func (c *Capture) namespaceOf(w *source.Watcher) *namespace {
	if n := c.namespaces[w.Namespace()]; n != nil && n.watcher == w {
		return n
	}
	return nil
}

func (c *Capture) watchedNamespaces() iter.Seq[*namespace] {
	return func(yield func(*namespace) bool) {
		for _, n := range c.namespaces {
			if n.watcher != nil && !yield(n) {
				return
			}
		}
	}
}

func (c *Capture) scanAll() {
	for n := range c.watchedNamespaces() {
		n.watcher.Poke()
	}
}

func (c *Capture) sessionOpened(o source.SessionOpened) {
	n := c.namespaceOf(o.Watcher)
	if n == nil {
		return
	}
	n.source, n.destroy = o.Source, o.Destroy
	if o.WithoutDestroy != "" && n.withoutDestroy == "" {
		container, _ := n.onlyMember()
		c.gap(container, o.WithoutDestroy, 0)
	}
	n.withoutDestroy = o.WithoutDestroy
	c.changed()
	if o.NetnsCookie == 0 {
		return
	}
	if before := c.byCookie[o.NetnsCookie]; before != nil && before.inner != nil && before.inner.unseen {
		c.dropInner(before) // only eBPF had reported it
	}
	c.byCookie[o.NetnsCookie] = n
	n.netnsCookie = o.NetnsCookie
	for id := range n.members {
		c.placePending(id)
	}
}

func (c *Capture) sessionClosed(o source.SessionClosed) {
	if n := c.namespaceOf(o.Watcher); n != nil {
		n.source, n.destroy = "", false
		c.changed()
	}
}

func (c *Capture) watcherFailed(o source.Failed) {
	n := c.namespaceOf(o.Watcher)
	if n == nil {
		return
	}
	fresh := c.tracker.Failed(n.id)
	c.changed()
	log := c.log.WithError(o.Err).WithField("containers", n.names())
	switch {
	case errors.Is(o.Err, netns.ErrProcessGone): // the engine will report that its containers have ended
		log.Debug("The namespace cannot be opened; portwatcher tries again.")
	case fresh:
		log.Warn("Ports cannot be read; portwatcher keeps the last state and tries again.")
	default:
		log.Debug("Another attempt to read ports has failed.")
	}
}

func (c *Capture) watcherEnded(o source.WatcherEnded) {
	if _, known := c.running[o.Watcher]; !known {
		return
	}
	delete(c.running, o.Watcher)
	if n := c.namespaces[o.Watcher.Namespace()]; n != nil && n.watcher != o.Watcher && n.abandoned > 0 {
		n.abandoned--
	}
}
