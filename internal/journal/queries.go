package journal

import (
	"context"
	"iter"
	"math"
	"time"

	"portwatcher/internal/model"
)

// queries are the questions that a [Journal] and a [Reader] answer. They read in short
// transactions: a consumer may take its time.
type queries struct {
	// transact runs a function in a transaction that reads.
	transact func(ctx context.Context, f func(t transaction) error) error
	// more returns a channel that is closed when there may be more events than at the call.
	more func() <-chan struct{}
	now  func() time.Time
}

// pageLength is how many events are read at a time.
const pageLength = 1000

// Events returns the events that q selects, in the order of their ids. An error
// stands in the place of an event: a [*DamagedError] is about that event alone,
// and the consumer may go on; after any other there is nothing more.
func (r *queries) Events(ctx context.Context, q Query) iter.Seq2[*model.Event, error] {
	return func(yield func(*model.Event, error) bool) { r.read(ctx, &q, yield) }
}

// read yields what q selects. It returns how many events these were and the id up to
// which it has read; ok is false when the consumer, or an error, ended it.
func (r *queries) read(ctx context.Context, q *Query, yield func(*model.Event, error) bool) (count int, end uint64, ok bool) {
	var p *plan
	err := r.transact(ctx, func(t transaction) (err error) {
		p, err = newPlan(t, q)
		return err
	})
	if err != nil {
		yield(nil, err)
		return 0, 0, false
	}
	left := math.MaxInt
	if q.Limit > 0 {
		left = q.Limit
	}
	for more := !p.empty(); more && count < left; {
		var page []result
		limit := min(left-count, pageLength)
		err := r.transact(ctx, func(t transaction) (err error) {
			page, more, err = p.page(t, limit)
			return err
		})
		if err != nil {
			yield(nil, err)
			return count, 0, false
		}
		for _, result := range page {
			if !yield(result.event, result.err) {
				return count, 0, false
			}
		}
		count += len(page)
	}
	return count, p.end, true
}

// Follow returns what Events does, and then goes on with what comes,
// until ctx ends; then it ends without an error. The limit is that of what is
// already there; with FromStart, of all. A consumer that is slow misses nothing
// that retention does not delete.
func (r *queries) Follow(ctx context.Context, q Query) iter.Seq2[*model.Event, error] {
	return func(yield func(*model.Event, error) bool) {
		limited := q.Limit > 0 && q.FromStart
		for {
			more := r.more()
			count, end, ok := r.read(ctx, &q, func(e *model.Event, err error) bool { return ctx.Err() == nil && yield(e, err) })
			if !ok || limited && count == q.Limit || q.BeforeID > 0 && end >= q.BeforeID-1 {
				return
			}
			q.AfterID = max(q.AfterID, end)
			if q.Limit -= count; !limited {
				q.Limit = 0 // what comes is not the last of what is there
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Bounds returns the first and the last id that is in the journal; 0 and 0 if
// it is empty.
func (r *queries) Bounds(ctx context.Context) (first, last uint64, err error) {
	err = r.transact(ctx, func(t transaction) error {
		return t.get([]any{&first, &last}, "SELECT (SELECT ifnull(min(id), 0) FROM events), (SELECT ifnull(max(id), 0) FROM events)")
	})
	return first, last, err
}
