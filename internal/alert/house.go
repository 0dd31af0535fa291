package alert

import (
	"context"
	"time"

	"portwatcher/internal/expect"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// questions returns what messages need of the surroundings; any goroutine may ask.
func (a *Alerts) questions() surroundings {
	return surroundings{
		before: func(e *model.Event) (*previous, error) { return before(a.options.Journal, e) },
		entry:  a.entry, report: a.report,
	}
}

// running returns the function of that name of surroundings, by the view of the capture; nil
// where there is none.
func (a *Alerts) running() func(id string, since time.Time) (running, known bool) {
	if a.options.View == nil {
		return nil
	}
	var of *model.View
	round := uint64(0)
	started := map[string]time.Time{}
	return func(id string, since time.Time) (bool, bool) {
		if round != a.rounds || of == nil { // a view for each event would cost more than the rules
			view := a.options.View()
			if view == nil || !a.ready || !view.Status.Engine.Connected {
				return false, false
			}
			if of == nil || of.Version != view.Version {
				clear(started)
				for i := range view.Containers {
					started[view.Containers[i].ID] = view.Containers[i].StartedAt
				}
			}
			of, round = view, a.rounds
		}
		at, running := started[id]
		return running && !at.After(since), true
	}
}

// entry returns the lines to add to the file of expectations for the drift of an event.
func (a *Alerts) entry(e *model.Event) string {
	if d := a.openDrift(e); d != nil {
		return d.Entry
	}
	return ""
}

func (a *Alerts) drifting(e *model.Event) bool { return a.openDrift(e) != nil }

// openDrift returns the drift of an event while it lasts; nil where it does not, or that is not
// known.
func (a *Alerts) openDrift(e *model.Event) *model.OpenDrift {
	if a.options.View == nil || e.Container == nil {
		return nil
	}
	view, key := a.options.View(), driftKey(e)
	if view == nil {
		return nil
	}
	for i := range view.Drifts {
		if d := &view.Drifts[i]; d.Key() == key {
			return d
		}
	}
	return nil
}

const (
	// houseTime is how often old deliveries are deleted, and drifts compared with the view.
	houseTime = time.Minute
	// keepTime and keepCount bound the deliveries that are kept after their end.
	keepTime, keepCount = 30 * 24 * time.Hour, 10_000
)

// keepHouse does what is due from time to time.
func (a *Alerts) keepHouse(ctx context.Context, now time.Time) {
	if now.Before(a.janitor) {
		return
	}
	a.janitor = now.Add(houseTime)
	deleted, err := a.options.Journal.TrimDeliveries(ctx, now.Add(-keepTime), keepCount)
	if err != nil && ctx.Err() == nil {
		a.report(err)
	}
	if deleted > 0 {
		a.tally.countDead(ctx, a.options.Journal)
	}
	a.abandon(ctx, now)
	if a.options.View == nil {
		return
	}
	view := a.options.View()
	if view == nil || !view.Status.Engine.Connected {
		return
	}
	listed, perTarget := make(map[model.DriftKey]bool, len(view.Drifts)), map[string]int{}
	for i := range view.Drifts {
		key := view.Drifts[i].Key()
		listed[key] = true
		perTarget[key.Target]++
	}
	// Of a target with more drifts than are kept, one that is not listed may last.
	lasts := func(key model.DriftKey) bool { return listed[key] || perTarget[key.Target] >= expect.MaxPeriods }
	a.suspects = a.core.reconcile(lasts, a.suspects)
}

// abandon ends the deliveries to receivers that the settings have no more, after the time for
// which they would have been tried.
func (a *Alerts) abandon(ctx context.Context, now time.Time) {
	for _, receiver := range a.tally.pendingOf() {
		if a.setup.kind(receiver) != "" {
			continue
		}
		for {
			d, err := a.options.Journal.NextDelivery(ctx, receiver)
			if err != nil || d == nil || now.Sub(d.Made) < a.options.GiveUp {
				break
			}
			d.State, d.Finished = journal.DeliveryDead, now
			d.Tries = append(d.Tries, journal.Try{Time: now, Error: "the settings have no receiver of this name any more"})
			if err := a.options.Journal.RecordTry(ctx, d); err != nil {
				break
			}
			a.tally.finished(receiver, journal.DeliveryDead)
			a.log.Errorf("The message %s to the receiver %s is given up: the settings have no receiver of this name any more.", d.ID, receiver)
		}
	}
}
