package tracker

import (
	"slices"
	"time"

	"portwatcher/internal/port"
)

func (t *Tracker) namespace(id port.Namespace) *namespace {
	ns := t.namespaces[id]
	if ns == nil {
		ns = &namespace{id: id, sockets: map[uint64]*socket{}}
		t.namespaces[id] = ns
	}
	return ns
}

func (t *Tracker) addSocket(ns *namespace, observed port.Socket, owner Owner, at time.Time) *socket {
	s := &socket{Socket: observed, opened: at, processes: owner.Processes, fresh: true}
	ns.sockets[s.Cookie] = s
	if owner.Container == nil {
		return s
	}
	key := port.Endpoint{
		Container: owner.Container.ID, Protocol: s.Protocol, Address: s.Address, Port: s.Port,
	}
	e := t.endpoints[key]
	if e == nil {
		e = &endpoint{key: key}
		t.endpoints[key] = e
	}
	e.namespace, e.container = ns.id, owner.Container
	e.sockets = append(e.sockets, s)
	s.endpoint = e
	t.touch(e)
	return s
}

func (t *Tracker) removeSocket(ns *namespace, s *socket) {
	delete(ns.sockets, s.Cookie)
	e := s.endpoint
	if e == nil {
		return
	}
	i := slices.Index(e.sockets, s)
	e.sockets = slices.Delete(e.sockets, i, i+1)
	t.touch(e)
}

func (t *Tracker) touch(e *endpoint) {
	t.revision++
	if !e.dirty {
		e.dirty = true
		t.dirty = append(t.dirty, e)
	}
}

// settle compares each endpoint that was touched with what was last reported
// of it, and appends the changes in the order of endpoints.
func (t *Tracker) settle(dst []Change, at time.Time, source port.Source) []Change {
	slices.SortFunc(t.dirty, func(a, b *endpoint) int { return a.key.Compare(b.key) })
	for _, e := range t.dirty {
		e.dirty = false
		dst = t.settleEndpoint(dst, e, at, source)
	}
	clear(t.dirty)
	t.dirty = t.dirty[:0]
	return dst
}

func (t *Tracker) settleEndpoint(dst []Change, e *endpoint, at time.Time, source port.Source) []Change {
	if e.unconfirmed() {
		return dst // the first snapshot tells whether it has been open all the time
	}
	if len(e.sockets) == 0 {
		return t.close(dst, e, at, source)
	}
	replaced := e.reported && e.closedAt.IsZero() && e.replaced()
	if replaced && t.grace == 0 {
		dst = append(dst, e.change(port.Closed, at, source))
		e.reported = false
	}
	e.closedAt = time.Time{}
	before := e.processes
	e.refresh()
	switch {
	case !e.reported:
		e.reported, e.openedAt, e.source = true, at, source
		return append(dst, e.change(port.Opened, at, source))
	case disjoint(before, e.processes):
		e.source = source
		return append(dst, e.change(port.Changed, at, source))
	case len(e.processes) == 0:
		e.processes = before // the last known
	}
	return dst
}

func (t *Tracker) close(dst []Change, e *endpoint, at time.Time, source port.Source) []Change {
	switch {
	case !e.reported: // opened and gone within one observation
		delete(t.endpoints, e.key)
	case !e.closedAt.IsZero():
	case t.grace > 0:
		e.closedAt, e.closedBy = at, source
	default:
		dst = append(dst, e.change(port.Closed, at, source))
		delete(t.endpoints, e.key)
	}
	return dst
}

func (e *endpoint) change(kind port.Type, at time.Time, source port.Source) Change {
	return Change{
		Type: kind, Time: at, Source: source, Endpoint: e.key, Namespace: e.namespace,
		Container: e.container, Processes: e.processes, IPv6Only: e.ipv6Only, OpenedAt: e.openedAt,
	}
}

// replaced says that no socket of the last report is left: the endpoint was
// closed for a moment, and opened anew.
func (e *endpoint) replaced() bool {
	return !slices.ContainsFunc(e.sockets, func(s *socket) bool { return s.settled })
}

// refresh takes over what the sockets say.
func (e *endpoint) refresh() {
	e.processes = e.holders()
	e.ipv6Only = true
	for _, s := range e.sockets {
		s.settled = true
		e.ipv6Only = e.ipv6Only && s.IPv6Only
	}
}

// holders is the union of the sockets' processes, ordered by pid.
func (e *endpoint) holders() []port.Process {
	first := e.sockets[0].processes
	same := func(s *socket) bool {
		return len(s.processes) == len(first) && (len(first) == 0 || &s.processes[0] == &first[0])
	}
	if !slices.ContainsFunc(e.sockets, func(s *socket) bool { return !same(s) }) {
		return first
	}
	var all []port.Process
	for _, s := range e.sockets {
		all = append(all, s.processes...)
	}
	slices.SortStableFunc(all, func(a, b port.Process) int { return a.PID - b.PID })
	return slices.CompactFunc(all, func(a, b port.Process) bool { return a.PID == b.PID })
}

// disjoint says that the endpoint certainly has another owner now: both are
// known, and no process is the same.
func disjoint(before, after []port.Process) bool {
	for _, p := range after {
		if slices.ContainsFunc(before, func(q port.Process) bool { return p.PID == q.PID }) {
			return false
		}
	}
	return len(before) > 0 && len(after) > 0
}
