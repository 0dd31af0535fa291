package journal

import (
	"context"
	"fmt"
	"math"
	"time"
)

const (
	// trimRows is how many events a step of retention deletes, unless more than
	// half as many came since the last step: what goes must keep up with what comes.
	trimRows, trimRowsMost = 1000, 20_000
	// trimPause is the time between two steps as long as there is more to delete,
	// trimIdle otherwise. trimWritten events call for a step earlier.
	trimPause, trimIdle = 100 * time.Millisecond, time.Minute
	trimWritten         = 20_000
	// trimPages is how many free pages may stay in the file to be used again, and
	// how many a step gives back to the file system at most.
	trimPages = 256
	// rowBytes is more than an event takes, so that a step does not delete too
	// much; trimRowsLeast are deleted even if less is too much.
	rowBytes, trimRowsLeast = 150, 100
)

// SetRetention changes Retain and RetainSize of the [Options]. What is beyond them
// is deleted within a minute or so, in small steps.
func (j *Journal) SetRetention(age time.Duration, size int64) {
	if j.place.Path == "" && (size == 0 || size > memorySize) {
		size = memorySize
	}
	j.retain.Store(int64(age))
	j.retainSize.Store(size)
}

// trimmer has when retention has its next step.
type trimmer struct {
	timer      *time.Timer // fires when a step is due
	last, next time.Time
	written    int // events since the last step
	// pending: the last steps deleted something, and finishTrim follows.
	pending bool
	failing bool
}

// due reports in a storm, in which nothing receives from the timer, whether a step is due.
func (t *trimmer) due() bool {
	return time.Since(t.last) >= trimPause && (t.written >= trimWritten || time.Since(t.next) >= 0)
}

func (t *trimmer) schedule(pause time.Duration) {
	t.last, t.written = time.Now(), 0
	t.next = t.last.Add(pause)
	t.timer.Reset(pause)
}

// retain does one step of retention.
func (w *writer) retain(ctx context.Context) {
	more, err := w.trimStep()
	if isCorrupt(err) {
		if err = w.replace(err); err == nil {
			w.attempt(ctx)
		}
	}
	switch {
	case err == nil:
		w.trim.failing = false
	case !w.trim.failing:
		w.trim.failing = true
		w.j.options.Logger.WithError(err).Warnf("Old events cannot be deleted from the journal %s. It is tried every minute.", w.j.place)
	}
	pause := trimIdle
	if more {
		pause = trimPause
	}
	w.trim.schedule(pause)
}

// trimStep deletes some of what is too old or too much, and reports whether
// there is more of it.
func (w *writer) trimStep() (more bool, err error) {
	size, _, err := w.size()
	if err != nil {
		return false, err
	}
	t := trimming{now: nanos(w.j.options.Now()), cutoff: math.MinInt64, rows: min(max(trimRows, 2*w.trim.written), trimRowsMost)}
	if age := w.j.retain.Load(); age > 0 {
		t.cutoff = nanos(w.j.options.Now().Add(-time.Duration(age)))
	}
	if limit := w.j.retainSize.Load(); limit > 0 && size > limit {
		t.cutoff, t.tooLarge = math.MaxInt64, true
		t.rows = min(t.rows, max(int((size-limit)/rowBytes), trimRowsLeast))
	}
	if err := w.transact(t.step); err != nil {
		return false, err
	}
	size, free, err := w.size()
	if err != nil {
		return false, err
	}
	w.j.status.size.Store(size)
	more = t.more || free > trimPages
	w.trim.pending = w.trim.pending || t.deleted || more
	switch {
	case free > trimPages:
		// In the write-ahead log; the file becomes smaller when that is in it.
		err = w.exec(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", trimPages))
	case w.trim.pending && !more:
		w.trim.pending = false
		err = w.finishTrim()
	}
	return more, err
}

// finishTrim deletes what no row refers to any more, and brings the write-ahead log
// into the file, as far as no reader needs it.
func (w *writer) finishTrim() error {
	w.recorder.forget()
	return w.exec(`DELETE FROM origins WHERE id NOT IN (SELECT origin FROM states UNION ALL SELECT origin FROM ended)
			AND NOT EXISTS (SELECT 1 FROM events WHERE origin = origins.id);
		PRAGMA wal_checkpoint(PASSIVE)`)
}

func (w *writer) exec(statements string) error {
	return w.j.use(func(s *store) error {
		_, err := s.db.ExecContext(context.Background(), statements)
		return err
	})
}

func (w *writer) size() (size, free int64, err error) {
	err = w.j.use(func(s *store) error {
		size, free, err = s.size(context.Background())
		return err
	})
	return size, free, err
}

// trimming is one step of retention.
type trimming struct {
	now      int64
	cutoff   int64 // what is older goes
	tooLarge bool  // everything may go
	rows     int   // how many of each table may go

	deleted bool
	more    bool // there may be more to delete
}

func (t *trimming) step(tx transaction) error {
	var begins int64 // the record is complete from here
	if err := tx.get([]any{&begins}, "SELECT ifnull(begins, ?) FROM meta", math.MinInt64); err != nil {
		return err
	}
	// The oldest events up to the first that may stay. A clock that was set back only
	// delays.
	var events, last, latest int64
	err := tx.get([]any{&events, &last, &latest}, `SELECT count(*), ifnull(max(id), 0), ifnull(max(time), ?3) FROM (SELECT id, time FROM events
		WHERE id < ifnull((SELECT id FROM (SELECT id, time FROM events ORDER BY id LIMIT ?1) WHERE time >= ?2 LIMIT 1), ?4) ORDER BY id LIMIT ?1)`,
		t.rows, t.cutoff, math.MinInt64, math.MaxInt64)
	if err == nil && events > 0 {
		err = tx.exec("DELETE FROM events WHERE id <= ?", last)
	}
	if err != nil {
		return err
	}
	begins = max(begins, latest)
	ended := int64(0)
	if t.more = events == int64(t.rows); !t.more {
		before := begins
		if !t.tooLarge || events == 0 {
			before = max(before, t.cutoff)
		}
		err := tx.each(func(scan func(...any) error) error {
			var until int64
			err := scan(&until)
			begins = max(begins, until)
			ended++
			return err
		}, "DELETE FROM ended WHERE id IN (SELECT id FROM ended WHERE until < ? ORDER BY until LIMIT ?) RETURNING until", before, t.rows)
		if err != nil {
			return err
		}
		t.more = ended == int64(t.rows)
	}
	if t.deleted = events+ended > 0; !t.deleted {
		return nil
	}
	return tx.exec("UPDATE meta SET begins = min(?1, ?2); DELETE FROM runs WHERE last_alive < ?1 AND id < (SELECT max(id) FROM runs)", begins, t.now)
}
