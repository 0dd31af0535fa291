package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// FromJournal returns the [History] of this process's journal.
func FromJournal(j *journal.Journal) History { return recorded{j} }

type recorded struct{ *journal.Journal }

// At implements [History].
func (h recorded) At(ctx context.Context, t time.Time, f model.Filter) ([]model.Open, bool, error) {
	open, watching, err := h.Journal.At(ctx, t, f)
	if unknown, ok := errors.AsType[*journal.UnknownTimeError](err); ok {
		p := newProblem(http.StatusNotFound, unknown.Error())
		p.Parameter, p.Value = "at", t.Format(time.RFC3339Nano)
		return nil, false, p
	}
	return open, watching.Running, err
}

// FirstID implements [History].
func (h recorded) FirstID(ctx context.Context) (uint64, error) {
	first, _, err := h.Bounds(ctx)
	return first, err
}

// Stats implements [History].
func (h recorded) Stats() api.Journal {
	stats := h.Journal.Stats()
	answer := api.Journal{
		Path: h.Place().Path, InMemory: stats.InMemory, LastID: h.LastID(),
		LagSeconds: stats.Lag.Seconds(), SizeBytes: stats.Size,
		Queued: stats.Queued, Capacity: stats.Capacity, Written: stats.Written, Dropped: stats.Dropped,
	}
	if err := h.Err(); err != nil {
		answer.Error = err.Error()
	}
	return answer
}
