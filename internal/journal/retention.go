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
	trimRows = 1000
	// trimPause is the time between two steps as long as there is more to delete,
	// trimIdle otherwise. trimWritten events call for a step earlier.
	trimPause, trimIdle = 100 * time.Millisecond, time.Minute
	trimWritten         = 20_000
	// trimPages is how many free pages may stay in the file to be used again, and
	// how many a step gives back to the file system at most.
	trimPages = 256
	// rowBytes is more than an event takes, so that a step does not delete too
	// much; trimRowsLeast are deleted even if less is too much.
	rowBytes, trimRowsLeast = 250, 100
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
	timer   *time.Timer // fires when a step is due
	written int         // events since the last step
	// pending: the last steps deleted something, and dropOrigins follows.
	pending bool
	failing bool
}

// retain does one step of retention.
func (w *writer) retain(ctx context.Context) {
	more, err := w.trimStep()
	w.aside(ctx, err, &w.trim.failing, "Old events cannot be deleted from the journal %s. It is tried every minute.")
	pause := trimIdle
	if more {
		pause = trimPause
	}
	w.trim.written = 0
	w.trim.timer.Reset(pause)
}

// aside ends a step beside the writing of events: it replaces a damaged database, and
// logs the first of several failures.
func (w *writer) aside(ctx context.Context, err error, failing *bool, message string) {
	if isCorrupt(err) {
		if err = w.replace(err); err == nil {
			w.attempt(ctx)
		}
	}
	if err != nil && !*failing {
		w.j.options.Logger.WithError(err).Warnf(message, w.j.place)
	}
	*failing = err != nil
}

// trimStep deletes some of what is too old or too much, and reports whether
// there is more of it.
func (w *writer) trimStep() (more bool, err error) {
	now := w.j.options.Now()
	s := trimming{now: nanos(now), cutoff: math.MinInt64, limit: w.j.retainSize.Load(), rows: max(trimRows, 2*w.trim.written)}
	if age := w.j.retain.Load(); age > 0 {
		s.cutoff = nanos(now.Add(-time.Duration(age)))
	}
	if err := w.transact(s.step); err != nil {
		return false, err
	}
	w.reportPassed(&s)
	w.j.status.size.Store(s.size)
	w.trim.pending = w.trim.pending || s.deleted || s.more
	if s.more || !w.trim.pending {
		return s.more, nil
	}
	w.trim.pending = false
	if err := w.transact(dropOrigins); err != nil {
		return false, err
	}
	w.recorder.forget()
	return false, w.j.use(func(s *store) error { return s.checkpoint() })
}

// dropOrigins deletes the origins of containers that no row refers to any more, where all
// events are indexed.
func dropOrigins(t transaction) error {
	used, complete, err := usedOrigins(t)
	if err != nil || !complete {
		return err
	}
	// A container that was renamed keeps all its names.
	return t.exec(fmt.Sprintf(`DELETE FROM origins WHERE id NOT IN (SELECT origin FROM states) AND id NOT IN %[1]s
		AND (container IS NULL OR container NOT IN (SELECT container FROM states)
			AND container NOT IN (SELECT container FROM origins WHERE id IN %[1]s AND container IS NOT NULL))`, list(used)))
}

// checkpoint copies the write-ahead log into the file, as far as no reader needs it. Only
// then the file becomes smaller.
func (s *store) checkpoint() error {
	const statement = "PRAGMA wal_checkpoint(PASSIVE)"
	_, err := s.db.ExecContext(context.Background(), statement)
	return failed(statement, err)
}

// trimming is one step of retention.
type trimming struct {
	now    int64
	cutoff int64 // what is older goes
	limit  int64 // bytes, above which the oldest goes; 0: none
	rows   int   // how many of each table may go

	passed  int64 // events deleted that the consumer of a cursor had not read
	size    int64 // of the database, after the step
	deleted bool
	more    bool // there may be more to delete
}

