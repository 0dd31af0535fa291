package server

import (
	"context"
	"errors"
	"iter"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// History is the record of events. Its methods are safe for concurrent use.
type History interface {
	// Events returns the events that match, by rising id.
	Events(ctx context.Context, q journal.Query) iter.Seq2[*model.Event, error]
	// At returns what was open at a time that a filter selects, and whether portwatcher ran then. The error is an
	// [*api.Problem] where the time is outside the record.
	At(ctx context.Context, t time.Time, f model.Filter) (open []model.Open, watching bool, err error)
	// Drifts returns the periods of drifts that match, those that began last first.
	Drifts(ctx context.Context, q journal.DriftQuery) ([]model.DriftPeriod, error)
	// FirstID is the lowest id that is kept; 0 where there is none.
	FirstID(ctx context.Context) (uint64, error)
	// LastID is the id of the last event that is recorded, and Committed a channel
	// that is closed when there are more.
	LastID() uint64
	Committed() <-chan struct{}
	// Stats returns all but the first id, without reading the database.
	Stats() api.Journal
	// Err returns why nothing can be recorded at present; nil where recording works.
	Err() error
}

// found is the result of a query.
type found struct {
	events []*model.Event
	// last is the id up to which the journal was read, and count how many events
	// there were, with those that are damaged.
	last  uint64
	count int
}

// collect reads what a query returns, as one of the few queries at one time.
func (s *Server) collect(ctx context.Context, q journal.Query) (all found, err error) {
	err = s.query(ctx, func(ctx context.Context) error {
		all, err = collect(ctx, s.history, q)
		return err
	})
	return all, err
}

// collect leaves out events that are damaged: a client notices them by the ids that are
// missing.
func collect(ctx context.Context, h History, q journal.Query) (found, error) {
	all := found{last: q.AfterID}
	for event, err := range h.Events(ctx, q) {
		damaged, isDamaged := errors.AsType[*journal.DamagedError](err)
		switch {
		case isDamaged:
			all.last = damaged.ID
		case err != nil:
			return found{}, err
		default:
			all.last = event.ID
			all.events = append(all.events, event)
		}
		all.count++
	}
	return all, nil
}

// query runs read as one of the few queries at one time, within the time for
// one.
func (s *Server) query(ctx context.Context, read func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.queryTime)
	defer cancel()
	if !s.queries.enter(ctx, s.limits.queryTime) {
		return ctx.Err()
	}
	defer s.queries.leave()
	return read(ctx)
}

// any reports whether a query finds an event, damaged or not.
func (s *Server) any(ctx context.Context, q journal.Query) (found bool, err error) {
	err = s.query(ctx, func(ctx context.Context) error {
		all, err := collect(ctx, s.history, q)
		found = all.count > 0
		return err
	})
	return found, err
}

func (s *Server) firstID(ctx context.Context) (id uint64, err error) {
	err = s.query(ctx, func(ctx context.Context) error {
		id, err = s.history.FirstID(ctx)
		return err
	})
	return id, err
}
