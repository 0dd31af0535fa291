package tracker

import (
	"slices"

	"portwatcher/internal/port"
)

// Restore takes over an endpoint that was open when portwatcher last stopped,
// without a change. It goes before the first snapshot of the namespace, which
// tells what became of it: see [Snapshot.Resumed]. An endpoint that is known
// already, or whose sockets are not known, is left as it is; false says so.
func (t *Tracker) Restore(container *port.Container, s *port.State) bool {
	key := port.Endpoint{Container: container.ID, Protocol: s.Protocol, Address: s.Address, Port: s.Port}
	if t.endpoints[key] != nil || s.Sockets == nil || len(s.Sockets.Cookies) == 0 {
		return false
	}
	ns := t.namespace(s.Sockets.Namespace)
	if len(ns.sockets) == 0 {
		ns.byInode = s.Sockets.ByInode
	}
	e := &endpoint{
		key: key, namespace: ns.id, container: container, processes: s.Processes, told: s.Processes, ipv6Only: s.Sockets.IPv6Only,
		source: s.Source, openedAt: s.OpenedAt, reported: true, restored: true, recalled: true,
	}
	for i, cookie := range s.Sockets.Cookies {
		if ns.sockets[cookie] != nil {
			continue
		}
		added := &socket{
			Socket: port.Socket{
				Cookie: cookie, Protocol: s.Protocol, Address: s.Address, Port: s.Port, IPv6Only: s.Sockets.IPv6Only,
			},
			processes: s.Processes, endpoint: e, settled: true, restored: true, fresh: true,
		}
		if i < len(s.Sockets.Inodes) {
			added.Inode = s.Sockets.Inodes[i]
		}
		ns.sockets[cookie] = added
		e.sockets = append(e.sockets, added)
	}
	if len(e.sockets) == 0 {
		return false
	}
	t.endpoints[key] = e
	return true
}

// confirm takes over that a socket of before is still there.
func (t *Tracker) confirm(s *socket) {
	s.restored = false
	if s.endpoint != nil {
		t.touch(s.endpoint)
	}
}

// unconfirmed says whether a restored endpoint still waits for the first
// snapshot.
func (e *endpoint) unconfirmed() bool {
	if !e.restored {
		return false
	}
	e.restored = slices.ContainsFunc(e.sockets, func(s *socket) bool { return s.restored })
	return e.restored
}

// Sockets returns the sockets of an open endpoint, to be given to
// [Tracker.Restore] at the next start; nil if it is not open.
func (t *Tracker) Sockets(key port.Endpoint) *port.Sockets {
	e := t.endpoints[key]
	if e == nil || len(e.sockets) == 0 {
		return nil
	}
	s := &port.Sockets{
		Namespace: e.namespace, IPv6Only: e.ipv6Only,
		Cookies: make([]uint64, len(e.sockets)), Inodes: make([]uint32, len(e.sockets)),
	}
	if ns := t.namespaces[e.namespace]; ns != nil {
		s.ByInode = ns.byInode
	}
	for i, socket := range e.sockets {
		s.Cookies[i], s.Inodes[i] = socket.Cookie, socket.Inode
	}
	return s
}

// Revision rises whenever the sockets or processes of an endpoint have changed,
// also where that is no change to report.
func (t *Tracker) Revision() uint64 { return t.revision }
