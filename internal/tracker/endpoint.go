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
	e.left = true
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
	left := e.left && !e.replaced()
	e.left = false
	if len(e.sockets) == 0 {
		return t.close(dst, e, at, source)
	}
	replaced := e.reported && e.closedAt.IsZero() && e.replaced()
	if replaced && t.grace == 0 {
		dst = append(dst, e.change(port.Closed, at, source))
		e.reported = false
	}
	e.closedAt = time.Time{}
	e.refresh()
	switch {
	case !e.reported:
		e.reported, e.openedAt, e.source, e.told = true, at, source, e.processes
		return append(dst, e.change(port.Opened, at, source))
	case len(e.told) == 0, left:
		e.told = e.processes
	case e.takenOver():
		e.source, e.told = source, e.processes
		return append(dst, e.change(port.Changed, at, source))
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

// refresh takes over what the sockets say. Where no process is known any more,
// the last known stay.
func (e *endpoint) refresh() {
	if now := e.holders(); len(now) > 0 || !e.reported {
		e.processes = now
	}
	e.ipv6Only = true
	for _, s := range e.sockets {
		s.settled = true
		e.ipv6Only = e.ipv6Only && s.IPv6Only
	}
}
