package journal

import (
	"context"
	"fmt"
	"maps"
	"time"
)

const (
	// batchTime is how long a batch gathers after its first record at most: it bounds
	// the share of time in writing, and how late readers see an event.
	batchTime = 5 * time.Millisecond
	// retryTime is the time between two attempts at a batch that failed.
	retryTime = time.Second
	// heartbeat is how often the journal records that it is alive.
	heartbeat = time.Minute
	// stopTime bounds the writing after the end of the context.
	stopTime = 5 * time.Second
	// reserveLength is how many ids are reserved at a time.
	reserveLength = 1 << 20
)

// writer belongs to the goroutine of [Journal.Run].
type writer struct {
	j        *Journal
	states   states
	drifts   drifts
	recorder recorder
	trim     trimmer
	indexing indexing
	batch    []queued

	lastID   uint64 // of the last event that was taken from the queue
	reserved uint64 // ids up to it are reserved on disk
	run      int64  // row of this run; 0: none yet
	started  time.Time
	rebased  bool // the database is another one: all state goes into it
	refused  bool // an id that does not rise was logged
	replaced bool // another file in the place of the database was logged

	check chan struct{} // tests ask for a heartbeat
}

func newWriter(j *Journal, m *saved, last uint64) *writer {
	return &writer{
		j: j, check: make(chan struct{}), lastID: last, reserved: last, started: j.options.Now(),
		states: newStates(m.open), drifts: newDrifts(m.drifts), recorder: recorder{latest: m.latest, backward: m.backward},
		trim: trimmer{timer: time.NewTimer(0)}, indexing: newIndexing(j.options.block),
	}
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
		case <-w.check:
			w.beat(ctx)
		case <-w.trim.timer.C:
			w.retain(ctx)
		case <-w.indexing.timer.C:
			w.index(ctx)
		}
	}
	return w.stop()
}

// beat checks that the file is there, and records that the journal is alive.
func (w *writer) beat(ctx context.Context) {
	w.checkFile()
	w.attempt(ctx)
}

// gather waits for the records that make a batch with the first.
func (w *writer) gather(ctx context.Context) {
	enough := w.j.queue.Enough(batchLength)
	timer := time.NewTimer(batchTime)
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
		w.attempt(ctx)
		if w.trim.written >= trimWritten {
			w.retain(ctx)
		}
		for w.indexing.due() {
			w.index(ctx)
		}
	}
}

// next makes a batch of what is queued, and applies it to the state. It reports
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
		q.before = w.states.apply(&q.Record, q.arrived)
		w.drifts.apply(&q.Record, q.arrived)
		w.batch = append(w.batch, q)
	}
	return true
}

