package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// reserveLength is how many ids are reserved at a time.
const reserveLength = 1 << 20

// blockShift: a block is 1024 ids.
const blockShift = 10

// transact writes the batch and the differences of the state in one
// transaction.
func (w *writer) transact() error {
	if err := w.reopen(); err != nil {
		return err
	}
	w.j.swap.RLock()
	defer w.j.swap.RUnlock()
	if w.j.store == nil {
		return errClosed
	}
	if w.rebased {
		w.j.cursorMutex.Lock() // before the connection, as in SetCursor
		defer w.j.cursorMutex.Unlock()
	}
	ctx := context.Background()
	tx, err := w.j.store.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	reserved, run := w.reserved, w.run
	for _, step := range []func(context.Context, *sql.Tx) error{w.writeRun, w.writeReserve, w.writeEvents, w.writeStates, w.writeRebased} {
		if err = step(ctx, tx); err != nil {
			break
		}
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		w.reserved, w.run = reserved, run
		return errors.Join(err, rollback(tx))
	}
	w.rebased = false
	return nil
}

// rollback undoes a transaction; SQLite may have done so itself.
func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// writeRun notes that this run lives.
func (w *writer) writeRun(ctx context.Context, tx *sql.Tx) error {
	now := nanos(w.j.options.Now())
	if w.run == 0 {
		err := tx.QueryRowContext(ctx, "INSERT INTO runs (started, last_alive, boot, version) VALUES (?, ?, ?, ?) RETURNING id",
			nanos(w.started), now, w.j.options.BootID, w.j.options.Version).Scan(&w.run)
		if err != nil {
			return fmt.Errorf("record this run: %w", err)
		}
		return nil
	}
	if _, err := tx.ExecContext(ctx, "UPDATE runs SET last_alive = ? WHERE id = ?", now, w.run); err != nil {
		return fmt.Errorf("record this run: %w", err)
	}
	return nil
}

// writeReserve renews the reserve of ids when half of it is used.
func (w *writer) writeReserve(ctx context.Context, tx *sql.Tx) error {
	if w.lastID+reserveLength/2 <= w.reserved {
		return nil
	}
	reserved := w.lastID + reserveLength
	if w.j.lock != nil {
		if err := w.j.lock.reserve(reserved); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "UPDATE meta SET reserved = ?", int64(reserved)); err != nil {
		return fmt.Errorf("reserve ids: %w", err)
	}
	w.reserved = reserved
	return nil
}

// block is the times of the events in a block of ids.
type block struct{ earliest, latest int64 }

func (w *writer) writeEvents(ctx context.Context, tx *sql.Tx) error {
	insert, err := tx.PrepareContext(ctx, "INSERT INTO events (id, time, origin, type, transient, protocol, port, exposure, span, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	defer insert.Close()
	blocks := map[uint64]block{}
	for i := range w.batch {
		e := w.batch[i].Event
		if e == nil {
			continue
		}
		origin, err := w.origins.row(ctx, tx, originOf(&e.Listener))
		if err != nil {
			return fmt.Errorf("write event %d: %w", e.ID, err)
		}
		span, told := spanOf(e)
		w.detail = appendDetail(w.detail[:0], e)
		at := nanos(e.Time)
		_, err = insert.ExecContext(ctx, int64(e.ID), at, origin, int64(codeOf(types, e.Type)), e.Transient, int64(e.Protocol), int64(e.Port),
			int64(codeOf(exposures, e.Exposure)), sql.NullInt64{Int64: span, Valid: told}, w.detail)
		if err != nil {
			return fmt.Errorf("write event %d: %w", e.ID, err)
		}
		b, known := blocks[e.ID>>blockShift]
		if !known {
			b = block{math.MaxInt64, math.MinInt64}
		}
		blocks[e.ID>>blockShift] = block{min(b.earliest, at), max(b.latest, at)}
	}
	for id, b := range blocks {
		_, err := tx.ExecContext(ctx, `INSERT INTO blocks (id, earliest, latest) VALUES (?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET earliest = min(earliest, excluded.earliest), latest = max(latest, excluded.latest)`, int64(id), b.earliest, b.latest)
		if err != nil {
			return fmt.Errorf("write the times of block %d: %w", id, err)
		}
	}
	return nil
}

// writeRebased writes what a new database lacks, and no difference shows.
func (w *writer) writeRebased(ctx context.Context, tx *sql.Tx) error {
	if !w.rebased {
		return nil
	}
	if _, err := tx.ExecContext(ctx, "UPDATE meta SET begins = ?", nanos(w.j.options.Now())); err != nil {
		return fmt.Errorf("record where the record begins: %w", err)
	}
	return w.j.writeCursors(tx)
}

// writeStates writes the differences of the state.
func (w *writer) writeStates(ctx context.Context, tx *sql.Tx) error {
	if w.rebased {
		if _, err := tx.ExecContext(ctx, "DELETE FROM states WHERE until IS NULL"); err != nil {
			return fmt.Errorf("remove the state: %w", err)
		}
	}
	for _, e := range w.states.dirty {
		if e.gone {
			continue
		}
		text, err := json.Marshal(&e.state)
		if err != nil {
			return fmt.Errorf("write the state of %v: %w", endpointOf(&e.state.Listener), err)
		}
		opened := nanos(e.state.OpenedAt)
		if e.added = e.row; e.row != 0 {
			_, err = tx.ExecContext(ctx, "UPDATE states SET opened_at = ?, state = ? WHERE id = ?", opened, string(text), e.row)
		} else {
			err = tx.QueryRowContext(ctx, "INSERT INTO states (opened_at, state) VALUES (?, ?) RETURNING id", opened, string(text)).Scan(&e.added)
		}
		if err != nil {
			return fmt.Errorf("write the state of %v: %w", endpointOf(&e.state.Listener), err)
		}
	}
	for _, row := range w.states.removed {
		if _, err := tx.ExecContext(ctx, "DELETE FROM states WHERE id = ?", row); err != nil {
			return fmt.Errorf("remove state %d: %w", row, err)
		}
	}
	return w.writeEnded(ctx, tx)
}

func (w *writer) writeEnded(ctx context.Context, tx *sql.Tx) error {
	for i := range w.states.ended {
		e := &w.states.ended[i]
		text, err := json.Marshal(&e.state)
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT INTO states (id, opened_at, until, state) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET until = excluded.until, state = excluded.state",
				sql.NullInt64{Int64: e.row, Valid: e.row != 0}, nanos(e.state.OpenedAt), nanos(e.until), string(text))
		}
		if err != nil {
			return fmt.Errorf("write the end of %v: %w", endpointOf(&e.state.Listener), err)
		}
	}
	return nil
}

// markStopped ends the run in order. The last id is then the whole reserve.
func (w *writer) markStopped() error {
	w.j.swap.RLock()
	defer w.j.swap.RUnlock()
	if w.j.store == nil {
		return errClosed
	}
	ctx := context.Background()
	now := nanos(w.j.options.Now())
	tx, err := w.j.store.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("mark the stop: %w", err)
	}
	if _, err = tx.ExecContext(ctx, "UPDATE runs SET last_alive = ?, stopped = ? WHERE id = ?", now, now, w.run); err == nil {
		_, err = tx.ExecContext(ctx, "UPDATE meta SET reserved = ?", int64(w.lastID))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("mark the stop: %w", err), rollback(tx))
	}
	if err := tx.Commit(); err != nil {
		return errors.Join(fmt.Errorf("mark the stop: %w", err), rollback(tx))
	}
	if w.j.lock != nil {
		return w.j.lock.reserve(w.lastID)
	}
	return nil
}
