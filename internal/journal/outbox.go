package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// DeliveryState is what became of a delivery.
type DeliveryState string

// The states of a delivery.
const (
	// DeliveryPending: it has to be tried, perhaps again.
	DeliveryPending DeliveryState = "pending"
	// DeliveryDelivered: the receiver has taken it.
	DeliveryDelivered DeliveryState = "delivered"
	// DeliveryDead: it is not tried any more.
	DeliveryDead DeliveryState = "dead"
)

// DeliveryStates has every state, in the order of the documentation.
var DeliveryStates = []DeliveryState{DeliveryPending, DeliveryDelivered, DeliveryDead}

// Delivery is a notification for one receiver.
type Delivery struct {
	// Seq orders the deliveries; it is used once.
	Seq uint64
	// ID is the identity that each try sends.
	ID       string
	Receiver string
	State    DeliveryState
	// Made is when it was written, Due when the next try is due, Finished when its last try
	// ended; zero while it is pending.
	Made, Due, Finished time.Time
	// Alerts is how many alerts it has, Title the message in one line, Severity the highest of
	// its alerts. Digest means that it was held back.
	Alerts          int
	Title, Severity string
	Digest          bool
	// Tried is how many tries there were, and Tries are the latest of them, [MaxTries] at
	// most, the oldest first.
	Tried int
	Tries []Try
	// Notification is what has to be delivered, as JSON. [Journal.NextDelivery] alone returns
	// it.
	Notification json.RawMessage
}

// MaxTries bounds Delivery.Tries.
const MaxTries = 50

// Try is one try of a delivery.
type Try struct {
	Time time.Time `json:"time"`
	// Status is that of the answer; 0 for none.
	Status    int    `json:"status,omitempty"`
	Delivered bool   `json:"delivered,omitempty"`
	Response  string `json:"response,omitempty"`
	Error     string `json:"error,omitempty"`
}

// StateKey names one value of what rules have found.
type StateKey struct{ Kind, Key string }

// AlertStep is what an evaluation of rules leaves. [Journal.WriteAlerts] writes all of it in
// one transaction.
type AlertStep struct {
	// Cursor is the name of a cursor, and ID the id up to which the rules were evaluated. With
	// Off there is no cursor from now on: nobody evaluates.
	Cursor string
	ID     uint64
	Off    bool
	// Put are values that are new or have changed; nil removes one.
	Put map[StateKey]json.RawMessage
	// Deliveries are added to the outbox.
	Deliveries []Delivery
	// Whole means that Put is the whole state: what else there is, is removed.
	Whole bool
}

// ErrAlertsLost reports that the database is another one than that of the step before: the
// deliveries that were pending are lost with it, and the state has to be written as a whole.
var ErrAlertsLost = errors.New("the database is a new one: pending deliveries are lost with the old one")

// alertMark is in the table alert_state from the first step on.
var alertMark = StateKey{"mark", ""}

// WriteAlerts writes a step. On return it is in the journal as [Journal.SetCursor] describes;
// after an error nothing of it is. The error is [ErrAlertsLost] where the step is not Whole and
// there was none before.
func (j *Journal) WriteAlerts(ctx context.Context, step *AlertStep) error {
	if err := checkCursor(step.Cursor); err != nil {
		return err
	}
	err := j.use(func(s *store) error {
		return inTransaction(ctx, s.db, func(t transaction) error { return step.write(t) })
	})
	if err != nil {
		return fmt.Errorf("write alerts to the journal %s: %w", j.place, err)
	}
	j.cursorMutex.Lock()
	defer j.cursorMutex.Unlock()
	if j.cursors[step.Cursor] = step.ID; step.Off {
		delete(j.cursors, step.Cursor)
	}
	return nil
}

func (step *AlertStep) write(t transaction) error {
	if step.Whole {
		if err := t.exec("DELETE FROM alert_state; INSERT INTO alert_state (kind, key, value) VALUES ('" + alertMark.Kind + "', '', '0')"); err != nil {
			return err
		}
	} else {
		known := 0
		if err := t.get([]any{&known}, "SELECT count(*) FROM alert_state WHERE kind = ? AND key = ?", alertMark.Kind, alertMark.Key); err != nil {
			return err
		}
		if known == 0 {
			return ErrAlertsLost
		}
	}
	for key, value := range step.Put {
		var err error
		if value == nil {
			err = t.exec("DELETE FROM alert_state WHERE kind = ? AND key = ?", key.Kind, key.Key)
		} else {
			err = t.exec("INSERT OR REPLACE INTO alert_state (kind, key, value) VALUES (?, ?, ?)", key.Kind, key.Key, string(value))
		}
		if err != nil {
			return err
		}
	}
	for i := range step.Deliveries {
		d := &step.Deliveries[i]
		err := t.exec(`INSERT INTO deliveries (seq, id, receiver, state, made, due, alerts, title, severity, digest, tried, notification) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)`,
			int64(d.Seq), d.ID, d.Receiver, string(DeliveryPending), nanos(d.Made), nanos(d.Due), d.Alerts, d.Title, d.Severity, d.Digest, string(d.Notification))
		if err != nil {
			return err
		}
	}
	if step.Off {
		return t.exec("DELETE FROM cursors WHERE name = ?", step.Cursor)
	}
	return writeCursor(t, step.Cursor, step.ID)
}

// AlertState returns what the last steps left; nil where there was none.
func (j *Journal) AlertState(ctx context.Context) (map[StateKey]json.RawMessage, error) {
	var state map[StateKey]json.RawMessage
	err := j.read(ctx, func(t transaction) error {
		state = nil
		return t.each(func(scan func(...any) error) error {
			var key StateKey
			var value string
			err := scan(&key.Kind, &key.Key, &value)
			if state == nil {
				state = map[StateKey]json.RawMessage{}
			}
			if key != alertMark {
				state[key] = json.RawMessage(value)
			}
			return err
		}, "SELECT kind, key, value FROM alert_state")
	})
	return state, err
}

