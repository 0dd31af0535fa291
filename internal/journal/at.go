package journal

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/model"
)

// Watching reports whether portwatcher ran at a time.
type Watching struct {
	Running bool
	// Stopped is, where it did not run, when it was last alive before; zero: never.
	Stopped time.Time
}

// At returns what was open at t that f selects, ordered by container name and port, and
// whether portwatcher watched then. The processes are those of that time, as far as they were
// recorded; the labels of containers are their newest. The source of what has closed
// since is left out. The error is an [*UnknownTimeError] where t is before the record
// begins or in the future.
func (r *queries) At(ctx context.Context, t time.Time, f model.Filter) ([]model.Open, Watching, error) {
	v := view{at: t, now: r.now(), filter: &f, open: map[model.Endpoint]*model.Open{}}
	err := r.transact(ctx, func(t transaction) error {
		for _, step := range []func(transaction) error{v.readRuns, v.readStates, v.readEvents, v.readDrifts, v.choose} {
			if err := step(t); err != nil {
				return err
			}
		}
		return nil
	})
	if unknown, ok := errors.AsType[*UnknownTimeError](err); ok {
		err = unknown
	}
	if err != nil {
		return nil, Watching{}, err
	}
	open := make([]model.Open, 0, len(v.open))
	for _, o := range v.open {
		open = append(open, *o)
	}
	slices.SortFunc(open, func(a, b model.Open) int {
		return cmp.Or(cmp.Compare(a.ContainerName(), b.ContainerName()), a.Endpoint().Compare(b.Endpoint()))
	})
	return open, v.watching, nil
}

// view is what was open at one time, as it is gathered.
type view struct {
	at, now  time.Time
	filter   *model.Filter
	open     map[model.Endpoint]*model.Open
	watching Watching
}

// readRuns sets whether portwatcher ran, and checks that the record has the time.
func (v *view) readRuns(t transaction) error {
	var begins sql.NullInt64
	if err := t.get([]any{&begins}, "SELECT ifnull(begins, (SELECT min(started) FROM runs)) FROM meta"); err != nil {
		return err
	}
	if !begins.Valid {
		return &UnknownTimeError{At: v.at, Until: v.now}
	}
	if nanos(v.at) < begins.Int64 || v.at.After(v.now) {
		return &UnknownTimeError{At: v.at, From: timeOf(begins.Int64), Until: v.now}
	}
	// The latest run may be alive although its last heartbeat was before.
	return t.each(func(scan func(...any) error) error {
		var started, alive int64
		err := scan(&started, &alive)
		v.addRun(timeOf(started), timeOf(alive))
		return err
	}, "SELECT started, last_alive + iif(stopped IS NULL AND id = (SELECT max(id) FROM runs), ?, 0) FROM runs ORDER BY id", int64(heartbeat))
}

func (v *view) addRun(started, alive time.Time) {
	w := &v.watching
	switch {
	case !started.After(v.at) && !alive.Before(v.at):
		*w = Watching{Running: true}
	case !w.Running && alive.Before(v.at) && alive.After(w.Stopped):
		w.Stopped = alive
	}
}

// readStates adds what is open, or ended later without an event.
func (v *view) readStates(t transaction) error {
	states, err := readStates(t, "SELECT origin, state FROM states WHERE opened_at <= ?1 AND (until IS NULL OR until > ?1)", nanos(v.at))
	for i := range states {
		v.add(states[i].Open)
	}
	return err
}

func (v *view) add(open model.Open) {
	open.Time = v.at.UTC()
	endpoint := open.Endpoint()
	if known := v.open[endpoint]; known == nil || open.OpenedAt.After(known.OpenedAt) {
		v.open[endpoint] = &open
	}
}

// readEvents adds what closed later, and restores what changed later to what it was before
// its first change: the processes, and who can reach it.
func (v *view) readEvents(t transaction) error {
	later, err := readEvents(t, "SELECT "+eventColumns+" FROM events INDEXED BY events_time WHERE time > ?1 AND opened_at <= ?1 ORDER BY id",
		nanos(v.at))
	if err != nil {
		return err
	}
	for _, r := range later {
		if r.err != nil {
			return r.err
		}
		if r.event.Type == model.Closed && !r.event.Transient {
			open := model.Open{Listener: r.event.Listener, OpenedAt: r.event.OpenedAt}
			open.Source = ""
			v.add(open)
		}
	}
	type change struct {
		model.Endpoint
		model.Change
	}
	changed := map[change]bool{}
	for _, r := range later {
		if r.event.Type != model.Changed {
			continue
		}
		first := change{r.event.Endpoint(), r.event.Change}
		open := v.open[first.Endpoint]
		if open == nil || changed[first] || nanos(open.OpenedAt) != r.opened {
			continue
		}
		changed[first] = true
		switch r.event.Change {
		case model.ChangeExposure:
			open.SetReach(r.event.PreviousExposure, r.event.PreviousPublished)
		case model.ChangeForward:
			open.Forward = r.event.PreviousForward
		default:
			open.Processes = r.before
		}
	}
	return nil
}

// readDrifts sets how what was open differed from what was expected then.
func (v *view) readDrifts(t transaction) error {
	periods, err := readDrifts(t, "began <= ?1 AND (ended IS NULL OR ended > ?1)", nanos(v.at))
	if err != nil {
		return err
	}
	found := map[model.DriftKey]*model.DriftPeriod{}
	for i := range periods {
		if key := periods[i].Key(); key.Drift != model.DriftMissing && key.Drift != model.DriftUncovered {
			key.Drift = "" // an endpoint has one
			found[key] = &periods[i]
		}
	}
	for _, o := range v.open {
		o.Drift, o.DriftSince = "", time.Time{}
		if o.Container == nil {
			continue // the host's own ports are not judged
		}
		key := model.DriftKey{Target: o.Container.Target(), Protocol: o.Protocol, Port: o.Port, Exposure: o.Exposure}
		if p := found[key]; p != nil {
			o.Drift, o.DriftSince = p.Drift, p.Since
		}
	}
	return nil
}

// choose removes what the filter does not select.
func (v *view) choose(t transaction) error {
	chosen, _, err := selectContainers(t, v.filter)
	rest := withoutContainers(v.filter)
	matcher := rest.Matcher(nil)
	maps.DeleteFunc(v.open, func(endpoint model.Endpoint, o *model.Open) bool {
		return chosen != nil && !chosen[endpoint.Container] || !matcher.Open(o)
	})
	return err
}
