package journal

import (
	"reflect"
	"time"

	"portwatcher/internal/model"
)

// states is what is open by the records, and how the database differs from it.
// Applying a record changes only memory; a transaction then writes the difference,
// and may be tried again.
type states struct {
	open map[model.Endpoint]*model.State
	// changed are the rows that changed since the last commit.
	changed map[stateKey]stateRow
}

type stateKey struct {
	model.Endpoint
	openedAt int64 // as nanos returns it
}

type stateRow struct {
	state  *model.State // nil: the row is deleted
	until  any          // when it ended without an event, as nanos returns it; nil: it is open
	stored bool         // the database has the row
}

func newStates(open map[model.Endpoint]*model.State) states {
	return states{open: open, changed: map[stateKey]stateRow{}}
}

// apply applies a record, which was offered at now: what Full leaves out and what is
// forgotten ends then. For a changed event it returns the state of the endpoint before
// it, or nil.
func (s *states) apply(r *Record, now time.Time) (before *model.State) {
	switch {
	case r.Event != nil:
		return s.applyEvent(r.Event, r.Sockets)
	case r.Forget != "":
		forgotten := r.Forget
		if forgotten == model.HostID {
			forgotten = "" // events of the host name no container
		}
		for endpoint := range s.open {
			if endpoint.Container == forgotten {
				s.end(endpoint, now)
			}
		}
	default:
		s.applyState(r.State, r.Full, now)
	}
	return nil
}

func (s *states) applyEvent(e *model.Event, sockets *model.Sockets) (before *model.State) {
	if e.Port == 0 {
		return nil // a gap
	}
	endpoint := e.Endpoint()
	var known *model.Open
	if before = s.open[endpoint]; before != nil {
		known = &before.Open
	}
	switch next := model.Fold(known, e); {
	case next == known:
	case next == nil && e.OpenedAt.IsZero():
		s.end(endpoint, e.Time) // the event does not have the time from which on it was open
	case next == nil:
		s.remove(endpoint, stateRow{})
	default:
		if e.Type == model.Opened {
			s.end(endpoint, e.Time)
		}
		s.put(endpoint, &model.State{Open: *next, Sockets: sockets})
	}
	if e.Type != model.Changed {
		return nil
	}
	return before
}

func (s *states) applyState(given []model.State, full bool, now time.Time) {
	kept := map[model.Endpoint]bool{}
	for i := range given {
		state := &given[i]
		endpoint := state.Endpoint()
		kept[endpoint] = true
		known := s.open[endpoint]
		if known != nil && !known.OpenedAt.Equal(state.OpenedAt) {
			s.end(endpoint, state.OpenedAt)
			known = nil
		}
		if known == nil || !sameState(known, state) {
			s.put(endpoint, state)
		}
	}
	for endpoint := range s.open {
		if full && !kept[endpoint] {
			s.end(endpoint, now)
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

func keyOf(state *model.State) stateKey {
	return stateKey{state.Endpoint(), nanos(state.OpenedAt)}
}

// put sets what is open at an endpoint where nothing was, or the same opening.
func (s *states) put(endpoint model.Endpoint, state *model.State) {
	s.change(state, stateRow{state: state})
	s.open[endpoint] = state
}

// end removes what is open at an endpoint without an event.
func (s *states) end(endpoint model.Endpoint, until time.Time) {
	s.remove(endpoint, stateRow{state: s.open[endpoint], until: nanos(until)})
}

// remove removes what is open at an endpoint, if anything is. row is what the database
// keeps of it.
func (s *states) remove(endpoint model.Endpoint, row stateRow) {
	if state := s.open[endpoint]; state != nil {
		s.change(state, row)
		delete(s.open, endpoint)
	}
}

func (s *states) change(state *model.State, row stateRow) {
	key := keyOf(state)
	if before, changed := s.changed[key]; changed {
		row.stored = before.stored
	} else if known := s.open[key.Endpoint]; known != nil {
		row.stored = keyOf(known) == key
	}
	s.changed[key] = row
}

// committed notes that the database has all differences.
func (s *states) committed() { clear(s.changed) }

// rebase makes everything a difference: the database is a new one.
func (s *states) rebase() {
	for key, row := range s.changed {
		row.stored = false
		s.changed[key] = row
	}
	for _, state := range s.open {
		s.changed[keyOf(state)] = stateRow{state: state}
	}
}
