package journal

import (
	"database/sql"
	"fmt"
	"maps"
	"math"

	"portwatcher/internal/model"
)

// recorder turns events and states into rows. It remembers rows of origins; what it
// forgot it finds in the database again.
type recorder struct {
	origins map[originKey]originRow
	// latest and backward are as in the table meta.
	latest, backward int64
}

// maxOrigins bounds what a recorder remembers.
const maxOrigins = 1 << 14

// originKey is what [model.ContainerRef.Same] compares, and the host.
type originKey struct {
	host                              string
	named                             bool // the event names a container
	id, name, image, project, service string
}

type originRow struct {
	row int64
	// container is the latest reference that was recorded, with its labels and its start.
	container *model.ContainerRef
}

// forget makes the recorder read the rows again: a transaction failed, or rows were
// deleted.
func (r *recorder) forget() { r.origins = nil }

// knowsAsMuch reports whether a row of known has the labels and the start of c, as far as c has
// them.
func knowsAsMuch(known, c *model.ContainerRef) bool {
	return (c.Labels == nil || maps.Equal(c.Labels, known.Labels)) && (c.StartedAt.IsZero() || c.StartedAt.Equal(known.StartedAt))
}

// origin returns the row of a host and a container, which it adds if it is new. With
// newest the container's labels and its start replace those of the row.
func (r *recorder) origin(t transaction, l *model.Listener, newest bool) (int64, error) {
	c, named := l.Container, l.Container != nil
	if !named {
		c = &model.ContainerRef{}
	}
	key := originKey{l.Host, named, c.ID, c.Name, c.Image, c.Project, c.Service}
	known, ok := r.origins[key]
	if ok && (!newest || c == known.container || knowsAsMuch(known.container, c)) {
		return known.row, nil
	}
	merged := "labels = ifnull(labels, excluded.labels), started = ifnull(started, excluded.started)"
	if newest {
		merged = "labels = ifnull(excluded.labels, labels), started = ifnull(excluded.started, started)"
	}
	var started any
	if !c.StartedAt.IsZero() {
		started = nanos(c.StartedAt)
	}
	labels, err := encodeJSON(c.Labels, c.Labels == nil)
	if err == nil {
		err = t.get([]any{&known.row}, `INSERT INTO origins (host, container, name, image, project, service, labels, started) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET `+merged+` RETURNING id`,
			l.Host, sql.NullString{String: c.ID, Valid: named}, c.Name, c.Image, c.Project, c.Service, labels, started)
	}
	if err != nil {
		return 0, err
	}
	if r.origins == nil || len(r.origins) >= maxOrigins {
		r.origins = map[originKey]originRow{}
	}
	known.container = c
	r.origins[key] = known
	return known.row, nil
}

const insertEvent = "INSERT INTO events (" + eventColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

// event records an event by a statement of insertEvent. before is the state of the
// endpoint of a changed event before it; nil where that is not known.
func (r *recorder) event(t transaction, insert *sql.Stmt, e *model.Event, before *model.State) error {
	row, err := r.eventRow(t, e, before)
	if err == nil {
		_, err = insert.ExecContext(t.ctx, row...)
	}
	if err != nil {
		return fmt.Errorf("write event %d: %w", e.ID, err)
	}
	at := nanos(e.Time)
	r.latest = max(r.latest, at)
	if back := r.latest - at; back < 0 { // it is beyond 64 bits
		r.backward = math.MaxInt64
	} else {
		r.backward = max(r.backward, back)
	}
	return nil
}

// eventRow returns the values of eventColumns.
func (r *recorder) eventRow(t transaction, e *model.Event, before *model.State) (row []any, err error) {
	origin, err := r.origin(t, &e.Listener, true)
	if err != nil {
		return nil, err
	}
	var opened, had any
	if !e.OpenedAt.IsZero() {
		opened = nanos(e.OpenedAt)
	}
	if before != nil {
		opened = nanos(before.OpenedAt)
		if had, err = encodeProcesses(before.Processes); err != nil {
			return nil, err
		}
	}
	processes, err := encodeProcesses(e.Processes)
	if err != nil {
		return nil, err
	}
	detail, err := encodeDetail(e)
	return []any{
		int64(e.ID), nanos(e.Time), origin, string(e.Type), e.Transient, int64(e.Protocol), addressText(e.Address), int64(e.Port), e.IPv6Only,
		string(e.Exposure), string(e.Source), opened, processes, had, detail,
	}, err
}

// state records a change of the state.
func (r *recorder) state(t transaction, key stateKey, row stateRow) error {
	address := addressText(key.Address)
	if key.Namespace != "" { // it is a part of the row's identity
		address += " " + key.Namespace
	}
	values := []any{key.Container, int64(key.Protocol), address, int64(key.Port), key.openedAt}
	if row.state == nil {
		if !row.stored {
			return nil
		}
		return t.exec("DELETE FROM states WHERE container = ? AND protocol = ? AND address = ? AND port = ? AND opened_at = ?", values...)
	}
	origin, err := r.origin(t, &row.state.Listener, false)
	if err != nil {
		return err
	}
	rest := *row.state
	rest.Host, rest.Container = "", nil
	text, err := encodeJSON(&rest, false)
	if err != nil {
		return err
	}
	return t.exec(`INSERT OR REPLACE INTO states (container, protocol, address, port, opened_at, until, origin, state)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		append(values, row.until, origin, text)...)
}

// saveTimes records latest and backward.
func (r *recorder) saveTimes(t transaction) error {
	return t.exec("UPDATE meta SET latest = ?, backward = ?", r.latest, r.backward)
}
