package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
)

// trimming is one step of retention, in one transaction.
type trimming struct {
	w        *writer
	tx       *sql.Tx
	now      int64
	cutoff   int64 // what is older goes
	tooLarge bool  // so the oldest goes, too
	rows     int   // how many may go

	begins  int64 // the record is complete from here; math.MinInt64: from its first run
	touched bool  // something was deleted
}

func (t *trimming) transact(ctx context.Context, db *sql.DB) (more bool, err error) {
	if t.tx, err = db.BeginTx(ctx, nil); err != nil {
		return false, fmt.Errorf("begin a transaction: %w", err)
	}
	if more, err = t.step(ctx); err == nil {
		err = t.tx.Commit()
	}
	if err != nil {
		return false, errors.Join(err, rollback(t.tx))
	}
	return more, nil
}

// step deletes events, and when none is left to delete, what belonged to them.
func (t *trimming) step(ctx context.Context) (more bool, err error) {
	if err := t.tx.QueryRowContext(ctx, "SELECT ifnull(begins, ?) FROM meta", math.MinInt64).Scan(&t.begins); err != nil {
		return false, fmt.Errorf("read where the record begins: %w", err)
	}
	events, err := t.events(ctx)
	if err != nil {
		return false, fmt.Errorf("delete old events: %w", err)
	}
	if more = events == t.rows; !more {
		if more, err = t.rest(ctx, events == 0); err != nil {
			return false, err
		}
	}
	if t.touched {
		if _, err := t.tx.ExecContext(ctx, "UPDATE meta SET begins = ?", min(t.begins, t.now)); err != nil {
			return false, fmt.Errorf("record where the record begins: %w", err)
		}
	}
	return more, nil
}

// deleted notes that what happened up to a time is not all there any more.
func (t *trimming) deleted(until int64) {
	t.touched = true
	t.begins = max(t.begins, until)
}

// events deletes the oldest events up to the first that may stay, and returns
// how many. A clock that was set back only delays.
func (t *trimming) events(ctx context.Context) (count int, err error) {
	rows, err := t.tx.QueryContext(ctx, "SELECT id, time FROM events ORDER BY id LIMIT ?", t.rows)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var last, latest int64 = 0, math.MinInt64
	for rows.Next() {
		var id, at int64
		if err := rows.Scan(&id, &at); err != nil {
			return 0, err
		}
		if at >= t.cutoff && !t.tooLarge {
			break
		}
		last, latest = id, max(latest, at)
		count++
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || count == 0 {
		return 0, err
	}
	if _, err := t.tx.ExecContext(ctx, "DELETE FROM events WHERE id <= ?", last); err != nil {
		return 0, err
	}
	if _, err := t.tx.ExecContext(ctx, "DELETE FROM blocks WHERE id < ?", last>>blockShift); err != nil {
		return 0, err
	}
	t.deleted(latest)
	t.w.trim.sweeping = true
	return count, nil
}

// rest deletes what nothing needs without the events that are gone. noEvents
// says that there were none to delete.
func (t *trimming) rest(ctx context.Context, noEvents bool) (more bool, err error) {
	for _, step := range []func(context.Context, bool) (bool, error){t.ended, t.origins, t.runs} {
		again, err := step(ctx, noEvents)
		if err != nil {
			return false, err
		}
		more = more || again
	}
	return more, nil
}

// ended deletes endpoints that ended without an event.
func (t *trimming) ended(ctx context.Context, noEvents bool) (more bool, err error) {
	before := max(t.begins, t.cutoff)
	if t.tooLarge && noEvents {
		before = math.MaxInt64
	}
	var count int
	var latest int64
	const old = "(SELECT id, until FROM states WHERE until < ? ORDER BY until LIMIT ?)"
	if err := t.tx.QueryRowContext(ctx, "SELECT count(*), ifnull(max(until), 0) FROM "+old, before, t.rows).Scan(&count, &latest); err != nil {
		return false, fmt.Errorf("find old states: %w", err)
	}
	if count == 0 {
		return false, nil
	}
	if _, err := t.tx.ExecContext(ctx, "DELETE FROM states WHERE id IN (SELECT id FROM "+old+")", before, t.rows); err != nil {
		return false, fmt.Errorf("delete old states: %w", err)
	}
	t.deleted(latest)
	return count == t.rows, nil
}

// sweepRows is how many containers are looked at in a step.
const sweepRows = 200

// origins deletes containers that no event names, once round after events were
// deleted.
func (t *trimming) origins(ctx context.Context, _ bool) (more bool, err error) {
	trim := &t.w.trim
	if !trim.sweeping {
		return false, nil
	}
	var last sql.NullInt64
	const next = "(SELECT id FROM origins WHERE id > ? ORDER BY id LIMIT ?)"
	if err := t.tx.QueryRowContext(ctx, "SELECT max(id) FROM "+next, trim.swept, sweepRows).Scan(&last); err != nil {
		return false, fmt.Errorf("find old containers: %w", err)
	}
	if !last.Valid {
		trim.sweeping, trim.swept = false, 0
		return false, nil
	}
	_, err = t.tx.ExecContext(ctx, "DELETE FROM origins WHERE id IN "+next+" AND NOT EXISTS (SELECT 1 FROM events WHERE events.origin = origins.id)", trim.swept, sweepRows)
	if err != nil {
		return false, fmt.Errorf("delete old containers: %w", err)
	}
	t.w.origins.forget()
	trim.swept = last.Int64
	return true, nil
}

// runs deletes old runs, but for this one.
func (t *trimming) runs(ctx context.Context, _ bool) (more bool, err error) {
	if _, err := t.tx.ExecContext(ctx, "DELETE FROM runs WHERE last_alive < ? AND id <> ?", t.begins, t.w.run); err != nil {
		return false, fmt.Errorf("delete old runs: %w", err)
	}
	return false, nil
}
