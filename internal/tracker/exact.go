package tracker

import (
	"time"

	"portwatcher/internal/port"
)

// Opened takes an exact fact: a socket opened at this moment. If the socket is
// known it fills in what was missing and changes nothing else. While the
// namespace's snapshots have no cookies it does nothing: take a snapshot.
func (t *Tracker) Opened(dst []Change, id port.Namespace, s port.Socket, owner Owner, at time.Time, source port.Source) []Change {
	ns := t.namespace(id)
	if ns.byInode {
		return dst
	}
	if ns.ended.late(s.Cookie, at) {
		return dst
	}
	known := ns.sockets[s.Cookie]
	if known != nil && known.samePlace(&s) {
		if len(known.processes) == 0 {
			t.learn(known, owner.Processes)
		}
		return t.settle(dst, at, source)
	}
	if known != nil {
		t.removeSocket(ns, known)
	}
	added := t.addSocket(ns, s, owner, at)
	added.exact = true
	return t.settle(dst, at, source)
}

// Closed takes an exact fact: a socket closed at this moment. known is false
// where the tracker had not seen the socket, nor closed it just before; the fact
// is remembered all the same, so that no snapshot under way opens it.
func (t *Tracker) Closed(dst []Change, id port.Namespace, cookie uint64, at time.Time, source port.Source) (_ []Change, known bool) {
	ns := t.namespace(id)
	_, known = ns.ended.get(cookie)
	ns.ended.add(cookie, ending{at, true})
	s := ns.sockets[cookie]
	if s == nil {
		return dst, known
	}
	if at.Before(s.opened) { // seen by a snapshot that was taken just before
		at = s.opened
	}
	t.removeSocket(ns, s)
	return t.settle(dst, at, source), true
}

// Transient takes the close of a socket that nobody had seen: it makes an
// opened and a closed change, unless its endpoint is open anyway: told is false
// then.
func (t *Tracker) Transient(dst []Change, id port.Namespace, s port.Socket, owner Owner, at time.Time, source port.Source) (_ []Change, told bool) {
	if owner.Container == nil {
		return dst, false
	}
	key := port.Endpoint{Container: owner.Container.ID, Protocol: s.Protocol, Address: s.Address, Port: s.Port}
	if e := t.endpoints[key]; e != nil {
		pending := !e.closedAt.IsZero()
		if pending { // it came back within the close grace, and went
			e.closedAt, e.closedBy = at, source
		}
		return dst, pending
	}
	change := Change{
		Type: port.Opened, Time: at, Source: source, Endpoint: key, Namespace: id,
		Container: owner.Container, Processes: owner.Processes, IPv6Only: s.IPv6Only, Transient: true,
	}
	dst = append(dst, change)
	change.Type = port.Closed
	return append(dst, change), true
}

// Prune gives back the memory of exact facts of a while ago.
func (t *Tracker) Prune(now time.Time) {
	for _, ns := range t.namespaces {
		ns.ended.prune(now)
	}
}

// settledBefore says whether a snapshot that began at this moment must have the
// socket if it is open.
func (s *socket) settledBefore(began time.Time) bool {
	if s.exact {
		began = began.Add(-settleTime)
	}
	return !s.opened.After(began)
}

// ending is how a socket closed.
type ending struct {
	at    time.Time
	exact bool // otherwise a snapshot found it gone
}

// tombstones remember closes for settleTime at least, and twice that at most.
// The zero value is ready.
type tombstones struct {
	recent, older map[uint64]ending
	since         time.Time // of recent
}

func (t *tombstones) add(cookie uint64, e ending) {
	if t.recent == nil || e.at.Sub(t.since) > settleTime {
		t.older, t.recent, t.since = t.recent, map[uint64]ending{}, e.at
	}
	t.recent[cookie] = e
}

func (t *tombstones) get(cookie uint64) (ending, bool) {
	e, ok := t.recent[cookie]
	if !ok {
		e, ok = t.older[cookie]
	}
	return e, ok
}

// prune forgets what is of no use any more.
func (t *tombstones) prune(now time.Time) {
	if now.Sub(t.since) > 2*settleTime {
		*t = tombstones{}
	}
}

// outdates says whether a snapshot that began at this moment may show a socket
// that has closed since.
func (t *tombstones) outdates(cookie uint64, began time.Time) bool {
	e, ok := t.get(cookie)
	return ok && e.exact && e.at.After(began.Add(-settleTime))
}

// late says whether the socket is known to have closed after it opened at this
// moment. A socket that listens again opens after its close.
func (t *tombstones) late(cookie uint64, opened time.Time) bool {
	e, ok := t.get(cookie)
	return ok && !e.at.Before(opened)
}

// identify brings the cookies of the state and of a snapshot together where one
// has the kernel's and the other has made them up from inodes.
func (ns *namespace) identify(s *Snapshot) {
	if byInode := s.Source == port.SourceProc; byInode == ns.byInode {
		return
	}
	ns.byInode = !ns.byInode
	cookies := make(map[uint32]uint64, len(s.Sockets))
	for i := range s.Sockets {
		cookies[s.Sockets[i].Inode] = s.Sockets[i].Cookie
	}
	sockets := make(map[uint64]*socket, len(ns.sockets))
	for _, known := range ns.sockets {
		if cookie, ok := cookies[known.Inode]; ok && known.Inode != 0 {
			known.Cookie = cookie
		}
		sockets[known.Cookie] = known
	}
	ns.sockets = sockets
}
