package tracker

import (
	"iter"
	"maps"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// container is the index of one container's endpoints.
type container struct {
	endpoints map[*endpoint]struct{} // never empty
	revision  uint64                 // of the tracker when one was last touched
}

// OpenOf is Open for the endpoints of one container.
func (t *Tracker) OpenOf(containerID string) []Change {
	if c := t.containers[containerID]; c != nil {
		return openOf(maps.Keys(c.endpoints))
	}
	return nil
}

// RevisionOf rises whenever the result of OpenOf for the container has changed. It
// never falls, and for a container without endpoints it may rise without a reason.
func (t *Tracker) RevisionOf(containerID string) uint64 {
	if c := t.containers[containerID]; c != nil {
		return c.revision
	}
	return t.emptied
}

// UpdateContainer replaces the description of a container (renamed, other networks)
// in the changes to come.
func (t *Tracker) UpdateContainer(c *model.Container) {
	known := t.containers[c.ID]
	if known == nil {
		return
	}
	for e := range known.endpoints {
		e.container = c
	}
	t.revise(known)
}

// CloseContainer closes the endpoints of a container that has ended.
func (t *Tracker) CloseContainer(dst []Change, id string, at clock.Instant, source model.Source) []Change {
	if c := t.containers[id]; c != nil {
		for e := range c.endpoints {
			for len(e.sockets) > 0 {
				t.removeSocket(e.sockets[len(e.sockets)-1])
			}
		}
	}
	return t.settle(dst, at, source)
}

// Drop forgets endpoints without a change: those for which the function returns true.
// Their sockets are of no interest until [Tracker.Reconsider].
func (t *Tracker) Drop(which func(model.Endpoint) bool) { t.drop(maps.Values(t.endpoints), which) }

// DropOf is Drop for the endpoints of one container.
func (t *Tracker) DropOf(containerID string, which func(model.Endpoint) bool) {
	if c := t.containers[containerID]; c != nil {
		t.drop(maps.Keys(c.endpoints), which)
	}
}

func (t *Tracker) drop(endpoints iter.Seq[*endpoint], which func(model.Endpoint) bool) {
	for e := range endpoints {
		if !which(e.key) {
			continue
		}
		for _, s := range e.sockets {
			s.endpoint = nil
		}
		t.revise(e.owner)
		t.forget(e)
	}
}

func (t *Tracker) revise(c *container) {
	t.revision++
	c.revision = t.revision
}

func (t *Tracker) add(e *endpoint) {
	t.endpoints[e.key] = e
	c := t.containers[e.key.Container]
	if c == nil {
		c = &container{endpoints: map[*endpoint]struct{}{}}
		t.containers[e.key.Container] = c
	}
	c.endpoints[e] = struct{}{}
	e.owner = c
	t.revise(c)
}

// locate moves an endpoint to the namespace of its last socket.
func (e *endpoint) locate(ns *namespace) {
	if e.in == ns {
		return
	}
	if e.in != nil {
		delete(e.in.endpoints, e)
	}
	ns.endpoints[e] = struct{}{}
	e.in, e.namespace = ns, ns.id
}

// forget removes an endpoint from all indexes.
func (t *Tracker) forget(e *endpoint) {
	t.wake(e)
	delete(t.endpoints, e.key)
	if e.in != nil {
		delete(e.in.endpoints, e)
	}
	delete(e.owner.endpoints, e)
	if len(e.owner.endpoints) == 0 {
		delete(t.containers, e.key.Container)
		t.emptied = t.revision
	}
}
