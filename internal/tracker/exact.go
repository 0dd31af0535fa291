package tracker

import (
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Opened applies an exact fact: a socket opened at this moment. If the socket is known,
// the fact only adds what was missing.
func (t *Tracker) Opened(dst []Change, id model.Namespace, s model.Socket, owner Owner, at clock.Instant, source model.Source) []Change {
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
			t.setProcesses(known, owner.Processes)
		}
		return t.settle(dst, at, source)
	}
	if known != nil {
		t.removeSocket(known)
	}
	t.addSocket(ns, s, owner, at).exact = true
	return t.settle(dst, at, source)
}

// Closed applies an exact fact: a socket closed at this moment. known is false where the
// socket was neither open nor closed just before; the fact is remembered in any case, so
// that no snapshot under way opens the socket.
func (t *Tracker) Closed(dst []Change, id model.Namespace, cookie uint64, at clock.Instant, source model.Source) (_ []Change, known bool) {
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
			return dst, true // it stands for others, too
		}
		n.at = max(n.at, at)
	}
	t.closeSocket(s, at)
	return t.settle(dst, at, source), true
}

// closeSocket removes a socket that closed at this moment. If all others of its endpoint
// opened after that, the endpoint was closed in between, and the facts of their openings
// came first.
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
	s.endpoint.setSettled(false)
}

// Transient applies the close of a socket whose opening was not observed, and makes an
// opened and a closed change of it. Where a snapshot has shown another socket at the
// endpoint just before, the opening that was reported then was this socket's: the
// endpoint closes and opens again. reported is false, and nothing changes, where the
// endpoint is open by others, and where the socket is of no interest.
func (t *Tracker) Transient(dst []Change, id model.Namespace, s model.Socket, owner Owner, at clock.Instant, source model.Source) (_ []Change, reported bool) {
	ns := t.namespaces[id]
	if owner.Container == nil || ns == nil {
		return dst, false
	}
	key := ns.endpointOf(&s, owner.Container)
	e := t.endpoints[key]
	switch {
	case e == nil:
	case e.isWaiting(): // it opened and closed within the close grace
		t.wait(e, max(at, e.closedAt), source)
		return dst, true
	case t.grace == 0 && e.succeeds(at):
		e.setSettled(false)
		t.touch(e)
		return t.settle(dst, at, source), true
	default:
		return dst, false
	}
	change := Change{
		Type: model.Opened, Time: at, Source: source, Endpoint: key, Namespace: id,
		Container: owner.Container, Processes: owner.Processes, IPv6Only: s.IPv6Only, Transient: true,
	}
	dst = append(dst, change)
	change.Type = model.Closed
	return append(dst, change), true
}

// succeeds reports whether the endpoint's socket came after one that closed at this
// moment and whose opening was not observed: a snapshot has shown it just before, alone.
// One of several sockets shares the endpoint (SO_REUSEPORT), as the other may have done.
func (e *endpoint) succeeds(at clock.Instant) bool {
	if len(e.sockets) != 1 || !e.reported {
		return false
	}
	s := e.sockets[0]
	return !s.exact && !s.restored && s.count == nil && at.Sub(s.opened) < successionTime
}

// successionTime is how long after a snapshot the notification of an earlier close may
// arrive, however busy the machine is.
const successionTime = 5 * time.Second