const deliveryColumns = "seq, id, receiver, state, made, due, finished, alerts, title, severity, digest, tried, tries"

// NextDelivery returns the first pending delivery of a receiver, in the order in which they
// were written; nil for none.
func (j *Journal) NextDelivery(ctx context.Context, receiver string) (*Delivery, error) {
	var found []Delivery
	err := j.read(ctx, func(t transaction) (err error) {
		found, err = readDeliveries(t, "WHERE state = 'pending' AND receiver = ? ORDER BY seq LIMIT 1", receiver)
		if err != nil || len(found) == 0 {
			return err
		}
		var notification string
		err = t.get([]any{&notification}, "SELECT notification FROM deliveries WHERE seq = ?", int64(found[0].Seq))
		found[0].Notification = json.RawMessage(notification)
		return err
	})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// RecordTry writes state, times and tries of a delivery, as they are after a try. Where the
// delivery is not in the outbox any more it changes nothing.
func (j *Journal) RecordTry(ctx context.Context, d *Delivery) error {
	tries, err := encodeJSON(d.Tries[max(0, len(d.Tries)-MaxTries):], len(d.Tries) == 0)
	if err != nil {
		return err
	}
	var finished any
	if !d.Finished.IsZero() {
		finished = nanos(d.Finished)
	}
	err = j.use(func(s *store) error {
		return inTransaction(ctx, s.db, func(t transaction) error {
			return t.exec("UPDATE deliveries SET state = ?, due = ?, finished = ?, tried = ?, tries = ? WHERE seq = ? AND id = ?",
				string(d.State), nanos(d.Due), finished, d.Tried, tries, int64(d.Seq), d.ID)
		})
	})
	if err != nil {
		return fmt.Errorf("write a try of the delivery %s to the journal %s: %w", d.ID, j.place, err)
	}
	return nil
}

// TrimDeliveries deletes deliveries that are not pending: those that ended before a time, and
// all but the last keep. It returns how many it deleted.
func (j *Journal) TrimDeliveries(ctx context.Context, before time.Time, keep int) (deleted int, err error) {
	err = j.use(func(s *store) error {
		return inTransaction(ctx, s.db, func(t transaction) error {
			return t.each(func(scan func(...any) error) error {
				var seq int64
				deleted++
				return scan(&seq)
			}, `DELETE FROM deliveries WHERE state <> 'pending' AND (finished < ?1 OR seq <=
				ifnull((SELECT seq FROM deliveries WHERE state <> 'pending' ORDER BY seq DESC LIMIT 1 OFFSET ?2), -1)) RETURNING seq`, nanos(before), keep)
		})
	})
	if err != nil {
		return 0, fmt.Errorf("delete old deliveries from the journal %s: %w", j.place, err)
	}
	return deleted, nil
}

// DeliveryQuery selects deliveries. What is empty selects all.
type DeliveryQuery struct {
	Receiver string
	State    DeliveryState
	// Since is when they were made at the earliest.
	Since time.Time
	// Limit is how many there are at most, the last ones; 0: all.
	Limit int
}

// Deliveries returns the deliveries that q selects, the newest first.
func (r *queries) Deliveries(ctx context.Context, q DeliveryQuery) ([]Delivery, error) {
	where, args := "WHERE made >= ?", []any{nanos(q.Since)}
	if q.Receiver != "" {
		where, args = where+" AND receiver = ?", append(args, q.Receiver)
	}
	if q.State != "" {
		where, args = where+" AND state = ?", append(args, string(q.State))
	}
	limit := -1
	if q.Limit > 0 {
		limit = q.Limit
	}
	var found []Delivery
	err := r.transact(ctx, func(t transaction) (err error) {
		found, err = readDeliveries(t, where+" ORDER BY seq DESC LIMIT ?", append(args, limit)...)
		return err
	})
	return found, err
}

// DeliveryCount counts the deliveries of a receiver in a state.
type DeliveryCount struct {
	Receiver string
	State    DeliveryState
	Count    int
}

// CountDeliveries counts the deliveries that the journal has.
func (r *queries) CountDeliveries(ctx context.Context) ([]DeliveryCount, error) {
	var counts []DeliveryCount
	err := r.transact(ctx, func(t transaction) error {
		counts = nil
		return t.each(func(scan func(...any) error) error {
			var c DeliveryCount
			err := scan(&c.Receiver, &c.State, &c.Count)
			counts = append(counts, c)
			return err
		}, "SELECT receiver, state, count(*) FROM deliveries GROUP BY receiver, state ORDER BY receiver, state")
	})
	return counts, err
}

func readDeliveries(t transaction, where string, args ...any) ([]Delivery, error) {
	var found []Delivery
	err := t.each(func(scan func(...any) error) error {
		var d Delivery
		var made, due int64
		var finished sql.NullInt64
		var tries sql.RawBytes
		if err := scan(&d.Seq, &d.ID, &d.Receiver, &d.State, &made, &due, &finished, &d.Alerts, &d.Title, &d.Severity, &d.Digest, &d.Tried, &tries); err != nil {
			return err
		}
		d.Made, d.Due = timeOf(made), timeOf(due)
		if finished.Valid {
			d.Finished = timeOf(finished.Int64)
		}
		err := decodeJSON("tries", tries, &d.Tries)
		found = append(found, d)
		return err
	}, "SELECT "+deliveryColumns+" FROM deliveries "+where, args...)
	return found, err
}
