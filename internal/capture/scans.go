package capture

import (
	"errors"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// maxConnect is how long a UDP connect may take; one that waits for a route or a policy
// in the kernel is done or given up by then.
const maxConnect = 2 * time.Second

// namespaceOf returns the namespace of a watcher; nil where that was stopped or replaced.
func (c *Capture) namespaceOf(w *source.Watcher) *namespace {
	if n := c.namespaces[w.Namespace()]; n != nil && n.watcher == w {
		return n
	}
	return nil
}

// takeScan applies a snapshot, or answers which owners it needs.
func (c *Capture) takeScan(q *source.Scan) {
	q.Unknown = q.Unknown[:0]
	n := c.namespaceOf(q.Watcher)
	if n == nil {
		return
	}
	c.version.Add(1)
	if q.Resolved {
		c.settleOwners(q, n)
		c.applySnapshot(n, q.Snapshot)
		n.watcher.Opened()
		return
	}
	c.nameUnbound(n, q.Snapshot.Sockets)
	c.settleConnects(n, q.Snapshot.Sockets, q.Snapshot.Began)
	q.Unknown = c.tracker.Unknown(q.Unknown, n.id, q.Snapshot.Sockets)
	if len(q.Unknown) == 0 {
		c.applySnapshot(n, q.Snapshot)
	}
}

func (c *Capture) applySnapshot(n *namespace, s tracker.Snapshot) {
	n.scanned = s.Began
	s.Resumed, n.resumed = n.resumed, false
	if s.Resumed { // who holds the ports is as an earlier run knew it
		n.watcher.Opened()
	}
	before := c.tracker.Vanished()
	c.publish(c.tracker.Snapshot(c.changes[:0], n.id, s))
	n.overrun.scanned(c, n, s.Began, c.tracker.Vanished()-before)
	c.reportOwnerless(n)
}

// settleOwners brings owners up to date: what the watcher resolved them by may have
// changed since. Owners that must be resolved again are removed.
func (c *Capture) settleOwners(q *source.Scan, n *namespace) {
	owners := q.Snapshot.New
	for i, owner := range owners {
		if owner.Container == nil {
			if n.epoch != q.Epoch {
				delete(owners, i)
			}
			continue
		}
		s := &q.Snapshot.Sockets[i]
		m := c.containers[owner.Container.ID]
		switch {
		case m == nil || m.PID != owner.Container.PID: // it has ended
			delete(owners, i)
		case !m.monitored || !c.reported(m.Container, s.Protocol, s.Port):
			owners[i] = tracker.Owner{}
		default:
			owners[i] = tracker.Owner{Container: m.Container, Processes: owner.Processes}
		}
	}
}

// unbound is a socket that listens on a port that eBPF did not report.
type unbound struct {
	owner tracker.Owner
	at    clock.Instant
}

// nameUnbound opens the sockets whose port a dump shows.
func (c *Capture) nameUnbound(n *namespace, sockets []model.Socket) {
	if len(n.unbound) == 0 {
		return
	}
	for i := range sockets {
		late, ok := n.unbound[sockets[i].Cookie]
		if !ok {
			continue
		}
		delete(n.unbound, sockets[i].Cookie)
		if !c.reported(late.owner.Container, sockets[i].Protocol, sockets[i].Port) {
			late.owner = tracker.Owner{}
		}
		c.publish(c.tracker.Opened(c.changes[:0], n.id, sockets[i], late.owner, late.at, model.SourceEBPF))
	}
}

// settleConnects closes the UDP sockets that have connected, as of that moment: those
// that are not in this dump, which began at a moment. One that has connected is no port
// any more; but eBPF reports it before, and a connect may fail, or be undone.
func (c *Capture) settleConnects(n *namespace, sockets []model.Socket, began clock.Instant) {
	if len(n.connecting) == 0 {
		return
	}
	shown := make(map[uint64]bool, len(sockets))
	for i := range sockets {
		shown[sockets[i].Cookie] = true
	}
	for cookie, at := range n.connecting {
		switch {
		case at.After(began): // the next dump shows it
		case !shown[cookie]:
			changes, _ := c.tracker.Closed(c.changes[:0], n.id, cookie, at, model.SourceEBPF)
			c.publish(changes)
			delete(n.connecting, cookie)
		case began.Sub(at) > maxConnect: // it has not connected, or not for long
			delete(n.connecting, cookie)
		}
	}
	if len(n.connecting) > 0 {
		n.watcher.PokeSoon()
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
	case errors.Is(o.Err, netns.ErrProcessGone): // its containers are about to be reported as stopped
		log.Debug("The namespace cannot be opened; portwatcher tries again.")
	case fresh:
		log.Warn("Ports cannot be read; portwatcher keeps what is known and tries again.")
	default:
		log.Debug("Ports still cannot be read.")
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

// scanAll has every namespace scanned now.
func (c *Capture) scanAll() {
	for _, n := range c.namespaces {
		if n.watcher != nil {
			n.watcher.Poke()
		}
	}
}

// takeHeld applies who holds sockets now.
func (c *Capture) takeHeld(o *source.Held) {
	changes := c.tracker.Held(c.changes[:0], o.Lookup)
	kept := changes[:0]
	for _, change := range changes {
		// That those processes of a container that end last hold a port for that moment is
		// no news.
		if change.Type != model.Changed || !o.Ending[change.Container.ID] {
			kept = append(kept, change)
		}
	}
	c.publish(kept)
	if o.Watcher == nil {
		return
	}
	if n := c.namespaceOf(o.Watcher); n != nil {
		c.reportLeadsNowhere(n)
		c.reportOwnerless(n)
	}
}

func (c *Capture) answerFresh(q *source.Fresh) {
	if n := c.namespaceOf(q.Watcher); n != nil {
		q.Holdings, q.More = c.tracker.Fresh(q.Holdings, n.id, q.Until)
	}
}
