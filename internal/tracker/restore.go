package tracker

import (
	"slices"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Restore adds an endpoint that was open since openedAt when portwatcher last stopped,
// without a change. The first snapshot of the namespace must follow: see
// [Snapshot.Resumed]. It returns false, and adds nothing, where the endpoint is known
// already, its sockets are not known, or its namespace is not open.
func (t *Tracker) Restore(container *model.Container, s *model.State, openedAt clock.Instant) bool {
	key := s.Endpoint()
	key.Container = container.ID
	if t.endpoints[key] != nil || s.Sockets == nil || len(s.Sockets.Cookies) == 0 {
		return false
	}
	ns := t.namespaces[s.Sockets.Namespace]
	if ns == nil {
		return false
	}
	e := &endpoint{
		key: key, container: container, processes: s.Processes, reportedProcesses: s.Processes, ipv6Only: s.Sockets.IPv6Only,
		source: s.Source, openedAt: openedAt, reported: true, restored: true, recalled: true,
	}
	for i, cookie := range s.Sockets.Cookies {
		if ns.sockets[cookie] != nil {
			continue
		}
		added := &socket{
			Socket: model.Socket{
				Cookie: cookie, Protocol: s.Protocol, Address: s.Address, Port: s.Port, IPv6Only: s.Sockets.IPv6Only,
			},
			namespace: ns, processes: s.Processes, endpoint: e, settled: true, restored: true, fresh: true,
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
	t.add(e)
	e.locate(ns)
	return true
}

// confirm records that a snapshot has a restored socket.
func (t *Tracker) confirm(s *socket) {
	s.restored = false
	if s.endpoint != nil {
		t.touch(s.endpoint)
	}
}

// unconfirmed reports whether a restored endpoint has had no snapshot yet.
func (e *endpoint) unconfirmed() bool {
	if !e.restored {
		return false
	}
	e.restored = slices.ContainsFunc(e.sockets, func(s *socket) bool { return s.restored })
	return e.restored
}

// Sockets returns the sockets of an open endpoint, for [Tracker.Restore] at the next
// start; nil if it is not open.
func (t *Tracker) Sockets(key model.Endpoint) *model.Sockets {
	e := t.endpoints[key]
	if e == nil || len(e.sockets) == 0 {
		return nil
	}
	s := &model.Sockets{
		Namespace: e.namespace, IPv6Only: e.ipv6Only,
		Cookies: make([]uint64, len(e.sockets)), Inodes: make([]uint32, len(e.sockets)),
	}
	for i, socket := range e.sockets {
		s.ByInode = s.ByInode || socket.HasMadeUpCookie()
		s.Cookies[i], s.Inodes[i] = socket.Cookie, socket.Inode
	}
	return s
}
