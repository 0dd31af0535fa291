package capture

import (
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// maxConnect is how long a UDP connect may take, also one that waits for a route or a
// policy in the kernel.
const maxConnect = 2 * time.Second

// takeScan applies a snapshot, or returns the sockets whose owners it needs.
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
		q.Unknown = c.tracker.Unknown(q.Unknown, n.id, q.Snapshot.Sockets) // what it passed over
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
	if s.Resumed { // the holders of the ports are those of the earlier run
		n.watcher.Opened()
	}
	before := c.tracker.Vanished()
	c.publish(c.tracker.Snapshot(c.changes[:0], n.id, s))
	c.judgeScanned(n)
	n.overrun.scanned(c, n, s.Began, c.tracker.Vanished()-before)
	if s.Resumed {
		c.computeReach(n, s.Time, model.SourceRestart)
	}
	c.reportOwnerless(n)
}

// settleOwners updates the owners of a scan: the containers may have changed since the
// watcher resolved them. It removes owners that must be resolved again.
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

// unbound is a socket that listens on a port which eBPF did not report.
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

// settleConnects closes the UDP sockets that have connected, which no dump shows. eBPF
// reports the beginning of a connect, and that may fail or be undone: the sockets that are
// in this dump, which began later, are open.
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
		case at.After(began): // the next dump decides
		case !shown[cookie]:
			changes, _ := c.tracker.Closed(c.changes[:0], n.id, cookie, at, model.SourceEBPF)
			c.publish(changes)
			delete(n.connecting, cookie)
		case began.Sub(at) > maxConnect: // it has failed, or was undone
			delete(n.connecting, cookie)
		}
	}
	if len(n.connecting) > 0 {
		n.watcher.PokeSoon()
	}
}
