package alert

import (
	"context"
	"errors"
	"fmt"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/journal"
)

// pageLength is how many events are evaluated at a time, and one transaction at most.
const pageLength = 1000

// rest is how long evaluation waits at least before it reads new events: it costs the writer of
// the journal less, and a message waits for its group anyway.
const rest = 100 * time.Millisecond

// evaluate reads events and does what is due, until ctx ends or there is another setup.
func (a *Alerts) evaluate(ctx context.Context, wake func(receiver string)) *Setup {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		if !a.setup.Enabled() {
			select {
			case <-ctx.Done():
				return nil
			case next := <-a.apply:
				return next
			}
		}
		committed := a.options.Journal.Committed()
		more := a.round(ctx)
		if !a.step(ctx, wake) {
			break
		}
		if more {
			continue
		}
		if !clock.Sleep(ctx, rest) {
			break
		}
		timer.Reset(a.pause())
		select {
		case <-ctx.Done():
		case <-committed:
		case <-timer.C:
		case next := <-a.apply:
			return next
		}
	}
	return nil
}

// round evaluates a page of events, and what is due when there are no more.
func (a *Alerts) round(ctx context.Context) (more bool) {
	count := 0
	a.rounds++
	a.core.waits = !a.complete(a.options.Now())
	for e, err := range a.options.Journal.Events(ctx, journal.Query{AfterID: a.cursor, FromStart: true, Limit: pageLength}) {
		damaged, isDamaged := errors.AsType[*journal.DamagedError](err)
		switch {
		case isDamaged:
			a.report(err)
			a.cursor = damaged.ID
		case err != nil:
			if ctx.Err() == nil {
				a.report(fmt.Errorf("events for the rules of alerts: %w", err))
			}
			return false
		default:
			a.core.event(e)
			a.cursor = e.ID
		}
		count++
	}
	if count == pageLength {
		return true
	}
	if now := a.options.Now(); a.complete(now) {
		a.core.advance(now)
		a.keepHouse(ctx, now)
	}
	return false
}

// settleTime is how long the start of the capture is waited for at most.
const settleTime = time.Minute

// complete reports whether events have come up to now: the capture has compared what is open
// with what was open before the program started.
func (a *Alerts) complete(now time.Time) bool {
	if !a.ready {
		a.ready = a.options.Ready == nil || a.options.Ready() == nil || now.Sub(a.began) > settleTime
	}
	return a.ready
}

// cursorTime is how often the cursor is written where nothing else is: after a kill the events
// since are evaluated again, with the same result.
const cursorTime = time.Second

// step writes what has changed, and wakes the receivers of new deliveries. It returns false where
// ctx ended.
func (a *Alerts) step(ctx context.Context, wake func(receiver string)) bool {
	deliveries := a.core.deliveries
	if len(a.core.changed) == 0 && len(deliveries) == 0 {
		if a.cursor == a.writes.cursor || a.options.Now().Sub(a.writes.at) < cursorTime {
			return true
		}
	}
	if !a.commit(ctx) {
		return false
	}
	for i := range deliveries {
		a.tally.added(deliveries[i].Receiver)
		wake(deliveries[i].Receiver)
	}
	a.publish()
	return true
}

// retryTime is the time between two attempts to write.
const retryTime = time.Second

// commit writes a step, until it is written or ctx ends.
func (a *Alerts) commit(ctx context.Context) bool {
	put, deliveries, err := a.core.take()
	step := &journal.AlertStep{Cursor: CursorName, ID: a.cursor, Put: put, Deliveries: deliveries, Whole: !a.writes.known, Off: !a.setup.Enabled()}
	for {
		if step.Whole && err == nil {
			step.Put, err = a.core.whole()
		}
		if err == nil {
			// The end of the program does not interrupt a write.
			err = a.options.Journal.WriteAlerts(context.WithoutCancel(ctx), step)
		}
		switch {
		case err == nil:
			if a.writes.failed {
				a.log.Warn("Alerts are written to the journal again. Nothing was lost.")
			}
			a.writes = writes{at: a.options.Now(), cursor: a.cursor, known: !step.Off}
			return true
		case errors.Is(err, journal.ErrAlertsLost):
			a.log.WithError(err).Error("The journal is a new one. Messages that had not been delivered are lost; what the rules have found since is not.")
			a.tally.reset()
			step.Whole, err = true, nil
			continue
		case !a.writes.failed:
			a.log.WithError(err).Error("Alerts cannot be written to the journal. Nothing is sent until they can; it is tried every second.")
			a.writes.failed = true
		}
		if !clock.Sleep(ctx, retryTime) {
			return false
		}
		err = nil
	}
}

// pause returns how long there is nothing to do without new events.
func (a *Alerts) pause() time.Duration {
	if !a.ready || a.cursor != a.writes.cursor {
		return time.Second
	}
	next := a.janitor
	if due := a.core.next(); !due.IsZero() && due.Before(next) {
		next = due
	}
	return max(next.Sub(a.options.Now()), time.Millisecond)
}
