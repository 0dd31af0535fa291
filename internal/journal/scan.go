package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"

	"portwatcher/internal/model"
)

// columns are what a scanner takes.
const columns = "events.id, events.time, events.origin, events.type, events.transient, events.protocol, events.port, events.exposure, events.detail"

// scanner turns rows into events. Those of one transaction share what they say
// of their containers.
type scanner struct {
	tx      *sql.Tx
	origins map[int64]*place
	detail  sql.RawBytes
}

// events runs a query for columns. A row that makes no sense gives a
// [*DamagedError] in its place.
func (s *scanner) events(ctx context.Context, query string, args ...any) ([]result, error) {
	rows, err := s.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var results []result
	for rows.Next() {
		var r result
		if err := s.scan(rows, &r); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	return results, s.fill(ctx, results)
}

// result is an event that was read, or the error that came instead.
type result struct {
	id     uint64
	origin int64
	event  *model.Event
	err    error
}

func (s *scanner) scan(rows *sql.Rows, r *result) error {
	var id, at, kind, protocol, number, exposure int64
	e := &model.Event{}
	if err := rows.Scan(&id, &at, &r.origin, &kind, &e.Transient, &protocol, &number, &exposure, &s.detail); err != nil {
		return err
	}
	e.ID, r.id, e.Time = uint64(id), uint64(id), timeOf(at)
	err := decodeColumns(e, kind, protocol, number, exposure)
	if err == nil {
		err = decodeDetail(s.detail, e)
	}
	if err != nil {
		r.err = &DamagedError{ID: r.id, Err: err}
		return nil
	}
	r.event = e
	return nil
}

// place is a row of origins.
type place struct {
	host      string
	container *model.ContainerRef // nil where the events name none
}

// fill adds host and container.
func (s *scanner) fill(ctx context.Context, results []result) error {
	if err := s.learn(ctx, results); err != nil {
		return err
	}
	for i := range results {
		r := &results[i]
		o := s.origins[r.origin]
		switch {
		case r.err != nil:
		case o == nil:
			r.event, r.err = nil, &DamagedError{ID: r.id, Err: fmt.Errorf("its container, row %d of origins, is missing", r.origin)}
		default:
			r.event.Host = o.host
			r.event.Container = o.container
		}
	}
	return nil
}

// learn reads the origins that are not known yet.
func (s *scanner) learn(ctx context.Context, results []result) error {
	if s.origins == nil {
		s.origins = map[int64]*place{}
	}
	var unknown []int64
	for i := range results {
		if _, asked := s.origins[results[i].origin]; !asked {
			s.origins[results[i].origin] = nil
			unknown = append(unknown, results[i].origin)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	rows, err := s.tx.QueryContext(ctx, "SELECT id, host, container, name, image, project, service FROM origins WHERE id IN "+listOf(unknown))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var row int64
		var id sql.NullString
		o, c := &place{}, model.ContainerRef{}
		if err := rows.Scan(&row, &o.host, &id, &c.Name, &c.Image, &c.Project, &c.Service); err != nil {
			return err
		}
		if c.ID = id.String; id.Valid {
			o.container = &c
		}
		s.origins[row] = o
	}
	return rows.Err()
}

// listOf writes numbers as SQL has them.
func listOf(values []int64) string {
	list := []byte{'('}
	for _, value := range values {
		list = append(strconv.AppendInt(list, value, 10), ',')
	}
	list[len(list)-1] = ')'
	return string(list)
}

// decodeColumns sets what columns say, and checks that they can say it.
func decodeColumns(e *model.Event, kind, protocol, number, exposure int64) error {
	switch {
	case kind < 0 || kind >= int64(len(types)):
		return fmt.Errorf("type %d is not known", kind)
	case protocol < 0 || protocol > math.MaxUint8:
		return fmt.Errorf("protocol %d is none", protocol)
	case number < 0 || number > math.MaxUint16:
		return fmt.Errorf("port %d is none", number)
	case exposure < 0 || exposure >= int64(len(exposures)):
		return fmt.Errorf("exposure %d is not known", exposure)
	case e.ID == 0:
		return errors.New("its id is 0")
	}
	e.Type, e.Protocol, e.Port, e.Exposure = types[kind], model.Protocol(protocol), uint16(number), exposures[exposure]
	return nil
}
