package journal

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"portwatcher/internal/model"
)

// Watching says whether portwatcher ran at a time.
type Watching struct {
	Running bool
	// Where it did not: Stopped is when it was last alive before, Started when it
	// was started after. Zero: not at all.
	Stopped, Started time.Time
}

// At returns what was open at t, ordered by container name and port, and
// whether portwatcher watched then. The processes are those of that time; the
// source of what has closed since is left out. The error is an
// [*UnknownTimeError] where t is before the record begins or in the future.
func (r *Reader) At(ctx context.Context, t time.Time) ([]model.Open, Watching, error) {
	v := view{at: t, now: r.now(), nanos: nanos(t), open: map[model.Endpoint]*past{}}
	err := r.reading(ctx, func(tx *sql.Tx) error {
		v.scanner = scanner{tx: tx}
		for _, step := range []func(context.Context) error{v.readRuns, v.readStates, v.readClosed, v.readChanged} {
			if err := step(ctx); err != nil {
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
	return v.sorted(), v.watching, nil
}

// view is what was at one time, as it is gathered.
type view struct {
	scanner
	at, now  time.Time
	nanos    int64
	open     map[model.Endpoint]*past
	watching Watching
}

// past is an endpoint that was open.
type past struct {
	model.Open
	until int64 // when it closed; math.MaxInt64: it is open
}

// readRuns finds out whether portwatcher ran, and checks that the time is known.
func (v *view) readRuns(ctx context.Context) error {
	var begins sql.NullInt64
	if err := v.tx.QueryRowContext(ctx, "SELECT ifnull(begins, (SELECT min(started) FROM runs)) FROM meta").Scan(&begins); err != nil {
		return err
	}
	now := v.now
	if !begins.Valid {
		return &UnknownTimeError{At: v.at, Until: now}
	}
	if v.nanos < begins.Int64 || v.at.After(now) {
		return &UnknownTimeError{At: v.at, From: timeOf(begins.Int64), Until: now}
	}
	rows, err := v.tx.QueryContext(ctx, "SELECT started, last_alive, stopped, id = (SELECT max(id) FROM runs) FROM runs ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var started, alive int64
		var stopped sql.NullInt64
		var latest bool
		if err := rows.Scan(&started, &alive, &stopped, &latest); err != nil {
			return err
		}
		if latest && !stopped.Valid {
			alive += int64(heartbeat) // it may run still
		}
		v.addRun(started, alive)
	}
	return rows.Err()
}

func (v *view) addRun(started, alive int64) {
	w := &v.watching
	switch {
	case started <= v.nanos && v.nanos <= alive:
		*w = Watching{Running: true}
	case w.Running:
	case started > v.nanos && (w.Started.IsZero() || started < nanos(w.Started)):
		w.Started = timeOf(started)
	case alive < v.nanos && alive > nanos(w.Stopped):
		w.Stopped = timeOf(alive)
	}
}

// readStates takes what is open, or ended without an event.
func (v *view) readStates(ctx context.Context) error {
	rows, err := v.tx.QueryContext(ctx, "SELECT id, ifnull(until, ?2), state FROM states WHERE opened_at <= ?1 AND (until IS NULL OR until > ?1)", v.nanos, math.MaxInt64)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, until int64
		var text []byte
		if err := rows.Scan(&id, &until, &text); err != nil {
			return err
		}
		var state model.State
		if err := decodeState(text, &state); err != nil {
			return fmt.Errorf("state %d of the journal is damaged: %w", id, err)
		}
		v.add(state.Open, until)
	}
	return rows.Err()
}

func (v *view) add(open model.Open, until int64) {
	open.Time = v.at.UTC()
	endpoint := endpointOf(&open.Listener)
	if known := v.open[endpoint]; known == nil || open.OpenedAt.After(known.OpenedAt) {
		v.open[endpoint] = &past{open, until}
	}
}

// readClosed takes what closed since; see spanOf.
func (v *view) readClosed(ctx context.Context) error {
	closed, err := v.events(ctx, `WITH RECURSIVE spans (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM spans WHERE n < ?2)
		SELECT `+columns+` FROM spans CROSS JOIN events INDEXED BY events_span ON span = n AND time > ?1 AND time <= ?1 + (1 << n)`, v.nanos, spanMost)
	if err != nil {
		return err
	}
	for _, c := range closed {
		if c.err != nil {
			return c.err
		}
		if nanos(c.event.OpenedAt) <= v.nanos && c.event.Container != nil {
			open := model.Open{Listener: c.event.Listener, OpenedAt: c.event.OpenedAt}
			open.Source = ""
			v.add(open, nanos(c.event.Time))
		}
	}
	return nil
}

// readChanged puts the processes back that had an endpoint before another one
// took it over.
func (v *view) readChanged(ctx context.Context) error {
	changes, err := v.events(ctx, "SELECT "+columns+" FROM events INDEXED BY events_changed WHERE type = 3 AND time > ?", v.nanos)
	if err != nil {
		return err
	}
	done := map[model.Endpoint]bool{}
	for _, c := range changes {
		if c.err != nil {
			return c.err
		}
		if c.event.Container == nil {
			continue
		}
		endpoint := endpointOf(&c.event.Listener)
		known := v.open[endpoint]
		if known == nil || done[endpoint] || nanos(c.event.Time) > known.until {
			continue
		}
		done[endpoint] = true
		if err := v.findProcesses(ctx, endpoint, known); err != nil {
			return err
		}
	}
	return nil
}

// findProcesses finds who had the endpoint at the time: what the last change
// before says, or else the opening.
func (v *view) findProcesses(ctx context.Context, endpoint model.Endpoint, p *past) error {
	p.Processes = nil
	opened := nanos(p.OpenedAt)
	told, err := v.events(ctx, "SELECT "+columns+` FROM events INDEXED BY events_changed WHERE type = 3 AND time BETWEEN ?1 AND ?2 AND port = ?3 AND protocol = ?4
		UNION ALL SELECT `+columns+` FROM blocks CROSS JOIN events ON events.id BETWEEN blocks.id << ?5 AND (blocks.id << ?5) + (1 << ?5) - 1
		WHERE blocks.earliest <= ?1 AND blocks.latest >= ?1 AND type = 1 AND events.time = ?1 AND port = ?3 AND protocol = ?4
		ORDER BY 1 DESC`, opened, v.nanos, endpoint.Port, endpoint.Protocol, blockShift)
	if err != nil {
		return err
	}
	for _, t := range told {
		if t.err == nil && t.event.Container != nil && endpointOf(&t.event.Listener) == endpoint {
			p.Processes = t.event.Processes
			return nil
		}
	}
	return nil
}

func (v *view) sorted() []model.Open {
	open := make([]model.Open, 0, len(v.open))
	for _, p := range v.open {
		open = append(open, p.Open)
	}
	sortOpen(open)
	return open
}

func sortOpen(open []model.Open) {
	slices.SortFunc(open, func(a, b model.Open) int {
		return cmp.Or(cmp.Compare(a.Container.Name, b.Container.Name), endpointOf(&a.Listener).Compare(endpointOf(&b.Listener)))
	})
}
