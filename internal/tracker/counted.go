package tracker

import (
	"cmp"
	"slices"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Counted are the sockets of one endpoint that a source has counted since its last count,
// instead of reporting them one by one.
type Counted struct {
	// Socket has protocol, address and port; cookie and inode are of the last one that
	// opened.
	Socket model.Socket
	Owner  Owner
	// Opened and Closed are of sockets whose opening was counted, in this or an earlier
	// count. Missed are the closings of sockets whose opening was a fact.
	Opened, Closed, Missed uint64
	// LastOpened and LastClosed are the times of the last ones; zero where there was none.
	LastOpened, LastClosed clock.Instant
	// ClosedCookie is of the last one that closed, Missed ones included; 0 where there was
	// none.
	ClosedCookie uint64
	// NotBefore is the time of the last change of the container. The changes of the count
	// get no earlier time: counts arrive later than facts.
	NotBefore clock.Instant
	Source    model.Source
}

// count is the state of the counted sockets at one place.
type count struct {
	open uint64 // opened less closed
	// lost are those that a snapshot or a fact has shown to be closed: a later count has
	// their closings.
	lost uint64
	// standIn is the socket that stands for all that are open.
	standIn *socket
	// at is when the last one opened, or when the stand-in was dropped.
	at         clock.Instant
	generation uint64 // of the last snapshot that had an unknown socket here
}

// Counted applies a count. The tracker keeps one socket, the last one opened, as a
// stand-in for all counted sockets of an endpoint that are open. The changes that it
// appends are openings and closings that are in the count, too: at most one opened or one
// closed of the count's endpoint.
//
// A count must come before the facts of the same endpoint that happened after it was
// taken: a fact that opens beside a counted socket is no change.
func (t *Tracker) Counted(dst []Change, id model.Namespace, c Counted) []Change {
	ns := t.namespaces[id]
	if ns == nil {
		return dst
	}
	key := placeOf(&c.Socket)
	n := ns.counts[key]
	if n == nil {
		n = &count{}
	}
	n.take(&c)
	t.closeCounted(ns, key, &c)
	at := c.LastClosed
	switch {
	case n.open == 0 && n.standIn != nil:
		t.removeSocket(n.standIn)
	case n.open > 0 && c.Opened > 0:
		at = c.LastOpened
		if c.Owner.Container != nil || n.standIn == nil {
			t.standIn(ns, n, &c)
		}
	}
	if n.open+n.lost > 0 {
		ns.counts[key] = n
	} else {
		delete(ns.counts, key)
		t.prolong(ns, &c)
	}
	for _, e := range t.dirty {
		if e.reported && !e.isWaiting() {
			e.setSettled(true)
		}
	}
	return t.settle(dst, max(at, c.NotBefore), c.Source)
}

// take adds a count. The closings of lost sockets come first: the others closed later.
func (n *count) take(c *Counted) {
	lost := min(n.lost, c.Closed)
	n.lost -= lost
	n.open += c.Opened
	n.open -= min(n.open, c.Closed-lost)
	if c.Opened > 0 {
		n.at = max(n.at, c.LastOpened)
	}
}

// standIn makes the last socket that opened stand for all that are open.
func (t *Tracker) standIn(ns *namespace, n *count, c *Counted) {
	ns.rename(&c.Socket)
	s := ns.sockets[c.Socket.Cookie]
	if s != nil && !s.samePlace(&c.Socket) {
		t.removeSocket(s)
		s = nil
	}
	if before := n.standIn; before != nil && before != s {
		before.count, n.standIn = nil, nil
		t.removeSocket(before)
	}
	if s == nil {
		s = t.addSocket(ns, c.Socket, c.Owner, c.LastOpened)
	} else {
		s.opened = max(s.opened, c.LastOpened)
		t.setProcesses(s, c.Owner.Processes)
	}
	s.count, n.standIn = n, s
}

// dropStandIn records that the stand-in is removed before its closing was counted.
func (n *count) dropStandIn() {
	n.standIn.count, n.standIn = nil, nil
	n.lost += n.open
	n.open = 0
}

// closeCounted removes the closed sockets that are known one by one: the last one by its
// cookie, and as many of the oldest as were missed.
func (t *Tracker) closeCounted(ns *namespace, key place, c *Counted) {
	if c.Closed+c.Missed == 0 {
		return
	}
	missed := c.Missed
	s := ns.sockets[c.ClosedCookie]
	_, gone := ns.ended.get(c.ClosedCookie)
	switch {
	case s != nil && s.count == nil && s.samePlace(&c.Socket) && !(s.exact && s.opened.After(c.LastClosed)):
		t.removeSocket(s)
		missed -= min(missed, 1)
	case gone, c.Closed == 0 && c.ClosedCookie != 0:
		missed -= min(missed, 1) // removed before, or not known
	}
	if c.ClosedCookie != 0 {
		ns.ended.add(c.ClosedCookie, ending{c.LastClosed, true})
	}
	ns.counted.add(key, ending{c.LastClosed, true})
	if missed > 0 && c.Owner.Container != nil {
		t.closeOldest(ns, t.endpoints[ns.endpointOf(&c.Socket, c.Owner.Container)], missed, c.LastClosed)
	}
}

// closeOldest removes a number of sockets of an endpoint: those that opened first, and
// before a moment. It keeps those that a snapshot has shown since.
func (t *Tracker) closeOldest(ns *namespace, e *endpoint, number uint64, before clock.Instant) {
	if e == nil {
		return
	}
	reconciled := ns.began.Sub(before) >= settleTime
	var old []*socket
	for _, s := range e.sockets {
		seen := reconciled && s.generation == ns.generation
		if s.namespace == ns && s.count == nil && s.opened.Before(before) && !seen {
			old = append(old, s)
		}
	}
	slices.SortFunc(old, func(a, b *socket) int { return cmp.Compare(a.opened, b.opened) })
	for _, s := range old[:min(number, uint64(len(old)))] {
		ns.ended.add(s.Cookie, ending{at: before})
		t.removeSocket(s)
	}
}

// prolong starts the close grace again of an endpoint that was open while it ran.
func (t *Tracker) prolong(ns *namespace, c *Counted) {
	if c.Opened == 0 || c.Owner.Container == nil {
		return
	}
	if e := t.endpoints[ns.endpointOf(&c.Socket, c.Owner.Container)]; e != nil && e.isWaiting() {
		t.wait(e, max(e.closedAt, c.LastClosed), c.Source)
	}
}

// passOver records that a snapshot has a socket that it does not add.
func (ns *namespace) passOver(s *model.Socket) {
	if n := ns.counts[placeOf(s)]; n != nil {
		n.generation = ns.generation
	}
}

// reviewCounts drops the stand-ins that a snapshot lacks. Another socket that it shows at
// the same place keeps the endpoint open.
func (t *Tracker) reviewCounts(ns *namespace, s *Snapshot) {
	for key, n := range ns.counts {
		seen := n.generation == ns.generation || n.standIn != nil && n.standIn.generation == ns.generation
		switch {
		case n.at.After(s.Began.Add(-settleTime)):
		case seen:
			n.lost = 0
		case n.standIn == nil:
			delete(ns.counts, key)
		default:
			n.at = s.Time
			before := n.standIn
			ns.ended.add(before.Cookie, ending{at: s.Time})
			t.removeSocket(before)
			if before.endpoint != nil && before.settled {
				before.endpoint.setSettled(true)
			}
		}
	}
}

// Beside reports whether a counted socket stands for the endpoint of another socket, and
// whether that other one is known. A fact of a socket beside a stand-in is neither a
// change nor in the count: the caller counts it.
func (t *Tracker) Beside(id model.Namespace, s *model.Socket) (counted, known bool) {
	ns := t.namespaces[id]
	if ns == nil {
		return false, false
	}
	n := ns.counts[placeOf(s)]
	if n == nil || n.standIn == nil || n.standIn.Cookie == s.Cookie {
		return false, false
	}
	_, known = ns.sockets[s.Cookie]
	return true, known
}

// ContainerOf returns the container of a socket; nil where the socket is not known, or is
// of no interest.
func (t *Tracker) ContainerOf(id model.Namespace, cookie uint64) *model.Container {
	ns := t.namespaces[id]
	if ns == nil {
		return nil
	}
	if s := ns.sockets[cookie]; s != nil && s.endpoint != nil {
		return s.endpoint.container
	}
	return nil
}
