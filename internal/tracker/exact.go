package tracker

import (
	"portwatcher/internal/clock"
	"portwatcher/internal/port"
)

// Opened takes an exact fact: a socket opened at this moment. If the socket is
// known it fills in what was missing and changes nothing else.
func (t *Tracker) Opened(dst []Change, id port.Namespace, s port.Socket, owner Owner, at clock.Instant, source port.Source) []Change {
	ns := t.namespaces[id]
	if ns == nil || ns.ended.late(s.Cookie, at) {
		return dst
	}
	ns.rename(&s)
	known := ns.sockets[s.Cookie]
	if known != nil && known.samePlace(&s) {
		if !known.exact {
			known.opened, known.exact = at, true
		}
		if len(known.processes) == 0 {
			t.learn(known, owner.Processes)
		}
		return t.settle(dst, at, source)
	}
	if known != nil {
		t.removeSocket(known)
	}
	t.addSocket(ns, s, owner, at).exact = true
	return t.settle(dst, at, source)
}

// Closed takes an exact fact: a socket closed at this moment. known is false
// where the tracker had not seen the socket, nor closed it just before; the fact
// is remembered all the same, so that no snapshot under way opens it.
func (t *Tracker) Closed(dst []Change, id port.Namespace, cookie uint64, at clock.Instant, source port.Source) (_ []Change, known bool) {
	ns := t.namespaces[id]
	if ns == nil {
		return dst, false
	}
	_, known = ns.ended.get(cookie)
	ns.ended.add(cookie, ending{at, true})
	s := ns.sockets[cookie]
	if s == nil {
		return dst, known
	}
	if n := s.count; n != nil {
		if n.open > 1 {
			return dst, true // it stands for the others, too
		}
		n.at = max(n.at, at)
	}
	t.closeSocket(s, at)
	return t.settle(dst, at, source), true
}

// closeSocket removes a socket that closed at this moment. If all others of its
// endpoint opened after that, then the endpoint was closed in between: the facts
// of their openings came first.
func (t *Tracker) closeSocket(s *socket, at clock.Instant) {
	t.removeSocket(s)
	if s.endpoint == nil || !s.settled {
		return
	}
	others := s.endpoint.sockets
	for _, other := range others {
		if !other.exact || other.opened.Before(at) || other.count != nil {
			return
		}
	}
	for _, other := range others {
		other.settled = false
	}
}

// Transient takes the close of a socket that no source had seen: it makes an
// opened and a closed change, unless its endpoint is open anyway: reported is
// false then, and where the socket is of no interest.
func (t *Tracker) Transient(dst []Change, id port.Namespace, s port.Socket, owner Owner, at clock.Instant, source port.Source) (_ []Change, reported bool) {
	if owner.Container == nil || t.namespaces[id] == nil {
		return dst, false
	}
	key := placeOf(&s).in(owner.Container.ID)
	if e := t.endpoints[key]; e != nil {
		if e.isWaiting() { // it came back within the close grace, and went
			t.wait(e, max(at, e.closedAt), source)
		}
		return dst, e.isWaiting()
	}
	change := Change{
		Type: port.Opened, Time: at, Source: source, Endpoint: key, Namespace: id,
		Container: owner.Container, Processes: owner.Processes, IPv6Only: s.IPv6Only, Transient: true,
	}
	dst = append(dst, change)
	change.Type = port.Closed
	return append(dst, change), true
}
