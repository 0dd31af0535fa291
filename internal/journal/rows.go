package journal

import (
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"portwatcher/internal/model"
)

// eventColumns are what readEvents reads.
const eventColumns = "id, time, origin, type, transient, protocol, address, port, ipv6_only, exposure, source, " +
	"opened_at, processes, before, detail"

// result is an event that was read, or the error in its place.
type result struct {
	id     uint64
	origin int64
	event  *model.Event
	// before and opened belong to a changed event: the processes before it, and when the
	// endpoint opened.
	before []model.Process
	opened int64
	err    error // a [*DamagedError]
}

// readEvents runs a query for eventColumns.
func readEvents(t transaction, query string, args ...any) ([]result, error) {
	var results []result
	var rows []int64
	err := t.each(func(scan func(...any) error) error {
		r, err := readEvent(scan)
		if err == nil {
			results = append(results, r)
			if !slices.Contains(rows, r.origin) {
				rows = append(rows, r.origin)
			}
		}
		return err
	}, query, args...)
	if err != nil || len(results) == 0 {
		return nil, err
	}
	origins, err := readOrigins(t, "id IN "+list(rows))
	if err != nil {
		return nil, err
	}
	for i := range results {
		r := &results[i]
		if o := origins[r.origin]; o != nil && r.err == nil {
			r.event.Host, r.event.Container = o.host, o.container
		} else if r.err == nil {
			r.err = fmt.Errorf("its container, row %d of origins, is missing", r.origin)
		}
		if r.err != nil {
			r.event, r.err = nil, &DamagedError{ID: r.id, Err: r.err}
		}
	}
	return results, nil
}

func readEvent(scan func(...any) error) (r result, err error) {
	e := &model.Event{}
	var at, protocol, port int64
	var opened sql.NullInt64
	var address, processes, before, detail sql.RawBytes
	err = scan(&e.ID, &at, &r.origin, &e.Type, &e.Transient, &protocol, &address, &port, &e.IPv6Only, &e.Exposure, &e.Source,
		&opened, &processes, &before, &detail)
	if err != nil {
		return r, err
	}
	r.id, r.event, r.opened = e.ID, e, opened.Int64
	e.Time, e.Protocol, e.Port = timeOf(at), model.Protocol(protocol), uint16(port)
	switch {
	case e.Type == "":
		r.err = errors.New("it has no type")
	case port != int64(e.Port) || protocol != int64(e.Protocol):
		r.err = fmt.Errorf("protocol %d or port %d is out of range", protocol, port)
	default:
		if opened.Valid && e.Type != model.Changed {
			e.OpenedAt = timeOf(opened.Int64)
		}
		r.err = r.decode(address, processes, before, detail)
	}
	return r, nil
}

// decode sets what text columns have.
func (r *result) decode(address, processes, before, more []byte) (err error) {
	e := r.event
	if len(address) > 0 {
		if e.Address, err = netip.ParseAddr(string(address)); err != nil {
			return fmt.Errorf("address: %w", err)
		}
	}
	if e.Processes, err = decodeProcesses(processes); err != nil {
		return err
	}
	if r.before, err = decodeProcesses(before); err != nil {
		return err
	}
	var d detail
	if err := decodeJSON("detail", more, &d); err != nil {
		return err
	}
	e.Namespace = d.Namespace
	e.SetReach(e.Exposure, d.Published)
	e.Forward, e.PreviousForward = d.Forward, d.PreviousForward
	e.Change, e.PreviousExposure, e.PreviousPublished = d.Change, d.PreviousExposure, d.PreviousPublished
	if e.Type == model.Changed && e.Change == "" {
		e.Change = model.ChangeProcess
	}
	e.OpenSeconds, e.Reason, e.Lost, e.Burst = d.OpenSeconds, d.Reason, d.Lost, d.Burst
	e.Drift, e.Ended, e.Expected = d.Drift, d.Ended, d.Expected
	if e.OpenSeconds == nil {
		e.OpenSeconds = openSeconds(e)
	}
	return nil
}

func readOrigins(t transaction, where string) (map[int64]*origin, error) {
	origins := map[int64]*origin{}
	return origins, t.each(func(scan func(...any) error) error {
		var row int64
		var id sql.NullString
		var labels sql.RawBytes
		var started sql.NullInt64
		o, c := &origin{}, &model.ContainerRef{}
		if err := scan(&row, &o.host, &id, &c.Name, &c.Image, &c.Project, &c.Service, &labels, &started); err != nil {
			return err
		}
		if c.ID = id.String; id.Valid {
			o.container = c
		}
		if started.Valid {
			c.StartedAt = timeOf(started.Int64)
		}
		origins[row] = o
		// A container with damaged labels has none.
		_ = decodeJSON("labels", labels, &c.Labels)
		return nil
	}, "SELECT id, host, container, name, image, project, service, labels, started FROM origins WHERE "+where)
}

// storedState is a row of states.
type storedState struct {
	model.State
	origin int64
}

// readStates runs a query for origin and state.
func readStates(t transaction, query string, args ...any) ([]storedState, error) {
	var states []storedState
	var rows []int64
	err := t.each(func(scan func(...any) error) error {
		var s storedState
		var text sql.RawBytes
		err := scan(&s.origin, &text)
		if err == nil {
			err = decodeJSON("a state of the journal is damaged", text, &s.State)
		}
		states, rows = append(states, s), append(rows, s.origin)
		return err
	}, query, args...)
	if err != nil || len(states) == 0 {
		return nil, err
	}
	slices.Sort(rows)
	origins, err := readOrigins(t, "id IN "+list(slices.Compact(rows)))
	for i := range states {
		s := &states[i]
		o := origins[s.origin]
		if err == nil && o == nil {
			err = fmt.Errorf("a state of the journal is damaged: row %d of origins is missing", s.origin)
		}
		if err != nil {
			return nil, err
		}
		s.Host, s.Container = o.host, o.container
		s.SetReach(s.Exposure, s.Published) // a state of before has no Outside
	}
	return states, nil
}
