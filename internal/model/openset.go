package model

import (
	"iter"
	"time"
)

// OpenSet is the set of open endpoints, folded from events and from lists of what is open.
//
// Events are applied in the order of their ids. A list comes from elsewhere and may be older
// or newer than some of the events around it: [OpenSet.Expect] marks when it was asked for,
// and [OpenSet.Replace] applies the events since then again. That changes nothing where the
// list contains their effect already, because [Fold] ignores what is older than the endpoint.
//
// The zero value is empty. An OpenSet is not safe for concurrent use.
type OpenSet struct {
	open map[Endpoint]*Open
	// since are the events after Expect; nil while no list is expected.
	since []*Event
}

// maxSince bounds OpenSet.since.
const maxSince = 1 << 16

// Apply folds an event into the set. The set keeps parts of the event.
func (s *OpenSet) Apply(e *Event) {
	if s.since != nil && len(s.since) < maxSince {
		s.since = append(s.since, e)
	}
	s.fold(e)
}

func (s *OpenSet) fold(e *Event) {
	endpoint := e.Endpoint()
	known := s.open[endpoint]
	switch next := Fold(known, e); {
	case next == known:
	case next == nil:
		delete(s.open, endpoint)
	default:
		s.put(endpoint, next)
	}
}

func (s *OpenSet) put(endpoint Endpoint, o *Open) {
	if s.open == nil {
		s.open = map[Endpoint]*Open{}
	}
	s.open[endpoint] = o
}

// Expect marks that a list is asked for now. Another call marks a later moment.
func (s *OpenSet) Expect() { s.since = make([]*Event, 0, 64) }

// Replace makes a list the content of the set, and applies the events since [OpenSet.Expect]
// to it. It returns false, and changes nothing, where there were too many events to keep:
// another list is needed then. The set keeps the list's elements.
func (s *OpenSet) Replace(list []Open) bool {
	since := s.since
	s.since = nil
	if len(since) == maxSince {
		return false
	}
	s.open = make(map[Endpoint]*Open, len(list))
	for i := range list {
		s.open[list[i].Endpoint()] = &list[i]
	}
	for _, e := range since {
		s.fold(e)
	}
	return true
}

// Len returns the number of open endpoints.
func (s *OpenSet) Len() int { return len(s.open) }

// Get returns an open endpoint, nil where it is not open. It is immutable, as those of All.
func (s *OpenSet) Get(endpoint Endpoint) *Open { return s.open[endpoint] }

// All returns the open endpoints, in no order. They are immutable: an event that changes one
// replaces it.
func (s *OpenSet) All() iter.Seq2[Endpoint, *Open] {
	return func(yield func(Endpoint, *Open) bool) {
		for endpoint, o := range s.open {
			if !yield(endpoint, o) {
				return
			}
		}
	}
}

// Fold returns an endpoint as it is after an event. known is the endpoint before it, nil where
// it was not open. The result is nil where it is not open, and known itself where the event
// changes nothing: a gap, a burst, one half of a transient, a drift of no open endpoint, or an
// event from before known opened. Neither argument is changed; the result shares parts of both.
//
// OpenedAt of the result is the time of a changed event where it was not known.
func Fold(known *Open, e *Event) *Open {
	if e.Transient {
		return known
	}
	next := &Open{Time: e.Time, Listener: e.Listener, OpenedAt: e.Time, Drift: e.Drift, DriftSince: driftSince(known, e)}
	switch e.Type {
	case Opened:
		if known != nil && known.OpenedAt.After(e.Time) {
			return known
		}
		return next
	case Changed:
		if known != nil {
			next.OpenedAt = known.OpenedAt
			if e.Change != ChangeProcess { // the source is that of the change
				next.Source = known.Source
			}
		}
		return next
	case Closed:
		// Both times are compared: after a changed event known.OpenedAt may be later than the
		// opening, and after the wall clock was set back e.Time may be earlier than it.
		if known != nil && known.OpenedAt.After(e.Time) && known.OpenedAt.After(e.OpenedAt) {
			return known
		}
		return nil
	case Drifted:
		if known == nil || known.Drift == next.Drift && !e.Ended || known.OpenedAt.After(e.Time) {
			return known
		}
		drifted := *known
		drifted.Drift, drifted.DriftSince = e.Drift, next.DriftSince
		if e.Ended {
			drifted.Drift = ""
		}
		return &drifted
	}
	return known
}

// driftSince returns when the drift after an event began; zero where there is none.
func driftSince(known *Open, e *Event) time.Time {
	switch {
	case e.Drift == "" || e.Ended:
		return time.Time{}
	case known != nil && known.Drift == e.Drift && known.Exposure == e.Exposure:
		return known.DriftSince
	}
	return e.Time
}

// ContainerName returns the name of the container, [HostName] where there is none.
func (l *Listener) ContainerName() string {
	if l.Container == nil {
		return HostName
	}
	return l.Container.Name
}

// Endpoint returns the identity of the endpoint. Container is empty where there is none.
func (l *Listener) Endpoint() Endpoint {
	e := Endpoint{Namespace: l.Namespace, Protocol: l.Protocol, Address: l.Address, Port: l.Port}
	if l.Container != nil {
		e.Container = l.Container.ID
	}
	return e
}
