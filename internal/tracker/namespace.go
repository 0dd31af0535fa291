package tracker

import (
	"maps"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

type namespace struct {
	id        model.Namespace
	name      string // of id
	sockets   map[uint64]*socket
	endpoints map[*endpoint]struct{} // whose last socket is here
	counts    map[place]*count       // of counted sockets that are open
	// generation is the number of the last snapshot, began its start.
	generation uint64
	began      clock.Instant
	stale      bool
	ended      tombstones[uint64] // by cookie
	counted    tombstones[place]  // where closings were counted
}

// place is where a socket of a namespace can be spoken to.
type place struct {
	model.Endpoint // without container and namespace
}

func placeOf(s *model.Socket) place {
	return place{model.Endpoint{Protocol: s.Protocol, Address: s.Address, Port: s.Port}}
}

// endpointOf returns the endpoint of a container's socket.
func (ns *namespace) endpointOf(s *model.Socket, c *model.Container) model.Endpoint {
	e := placeOf(s).Endpoint
	e.Container = c.ID
	if c.Namespace != (model.Namespace{}) && c.Namespace != ns.id {
		e.Namespace = ns.name
	}
	return e
}

// OpenNamespace begins to track a namespace, if it is not tracked. Observations of a
// namespace that is not open change nothing.
func (t *Tracker) OpenNamespace(id model.Namespace) {
	if t.namespaces[id] == nil {
		t.namespaces[id] = &namespace{
			id: id, name: id.String(), sockets: map[uint64]*socket{}, endpoints: map[*endpoint]struct{}{}, counts: map[place]*count{},
		}
	}
}

// HasNamespace reports whether a namespace is open.
func (t *Tracker) HasNamespace(id model.Namespace) bool { return t.namespaces[id] != nil }

// CloseNamespace closes all that is left in a namespace and forgets it.
func (t *Tracker) CloseNamespace(dst []Change, id model.Namespace, at clock.Instant, source model.Source) []Change {
	ns := t.namespaces[id]
	if ns == nil {
		return dst
	}
	for _, s := range ns.sockets {
		t.removeSocket(s)
	}
	delete(t.namespaces, id)
	dst = t.settle(dst, at, source)
	for e := range ns.endpoints { // their close grace runs
		e.in = nil
	}
	return dst
}

// Failed marks a namespace's state as stale because a snapshot failed. It reports
// whether it was not stale before.
func (t *Tracker) Failed(id model.Namespace) bool {
	ns := t.namespaces[id]
	fresh := ns != nil && !ns.stale
	if fresh {
		ns.stale = true
	}
	return fresh
}

// Stale reports whether the last snapshot of a namespace failed.
func (t *Tracker) Stale(id model.Namespace) bool {
	ns := t.namespaces[id]
	return ns != nil && ns.stale
}

// Reconsider forgets the sockets of a namespace without an owner, so that their owners
// are asked for again: the set of containers has changed.
func (t *Tracker) Reconsider(id model.Namespace) {
	ns := t.namespaces[id]
	if ns == nil {
		return
	}
	for _, s := range ns.sockets {
		if s.endpoint == nil {
			t.removeSocket(s)
		}
	}
}

// OpenIn is Open for the endpoints of one namespace.
func (t *Tracker) OpenIn(id model.Namespace) []Change {
	if ns := t.namespaces[id]; ns != nil {
		return openOf(maps.Keys(ns.endpoints))
	}
	return nil
}