// refuse counts an event that has the id of another one, and logs the first.
func (w *writer) refuse(id uint64) {
	w.j.status.lost.Add(1)
	if !w.refused {
		w.refused = true
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

// write writes the batch. It may be tried again after an error. It replaces a
// database that proves damaged by a new one.
func (w *writer) write() error {
	err := w.transact(w.writeBatch)
	if isCorrupt(err) {
		if err = w.replace(err); err == nil {
			err = w.transact(w.writeBatch)
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
	clear(w.drifts.changed)
	w.rebased = false
	w.trim.written += events
	w.indexing.written += int64(events)
	status.end(events)
	if was, failed := status.recover(time.Now()); failed {
		w.j.options.Logger.Warnf("The journal %s is written again after %s. The records that waited are not lost.", w.j.place, was.Round(time.Second))
	}
}

func (w *writer) failed(err error) {
	if w.j.status.fail(err, time.Now()) {
		w.j.options.Logger.WithError(err).Errorf("The journal %s cannot be written. New events wait in memory; if they become too many, they are dropped and a gap is reported. Writing is tried every second.", w.j.place)
	}
}

// transact runs f in a transaction of the database, which it opens if there is none.
func (w *writer) transact(f func(transaction) error) error {
	if w.j.store == nil {
		s, _, err := openStore(w.j.place.Path, w.j.options.Logger)
		if err != nil {
			return err
		}
		w.j.set(s)
	}
	reserved, run := w.reserved, w.run
	err := w.j.use(func(s *store) error {
		return inTransaction(context.Background(), s.db, f)
	})
	if err != nil {
		w.reserved, w.run = reserved, run
		w.recorder.forget()
	}
	return err
}

// writeBatch writes the batch, the differences of the state, and that this run is alive.
func (w *writer) writeBatch(t transaction) error {
	for _, step := range []func(transaction) error{w.writeRun, w.writeReserve, w.writeRebased, w.writeEvents, w.writeStates, w.drifts.write} {
		if err := step(t); err != nil {
			return err
		}
	}
	return w.recorder.saveTimes(t)
}

func (w *writer) writeRun(t transaction) error {
	now := nanos(w.j.options.Now())
	if w.run == 0 {
		return t.get([]any{&w.run}, "INSERT INTO runs (started, last_alive, boot, version) VALUES (?, ?, ?, ?) RETURNING id",
			nanos(w.started), now, w.j.options.BootID, w.j.options.Version)
	}
	return t.exec("UPDATE runs SET last_alive = ? WHERE id = ?", now, w.run)
}

// writeReserve renews the reserve of ids when half of it is used.
func (w *writer) writeReserve(t transaction) error {
	if w.lastID+reserveLength/2 <= w.reserved {
		return nil
	}
	w.reserved = w.lastID + reserveLength
	if err := w.j.lock.reserve(w.reserved); err != nil {
		return err
	}
	return t.exec("UPDATE meta SET reserved = ?", int64(w.reserved))
}

// writeEvents writes the events of the batch, and the names and labels of containers, as they
// came.
func (w *writer) writeEvents(t transaction) error {
	insert, err := t.tx.PrepareContext(t.ctx, insertEvent)
	if err != nil {
		return err
	}
	defer insert.Close()
	for i := range w.batch {
		q := &w.batch[i]
		if q.Event != nil {
			if err := w.recorder.event(t, insert, q.Event, q.before); err != nil {
				return err
			}
		}
		if q.Named != nil {
			if _, err := w.recorder.origin(t, q.Named, true); err != nil {
				return err
			}
		}
		for s := range q.State {
			if _, err := w.recorder.origin(t, &q.State[s].Listener, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeStates writes the differences of the state.
func (w *writer) writeStates(t transaction) error {
	for key, row := range w.states.changed {
		if err := w.recorder.state(t, key, row); err != nil {
			return err
		}
	}
	return nil
}

// writeRebased gives a new database the cursors. The events of the old one are lost: the
// record begins now. writeStates writes the whole state.
func (w *writer) writeRebased(t transaction) error {
	if !w.rebased {
		return nil
	}
	if err := t.exec("UPDATE meta SET begins = ?; DELETE FROM states", nanos(w.j.options.Now())); err != nil {
		return err
	}
	w.j.cursorMutex.Lock()
	cursors := maps.Clone(w.j.cursors)
	w.j.cursorMutex.Unlock()
	for name, id := range cursors {
		if err := writeCursor(t, name, id); err != nil {
			return err
		}
	}
	return nil
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
	if lost > 0 {
		w.j.status.lost.Add(uint64(lost))
		return fmt.Errorf("the journal %s lost %d events at the end: %w", w.j.place, lost, err)
	}
	if err == nil {
		err = w.transact(w.markStopped)
	}
	if err == nil {
		err = w.j.lock.reserve(w.lastID)
	}
	if err != nil {
		return fmt.Errorf("the journal %s: the stop is not marked as clean: %w", w.j.place, err)
	}
	return nil
}

// markStopped ends the run in order. The last id is then the whole reserve.
func (w *writer) markStopped(t transaction) error {
	now := nanos(w.j.options.Now())
	return t.exec("UPDATE runs SET last_alive = ?1, stopped = ?1 WHERE id = ?2; UPDATE meta SET reserved = ?3", now, w.run, int64(w.lastID))
}
