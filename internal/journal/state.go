package journal

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"portwatcher/internal/model"
)

// states is what is open, as the records say, and what of it is not in the
// database yet. Applying a record changes only memory; a transaction then
// writes the difference, and may be tried again.
type states struct {
	open map[model.Endpoint]*entry
	// dirty may contain entries that are gone.
	dirty   []*entry
	removed []int64
	ended   []ended
}

// entry is an endpoint that is open.
type entry struct {
	state model.State
	row   int64 // in the database; 0: none yet
	added int64 // its row if the transaction commits
	dirty bool
	gone  bool
}

// ended is an endpoint that ended without an event to tell of it.
type ended struct {
	row   int64
	state model.State
	until time.Time
}

func endpointOf(l *model.Listener) model.Endpoint {
	return model.Endpoint{Container: l.Container.ID, Protocol: l.Protocol, Address: l.Address, Port: l.Port}
}

// apply takes a record into the state. now is when it was offered: what Full
// leaves out and what is forgotten ends then.
func (s *states) apply(r *Record, now time.Time) {
	switch {
	case r.Event != nil:
		s.applyEvent(r.Event, r.Sockets)
	case r.Forget != "":
		for endpoint := range s.open {
			if endpoint.Container == r.Forget {
				s.end(endpoint, now)
			}
		}
	default:
		s.applyState(r.State, r.Full, now)
	}
}

func (s *states) applyEvent(e *model.Event, sockets *model.Sockets) {
	if e.Container == nil {
		return // a gap
	}
	endpoint := endpointOf(&e.Listener)
	state := model.State{Open: model.Open{Time: e.Time, Listener: e.Listener, OpenedAt: e.Time}, Sockets: sockets}
	switch e.Type {
	case model.Opened:
		s.end(endpoint, e.Time)
		s.put(endpoint, state)
	case model.Changed:
		if known := s.open[endpoint]; known != nil {
			state.OpenedAt = known.state.OpenedAt
		}
		s.put(endpoint, state)
	case model.Closed:
		if e.OpenedAt.IsZero() && !e.Transient {
			s.end(endpoint, e.Time) // the event does not tell from when on it was open
		} else {
			s.remove(endpoint)
		}
	}
}

func (s *states) applyState(given []model.State, full bool, now time.Time) {
	if full {
		kept := make(map[model.Endpoint]bool, len(given))
		for i := range given {
			if given[i].Container != nil {
				kept[endpointOf(&given[i].Listener)] = true
			}
		}
		for endpoint := range s.open {
			if !kept[endpoint] {
				s.end(endpoint, now)
			}
		}
	}
	for i := range given {
		if given[i].Container == nil {
			continue
		}
		endpoint := endpointOf(&given[i].Listener)
		known := s.open[endpoint]
		if known != nil && !known.state.OpenedAt.Equal(given[i].OpenedAt) {
			s.end(endpoint, given[i].OpenedAt)
			known = nil
		}
		if known == nil || !sameState(&known.state, &given[i]) {
			s.put(endpoint, given[i])
		}
	}
}

// sameState compares all but when it was last seen.
func sameState(a, b *model.State) bool {
	x, y := *a, *b
	x.Time, y.Time = time.Time{}, time.Time{}
	x.OpenedAt, y.OpenedAt = x.OpenedAt.UTC(), y.OpenedAt.UTC()
	return reflect.DeepEqual(&x, &y)
}

func (s *states) put(endpoint model.Endpoint, state model.State) {
	e := s.open[endpoint]
	if e == nil {
		e = &entry{}
		s.open[endpoint] = e
	}
	e.state = state
	if !e.dirty {
		e.dirty = true
		s.dirty = append(s.dirty, e)
	}
}

// take forgets an endpoint and returns its entry, or nil.
func (s *states) take(endpoint model.Endpoint) *entry {
	e := s.open[endpoint]
	if e != nil {
		e.gone = true
		delete(s.open, endpoint)
	}
	return e
}

// remove is for what an event tells of.
func (s *states) remove(endpoint model.Endpoint) {
	if e := s.take(endpoint); e != nil && e.row != 0 {
		s.removed = append(s.removed, e.row)
	}
}

// end is for what no event tells of.
func (s *states) end(endpoint model.Endpoint, until time.Time) {
	if e := s.take(endpoint); e != nil {
		s.ended = append(s.ended, ended{row: e.row, state: e.state, until: until})
	}
}

// committed notes that all differences are in the database.
func (s *states) committed() {
	for _, e := range s.dirty {
		if !e.gone {
			e.row, e.dirty = e.added, false
		}
	}
	clear(s.dirty)
	clear(s.ended)
	s.dirty, s.removed, s.ended = s.dirty[:0], s.removed[:0], s.ended[:0]
}

// rebase makes everything a difference: the database is a new one.
func (s *states) rebase() {
	s.dirty, s.removed = s.dirty[:0], s.removed[:0]
	for _, e := range s.open {
		e.row, e.dirty = 0, true
		s.dirty = append(s.dirty, e)
	}
	for i := range s.ended {
		s.ended[i].row = 0
	}
}

func sortedStates(open map[model.Endpoint]*entry) []model.State {
	sorted := make([]model.State, 0, len(open))
	for _, endpoint := range slices.SortedFunc(maps.Keys(open), model.Endpoint.Compare) {
		sorted = append(sorted, open[endpoint].state)
	}
	return sorted
}
