package journal

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

const (
	// trimRows is how many events a step of retention deletes, unless more than
	// half as many came since the last step: what comes must not outrun what goes.
	trimRows, trimRowsMost = 1000, 20_000
	// trimPause is the time between two steps, trimIdle that between two looks
	// whether there is something to do. trimWritten events call for one earlier.
	trimPause, trimIdle = 100 * time.Millisecond, time.Minute
	trimWritten         = 20_000
	// trimPages is how many free pages may stay in the file to be used again, and
	// how many a step gives back to the file system at most.
	trimPages = 256
	// rowBytes is more than an event takes, so that a step does not delete too
	// much; trimRowsLeast are deleted however little too much there is.
	rowBytes, trimRowsLeast = 150, 100
)

// limits are how much is kept: an age and a size in bytes, 0 for no limit.
type limits struct {
	mutex sync.Mutex
	age   time.Duration
	size  int64
}

func (l *limits) get() (age time.Duration, size int64) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.age, l.size
}

func (l *limits) set(age time.Duration, size int64) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.age, l.size = age, size
}

// SetRetention changes Retain and RetainSize of the [Options]. What is too much
// by them goes within a minute or so, in small steps.
func (j *Journal) SetRetention(age time.Duration, size int64) {
	if j.place.Path == "" && (size == 0 || size > memorySize) {
		size = memorySize
	}
	j.retention.set(age, size)
}

// trimmer says when retention has its next step. Its zero value is due.
type trimmer struct {
	last, next time.Time
	clock      *time.Timer
	written    int // events since the last step
	// sweeping says that containers are looked through, up to the row swept.
	sweeping bool
	swept    int64
	touched  bool // something was deleted and is perhaps not in the file
	failing  bool
}

// timer fires when a step is due.
func (t *trimmer) timer() <-chan time.Time {
	if t.clock == nil {
		t.clock = time.NewTimer(time.Until(t.next))
	}
	return t.clock.C
}

// due says in a storm whether a step is due.
func (t *trimmer) due() bool {
	return time.Since(t.last) >= trimPause && (t.written >= trimWritten || time.Since(t.next) >= 0)
}

func (t *trimmer) schedule(pause time.Duration) {
	t.last, t.written = time.Now(), 0
	t.next = t.last.Add(pause)
	if t.clock != nil {
		t.clock.Reset(pause)
	}
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

// trimStep deletes a little of what is too old or too much, and says whether
// there is more of it.
func (w *writer) trimStep() (more bool, err error) {
	w.j.swap.RLock()
	defer w.j.swap.RUnlock()
	s := w.j.store
	if s == nil {
		return false, nil
	}
	ctx := context.Background()
	size, _, err := s.size(ctx)
	if err != nil {
		return false, err
	}
	t := trimming{
		w: w, cutoff: math.MinInt64, now: nanos(w.j.options.Now()),
		rows: min(max(trimRows, 2*w.trim.written), trimRowsMost),
	}
	retain, retainSize := w.j.retention.get()
	if retain > 0 {
		t.cutoff = nanos(w.j.options.Now().Add(-retain))
	}
	if limit := retainSize; limit > 0 && size > limit {
		t.tooLarge = true
		t.rows = min(t.rows, max(int((size-limit)/rowBytes), trimRowsLeast))
	}
	if more, err = t.transact(ctx, s.db); err != nil {
		return false, err
	}
	size, free, err := s.size(ctx)
	if err != nil {
		return false, err
	}
	w.j.status.size.Store(size)
	if free > trimPages {
		more = true
		err = s.shrink(ctx)
	}
	if !more && w.trim.touched {
		err = s.checkpoint(ctx)
	}
	w.trim.touched = more
	return more, err
}

// shrink gives free pages back, in the write-ahead log.
func (s *store) shrink(ctx context.Context) error {
	if _, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", trimPages)); err != nil {
		return fmt.Errorf("give free pages back: %w", err)
	}
	return nil
}

// checkpoint brings the write-ahead log into the file, as far as no reader
// needs it: only then the file becomes smaller.
func (s *store) checkpoint(ctx context.Context) error {
	if _, err := s.db.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)"); err != nil {
		return fmt.Errorf("bring the write-ahead log into the file: %w", err)
	}
	return nil
}
