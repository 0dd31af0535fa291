package journal

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"portwatcher/internal/model"
)

// Schema 1 had the detail of an event as a blob of its own form, and found times by
// blocks of ids. A row that cannot be decoded becomes one without a type, which
// readers report as damaged.

// The codes that columns and details of schema 1 have.
var (
	types1     = []model.Type{1: model.Opened, 2: model.Closed, 3: model.Changed, 4: model.Gap, 5: model.Bursts}
	sources1   = []model.Source{1: model.SourceEBPF, 2: model.SourceSockDiag, 3: model.SourceDestroy, 4: model.SourceProc, 5: model.SourceEngine, 6: model.SourceRestart}
	exposures1 = []model.Exposure{1: model.Loopback, 2: model.Network, 3: model.Published, 4: model.Host}
)

const (
	fromSchema1 = `
DROP INDEX origins_container; DROP INDEX events_origin; DROP INDEX events_span; DROP INDEX events_changed; DROP INDEX states_until;
ALTER TABLE events RENAME TO events1;
ALTER TABLE states RENAME TO states1;
ALTER TABLE origins ADD COLUMN labels TEXT;
ALTER TABLE origins ADD COLUMN started INTEGER;
ALTER TABLE meta ADD COLUMN latest INTEGER NOT NULL DEFAULT -9223372036854775808;
ALTER TABLE meta ADD COLUMN backward INTEGER NOT NULL DEFAULT 0;
`
	afterSchema1 = `
DROP TABLE events1; DROP TABLE states1; DROP TABLE blocks;
`
)

// migrateFrom1 converts a database of schema 1 to the newest schema.
func migrateFrom1(t transaction) error {
	if err := t.exec(fromSchema1 + schemaTables + schemaFilter + schemaDrift); err != nil {
		return err
	}
	r := &recorder{latest: math.MinInt64}
	if err := copyEvents1(t, r); err != nil {
		return err
	}
	if err := copyStates1(t, r); err != nil {
		return err
	}
	if err := r.saveTimes(t); err != nil {
		return err
	}
	return t.exec(afterSchema1 + schemaIndexes + schemaAlert)
}

func copyEvents1(t transaction, r *recorder) error {
	origins, err := readOrigins(t, "TRUE")
	if err != nil {
		return err
	}
	insert, err := t.tx.PrepareContext(t.ctx, insertEvent)
	if err != nil {
		return err
	}
	defer insert.Close()
	// Changed events have the state before them now.
	open := newStates(map[model.Endpoint]*model.State{})
	return t.each(func(scan func(...any) error) error {
		var id, at, row, kind, protocol, port, exposure int64
		var transient bool
		var detail sql.RawBytes
		if err := scan(&id, &at, &row, &kind, &transient, &protocol, &port, &exposure, &detail); err != nil {
			return err
		}
		e, err := event1(kind, protocol, port, exposure, at, detail)
		o := origins[row]
		if err != nil || o == nil {
			_, err := insert.ExecContext(t.ctx, id, at, row, "", 0, 0, "", 0, 0, "", "", nil, nil, nil, nil, nil)
			return err
		}
		e.ID, e.Transient, e.Host, e.Container = uint64(id), transient, o.host, o.container
		before := open.apply(&Record{Event: e}, e.Time)
		open.committed()
		return r.event(t, insert, e, before)
	}, "SELECT id, time, origin, type, transient, protocol, port, exposure, detail FROM events1 ORDER BY id")
}

func copyStates1(t transaction, r *recorder) error {
	return t.each(func(scan func(...any) error) error {
		var until sql.NullInt64
		var text sql.RawBytes
		if err := scan(&until, &text); err != nil {
			return err
		}
		state := &model.State{}
		err := decodeJSON("a state", text, state)
		if err == nil && state.Container == nil {
			err = errors.New("a state names no container")
		}
		if err != nil {
			return damage{err}
		}
		row := stateRow{state: state}
		if until.Valid {
			row.until = until.Int64
		}
		return r.state(t, keyOf(state), row)
	}, "SELECT until, state FROM states1 ORDER BY id")
}

// event1 decodes a row of schema 1.
func event1(kind, protocol, port, exposure, at int64, detail []byte) (*model.Event, error) {
	if kind < 0 || kind >= int64(len(types1)) || exposure < 0 || exposure >= int64(len(exposures1)) ||
		protocol < 0 || protocol > math.MaxUint8 || port < 0 || port > math.MaxUint16 {
		return nil, errors.New("a column is out of its range")
	}
	e := &model.Event{Time: timeOf(at), Type: types1[kind]}
	e.Protocol, e.Port, e.Exposure = model.Protocol(protocol), uint16(port), exposures1[exposure]
	d := decoder1{rest: detail}
	d.event(e, at)
	return e, d.err
}