func (s *trimming) step(t transaction) error {
	size, _, err := sizeOf(t)
	if err != nil {
		return err
	}
	tooLarge := s.limit > 0 && size > s.limit
	if tooLarge {
		s.cutoff = math.MaxInt64
		s.rows = min(s.rows, max(int((size-s.limit)/rowBytes), trimRowsLeast))
	}
	if err := s.delete(t, tooLarge); err != nil {
		return err
	}
	free := int64(0)
	if s.size, free, err = sizeOf(t); err == nil && free > trimPages {
		s.more = true
		err = t.exec(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", trimPages))
	}
	return err
}

// sizeOf returns the size of the database in bytes without its free pages, and how many
// these are.
func sizeOf(t transaction) (size, free int64, err error) {
	var pages, page int64
	err = t.get([]any{&pages, &free, &page}, `SELECT (SELECT page_count FROM pragma_page_count),
		(SELECT freelist_count FROM pragma_freelist_count), (SELECT page_size FROM pragma_page_size)`)
	return (pages - free) * page, free, err
}

// countPassed counts the events up to an id that the consumer of a cursor has not read.
func (s *trimming) countPassed(t transaction, last int64) error {
	s.passed = 0
	return t.get([]any{&s.passed}, `SELECT iif(?1 > ifnull((SELECT min(id) FROM cursors), ?1),
		(SELECT count(*) FROM events WHERE id <= ?1 AND id > (SELECT min(id) FROM cursors)), 0)`, last)
}

// reportPassed reports what a step deleted before its consumer had read it.
func (w *writer) reportPassed(s *trimming) {
	if s.passed == 0 {
		return
	}
	w.j.status.passed.Add(uint64(s.passed))
	w.j.options.Logger.Errorf("Retention deleted %d events from the journal %s that a consumer, such as the rules of alerts, had not read: raise --retain and --retain-size.", s.passed, w.j.place)
	if w.j.options.Passed != nil {
		w.j.options.Passed(uint64(s.passed))
	}
}

// delete deletes the oldest events, and then states, up to the first that may stay.
func (s *trimming) delete(t transaction, tooLarge bool) error {
	var begins int64 // the record is complete from here
	if err := t.get([]any{&begins}, "SELECT ifnull(begins, ?) FROM meta", math.MinInt64); err != nil {
		return err
	}
	// By the order of the ids: a clock that was set back only delays.
	var events, last, latest int64
	err := t.get([]any{&events, &last, &latest}, `SELECT count(*), ifnull(max(id), 0), ifnull(max(time), ?3) FROM (
			SELECT id, time FROM events WHERE id < ifnull((
				SELECT id FROM (SELECT id, time FROM events ORDER BY id LIMIT ?1) WHERE time >= ?2 LIMIT 1
			), ?4) ORDER BY id LIMIT ?1
		)`, s.rows, s.cutoff, math.MinInt64, math.MaxInt64)
	if err == nil && events > 0 {
		if err = s.countPassed(t, last); err != nil {
			return err
		}
		err = t.exec("DELETE FROM events WHERE id <= ?1", last)
		if err == nil {
			err = dropBlocks(t, last)
		}
	}
	if err != nil {
		return err
	}
	begins = max(begins, latest)
	states := int64(0)
	if s.more = events == int64(s.rows); !s.more {
		before := begins
		if !tooLarge || events == 0 {
			before = max(before, s.cutoff)
		}
		err := t.each(func(scan func(...any) error) error {
			var until int64
			err := scan(&until)
			begins = max(begins, until)
			states++
			return err
		}, `DELETE FROM states WHERE rowid IN (SELECT rowid FROM states WHERE until < ? ORDER BY until LIMIT ?)
			RETURNING until`, before, s.rows)
		if err != nil {
			return err
		}
		s.more = states == int64(s.rows)
		if err := t.exec("DELETE FROM drifts WHERE ended < ?", before); err != nil {
			return err
		}
	}
	if s.deleted = events+states > 0; !s.deleted {
		return nil
	}
	return t.exec(`UPDATE meta SET begins = min(?1, ?2);
		DELETE FROM runs WHERE last_alive < ?1 AND id < (SELECT max(id) FROM runs)`, begins, s.now)
}
