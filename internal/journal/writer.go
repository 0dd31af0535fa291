package journal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// batchTime is how long a batch gathers after its first record at most: with
	// the writing, it is in the journal within 50 ms. Where writing is quick it
	// gathers less, so that whoever looks on sees it sooner: batchFactor times as
	// long as the last batch took, which keeps the share of time in writing low.
	batchTime, minBatchTime = 25 * time.Millisecond, 2 * time.Millisecond
	batchFactor             = 8
	// retryTime is the time between two attempts at a batch that failed.
	retryTime = time.Second
	// heartbeat is how often the journal notes that it lives.
	heartbeat = time.Minute
	// stopTime bounds the writing after the writer was told to stop.
	stopTime = 5 * time.Second
)

// writer is what the goroutine of [Journal.Run] has to itself.
type writer struct {
	j       *Journal
	states  states
	origins origins
	trim    trimmer
	batch   []queued
	detail  []byte // reused

	lastID   uint64 // of the last event that was taken from the queue
	reserved uint64 // ids up to it are reserved on disk
	run      int64  // row of this run; 0: none yet
	started  time.Time
	took     time.Duration // by the last batch
	rebased  bool          // the database is another one: all that is known goes into it
	told     bool          // that ids do not rise

	look      chan struct{} // tests ask for a heartbeat
	misplaced bool          // it was told that another file is in the place of the database
}

func newWriter(j *Journal, m *memory, last uint64) *writer {
	return &writer{j: j, look: make(chan struct{}), lastID: last, reserved: last, states: states{open: m.open}, started: j.options.Now()}
}

func (w *writer) loop(ctx context.Context) error {
	w.attempt(ctx) // this run, and the reserve
	alive := time.NewTicker(heartbeat)
	defer alive.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-w.j.queue.Ready():
			w.gather(ctx)
			w.flush(ctx)
		case s := <-w.j.suspect:
			w.examine(ctx, s)
		case <-alive.C:
			w.beat(ctx)
		case <-w.look:
			w.beat(ctx)
		case <-w.trim.timer():
			w.retain(ctx)
		}
	}
	return w.stop()
}

// beat notes that the journal lives, and that its file does.
func (w *writer) beat(ctx context.Context) {
	w.watchFile()
	w.attempt(ctx)
}

// gather waits for the records that make a batch with the first.
func (w *writer) gather(ctx context.Context) {
	enough := w.j.queue.Enough(batchLength)
	timer := time.NewTimer(min(max(batchFactor*w.took, minBatchTime), batchTime))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-enough:
	}
}

// flush writes what is queued, batch by batch, until the queue is empty or ctx
// ends.
func (w *writer) flush(ctx context.Context) {
	for ctx.Err() == nil && w.next() {
		began := time.Now()
		w.attempt(ctx)
		w.took = time.Since(began)
		if w.trim.due() {
			w.retain(ctx)
		}
	}
}

// next makes a batch of what is queued, and takes it into the state. It says
// whether there was something.
func (w *writer) next() bool {
	taken := w.j.queue.Take(w.batch[:0], batchLength)
	if len(taken) == 0 {
		return false
	}
	w.j.status.begin(taken[0].arrived)
	w.batch = taken[:0]
	for _, q := range taken {
		if q.Event != nil {
			if q.Event.ID <= w.lastID || q.Event.ID > maxID {
				w.refuse(q.Event.ID)
				continue
			}
			w.lastID = q.Event.ID
		}
		w.states.apply(&q.Record, q.arrived)
		w.batch = append(w.batch, q)
	}
	return true
}

// refuse tells of an event that would take the id of another one. It is told
// once: not the record is wrong but its sender.
func (w *writer) refuse(id uint64) {
	w.j.status.lost.Add(1)
	if !w.told {
		w.told = true
		w.j.options.Logger.Errorf("Event %d is not recorded: its id is not above %d, the last one. This is a bug of portwatcher; please report it.", id, w.lastID)
	}
}

// attempt writes the batch, until it is written or ctx ends.
func (w *writer) attempt(ctx context.Context) {
	for {
		err := w.write()
		if err == nil {
			return
		}
		w.failed(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryTime):
		}
	}
}

// write writes the batch. It may be tried again after an error. A database that
// proves damaged is replaced by a new one.
func (w *writer) write() error {
	err := w.transact()
	if isCorrupt(err) {
		if err = w.replace(err); err == nil {
			err = w.transact()
		}
	}
	if err == nil {
		w.succeeded()
	}
	return err
}

func (w *writer) succeeded() {
	status := &w.j.status
	events := 0
	for i := range w.batch {
		if e := w.batch[i].Event; e != nil {
			events++
			status.lastID.Store(e.ID)
		}
	}
	clear(w.batch)
	w.batch = w.batch[:0]
	w.states.committed()
	w.origins.committed()
	w.trim.written += events
	status.end(events)
	if was, failed := status.recover(time.Now()); failed {
		w.j.options.Logger.Warnf("The journal %s is written again after %s. What it had taken is not lost.", w.j.place, was.Round(time.Second))
	}
}

func (w *writer) failed(err error) {
	w.origins.rolledBack()
	if w.j.status.fail(err, time.Now()) {
		w.j.options.Logger.WithError(err).Errorf("The journal %s cannot be written. New events wait in memory; if they become too many, they are dropped and a gap is reported. Writing is tried every second.", w.j.place)
	}
}

// stop writes what is left and marks the stop as clean.
func (w *writer) stop() error {
	deadline := time.Now().Add(stopTime)
	var err error
	for len(w.batch) > 0 || w.next() || !w.j.queue.CloseEmpty() {
		if time.Now().After(deadline) {
			err = fmt.Errorf("there was more than can be written in %s", stopTime)
			break
		}
		if err = w.write(); err != nil {
			break
		}
	}
	w.j.queue.Close()
	lost := 0
	for _, q := range w.j.queue.Take(w.batch, queueCapacity) {
		if q.Event != nil {
			lost++
		}
	}
	if lost == 0 {
		if err = errors.Join(err, w.markStopped()); err != nil {
			err = fmt.Errorf("the journal %s: the stop is not marked as clean: %w", w.j.place, err)
		}
		return err
	}
	w.j.status.lost.Add(uint64(lost))
	return fmt.Errorf("the journal %s lost %d events at the end: %w", w.j.place, lost, err)
}