// decoder1 takes values from the front of rest until the first error, and zero
// values from then on. Numbers are varints, counts and lengths unsigned ones; a
// string is its length and its bytes.
type decoder1 struct {
	rest []byte
	err  error
}

// event decodes a detail: a number whose bits name fields, and then these fields.
func (d *decoder1) event(e *model.Event, at int64) {
	names := d.uvarint()
	fields := []func(){
		func() { e.Type = model.Type(d.string()) },
		func() { e.Address = d.address() },
		func() { e.Source = d.source() },
		func() { e.Exposure = model.Exposure(d.string()) },
		func() { e.Processes = d.processes() },
		func() { e.Published = d.strings() },
		func() { e.OpenedAt = timeOf(at - d.varint()) },
		func() { e.OpenSeconds = d.seconds() },
		func() { e.OpenSeconds = openSeconds(e) },
		func() { e.Reason = d.string() },
		func() { e.IPv6Only = true },
		func() { e.Lost = d.uvarint() },
		func() { e.Burst = d.burst(at) },
	}
	for bit, decode := range fields {
		if d.err == nil && names>>bit&1 == 1 {
			decode()
		}
	}
	if names>>len(fields) != 0 || len(d.rest) > 0 {
		d.fail(fmt.Errorf("the fields are %#x, with %d bytes too many", names, len(d.rest)))
	}
}

func (d *decoder1) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}

func (d *decoder1) uvarint() uint64 { return number1(d, binary.Uvarint) }

func (d *decoder1) varint() int64 { return number1(d, binary.Varint) }

func number1[T any](d *decoder1, decode func([]byte) (T, int)) (value T) {
	value, n := decode(d.rest)
	if n <= 0 {
		d.fail(errors.New("a number is too long, or its end is missing"))
		n = 0
	}
	d.rest = d.rest[n:]
	return value
}

func (d *decoder1) bytes(length uint64) []byte {
	if length > uint64(len(d.rest)) {
		d.fail(errors.New("the end is missing"))
		return nil
	}
	bytes := d.rest[:length]
	d.rest = d.rest[length:]
	return bytes
}

func (d *decoder1) string() string { return string(d.bytes(d.uvarint())) }

// count returns how many values follow, of which each takes at least a byte.
func (d *decoder1) count() int {
	count := d.uvarint()
	if count > uint64(len(d.rest)) {
		d.fail(errors.New("the end is missing"))
		return 0
	}
	return int(count)
}

func (d *decoder1) strings() []string {
	list := make([]string, d.count())
	for i := range list {
		list[i] = d.string()
	}
	return list
}

func (d *decoder1) seconds() *float64 {
	bytes := d.bytes(8)
	if bytes == nil {
		return nil
	}
	seconds := math.Float64frombits(binary.BigEndian.Uint64(bytes))
	return &seconds
}

func (d *decoder1) address() netip.Addr {
	address, ok := netip.AddrFromSlice(d.bytes(d.uvarint()))
	if !ok {
		d.fail(errors.New("an address has neither 4 nor 16 bytes"))
	}
	if address.Is6() {
		address = address.WithZone(d.string())
	}
	return address
}

// source decodes a code; 0 stands before a string.
func (d *decoder1) source() model.Source {
	code := d.bytes(1)
	switch {
	case d.err != nil:
		return ""
	case code[0] == 0:
		return model.Source(d.string())
	case int(code[0]) >= len(sources1):
		d.fail(fmt.Errorf("the source %d", code[0]))
		return ""
	}
	return sources1[code[0]]
}

func (d *decoder1) processes() []model.Process {
	processes := make([]model.Process, d.count())
	for i := range processes {
		p := &processes[i]
		p.PID, p.ContainerPID = int(d.varint()), int(d.varint())
		if uid := d.uvarint(); uid > 0 { // 0: not known
			uid := uint32(uid - 1)
			p.UID = &uid
		}
		p.Name, p.Executable = d.string(), d.string()
	}
	return processes
}

// burst decodes times as the nanoseconds until the event's, and ports as the
// difference to the one before.
func (d *decoder1) burst(at int64) *model.Burst {
	b := &model.Burst{Opened: d.uvarint(), Closed: d.uvarint()}
	b.First, b.Last = timeOf(at-d.varint()), timeOf(at-d.varint())
	b.PortCount = int(d.varint())
	b.Ports = make([]uint16, d.count())
	port := int64(0)
	for i := range b.Ports {
		port += d.varint()
		b.Ports[i] = uint16(port)
	}
	return b
}
