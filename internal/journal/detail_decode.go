package journal

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

	"portwatcher/internal/model"
)

// decodeDetail fills e, whose Time and Type are set from the columns, with what
// appendDetail wrote.
func decodeDetail(b []byte, e *model.Event) error {
	d := decoder{rest: b}
	fields := d.uvarint("fields")
	if fields&^fieldsKnown != 0 {
		d.fail("fields", fmt.Errorf("%#x is not known", fields))
	}
	has := func(field uint64) bool { return d.err == nil && fields&field != 0 }
	if has(fieldType) {
		e.Type = model.Type(d.string("type"))
	}
	if has(fieldAddress) {
		e.Address = d.address()
	}
	if has(fieldSource) {
		e.Source = d.source()
	}
	if has(fieldExposure) {
		e.Exposure = model.Exposure(d.string("exposure"))
	}
	if has(fieldProcesses) {
		e.Processes = d.processes()
	}
	if has(fieldPublished) {
		e.Published = d.published()
	}
	if has(fieldOpened) {
		e.OpenedAt = timeOf(nanos(e.Time) - d.varint("opened"))
	}
	if has(fieldOpenSeconds) {
		if bits := d.bytes("open seconds", 8); d.err == nil {
			seconds := math.Float64frombits(binary.BigEndian.Uint64(bits))
			e.OpenSeconds = &seconds
		}
	}
	if has(fieldOpenDuration) {
		seconds := openSeconds(nanos(e.Time), nanos(e.OpenedAt))
		e.OpenSeconds = &seconds
	}
	if has(fieldReason) {
		e.Reason = d.string("reason")
	}
	e.IPv6Only = has(fieldIPv6Only)
	if has(fieldLost) {
		e.Lost = d.uvarint("lost")
	}
	if has(fieldBurst) {
		e.Burst = d.burst(nanos(e.Time))
	}
	if d.err == nil && len(d.rest) > 0 {
		d.fail("end", fmt.Errorf("%d bytes too many", len(d.rest)))
	}
	return d.err
}

// decoder takes values from the front of rest until the first error, and zero
// values from then on.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(what string, err error) {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", what, err)
	}
	d.rest = nil
}

var (
	errShort = fmt.Errorf("the end comes too early")
	errRange = fmt.Errorf("a number is too large")
)

func (d *decoder) uvarint(what string) uint64 {
	value, n := binary.Uvarint(d.rest)
	return d.number(what, value, n)
}

func (d *decoder) varint(what string) int64 {
	value, n := binary.Varint(d.rest)
	return int64(d.number(what, uint64(value), n))
}

// number takes the n bytes of a varint; binary tells of errors by n.
func (d *decoder) number(what string, value uint64, n int) uint64 {
	switch {
	case d.err != nil:
		return 0
	case n == 0:
		d.fail(what, errShort)
		return 0
	case n < 0:
		d.fail(what, errRange)
		return 0
	}
	d.rest = d.rest[n:]
	return value
}

func (d *decoder) bytes(what string, length uint64) []byte {
	if d.err == nil && length > uint64(len(d.rest)) {
		d.fail(what, errShort)
	}
	if d.err != nil {
		return nil
	}
	bytes := d.rest[:length]
	d.rest = d.rest[length:]
	return bytes
}

func (d *decoder) string(what string) string {
	return string(d.bytes(what, d.uvarint(what)))
}

// count returns how many values follow, of which each takes some bytes.
func (d *decoder) count(what string, least int) int {
	count := d.uvarint(what)
	if d.err == nil && count > uint64(len(d.rest)/least) {
		d.fail(what, errShort)
	}
	if d.err != nil {
		return 0
	}
	return int(count)
}

func (d *decoder) address() netip.Addr {
	bytes := d.bytes("address", d.uvarint("address"))
	if d.err != nil {
		return netip.Addr{}
	}
	address, ok := netip.AddrFromSlice(bytes)
	if !ok {
		d.fail("address", fmt.Errorf("it has %d bytes", len(bytes)))
	}
	if len(bytes) == 16 {
		address = address.WithZone(d.string("zone"))
	}
	return address
}

func (d *decoder) source() model.Source {
	code := d.bytes("source", 1)
	switch {
	case d.err != nil:
		return ""
	case code[0] == 0:
		return model.Source(d.string("source"))
	case int(code[0]) >= len(sources):
		d.fail("source", fmt.Errorf("code %d is not known", code[0]))
		return ""
	}
	return sources[code[0]]
}

// processBytes is the least that a process takes.
const processBytes = 5

func (d *decoder) processes() []model.Process {
	processes := make([]model.Process, d.count("processes", processBytes))
	for i := range processes {
		p := &processes[i]
		p.PID = int(d.varint("pid"))
		p.ContainerPID = int(d.varint("container pid"))
		switch uid := d.uvarint("uid"); {
		case uid > math.MaxUint32+1:
			d.fail("uid", errRange)
		case uid > 0:
			known := uint32(uid - 1)
			p.UID = &known
		}
		p.Name = d.string("name")
		p.Executable = d.string("executable")
	}
	return processes
}

func (d *decoder) published() []string {
	published := make([]string, d.count("published", 1))
	for i := range published {
		published[i] = d.string("published")
	}
	return published
}

func (d *decoder) burst(at int64) *model.Burst {
	b := &model.Burst{Opened: d.uvarint("opened"), Closed: d.uvarint("closed")}
	b.First, b.Last = timeOf(at-d.varint("first")), timeOf(at-d.varint("last"))
	b.PortCount = int(d.varint("port count"))
	b.Ports = make([]uint16, d.count("ports", 1))
	number := int64(0)
	for i := range b.Ports {
		if number += d.varint("ports"); number < 0 || number > math.MaxUint16 {
			d.fail("ports", errRange)
			break
		}
		b.Ports[i] = uint16(number)
	}
	return b
}
