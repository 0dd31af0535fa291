package journal

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"portwatcher/internal/model"
)

// The detail of an event is what no query selects by. Its form:
//
//	detail       = fields, and then those of them that are there, in this order
//	type         = string                 a type that has no code
//	address      = string of 4 or 16 bytes; after 16 bytes, string zone
//	source       = byte: its code; 0: a string follows
//	exposure     = string                 an exposure that has no code
//	processes    = count, then each: varint pid, varint container pid, uvarint
//	               uid + 1 or 0, string name, string executable
//	published    = count, strings
//	opened       = varint: nanoseconds from then to the event's time, modulo 2^64
//	open seconds = 8 bytes: IEEE 754, big endian
//	reason       = string
//	IPv6 only    = nothing                that it is there says it
//	lost         = uvarint
//	burst        = uvarint opened, uvarint closed, varint first, varint last: as in
//	               opened; varint port count; count, then each port as varint:
//	               the difference to the one before
//	string       = length, bytes
//
// Fields, counts and lengths are unsigned varints.
const (
	fieldType = 1 << iota
	fieldAddress
	fieldSource
	fieldExposure
	fieldProcesses
	fieldPublished
	fieldOpened
	fieldOpenSeconds
	fieldOpenDuration // the seconds are those from opened to time: nothing follows
	fieldReason
	fieldIPv6Only
	fieldLost
	fieldBurst

	fieldsKnown = 1<<iota - 1
)

// The codes of what has a fixed set of values; 0 is for others.
var (
	types     = []model.Type{1: model.Opened, 2: model.Closed, 3: model.Changed, 4: model.Gap, 5: model.Bursts}
	sources   = []model.Source{1: model.SourceEBPF, 2: model.SourceSockDiag, 3: model.SourceDestroy, 4: model.SourceProc, 5: model.SourceEngine, 6: model.SourceRestart}
	exposures = []model.Exposure{1: model.Loopback, 2: model.Network, 3: model.Published, 4: model.Host}
)

func codeOf[T ~string](codes []T, value T) uint8 {
	for code := 1; code < len(codes); code++ {
		if codes[code] == value {
			return uint8(code)
		}
	}
	return 0
}

func fieldsOf(e *model.Event) uint64 {
	fields := uint64(0)
	for _, f := range [...]struct {
		field uint64
		there bool
	}{
		{fieldType, codeOf(types, e.Type) == 0},
		{fieldAddress, e.Address.IsValid()},
		{fieldSource, e.Source != ""},
		{fieldExposure, e.Exposure != "" && codeOf(exposures, e.Exposure) == 0},
		{fieldProcesses, len(e.Processes) > 0},
		{fieldPublished, len(e.Published) > 0},
		{fieldOpened, !e.OpenedAt.IsZero()},
		{fieldReason, e.Reason != ""},
		{fieldIPv6Only, e.IPv6Only},
		{fieldLost, e.Lost != 0},
		{fieldBurst, e.Burst != nil},
	} {
		if f.there {
			fields |= f.field
		}
	}
	switch {
	case e.OpenSeconds == nil:
	case fields&fieldOpened != 0 && *e.OpenSeconds == openSeconds(nanos(e.Time), nanos(e.OpenedAt)):
		fields |= fieldOpenDuration
	default:
		fields |= fieldOpenSeconds
	}
	return fields
}

// openSeconds is how the capture computes them.
func openSeconds(closed, opened int64) float64 {
	return time.Duration(max(closed-opened, 0)).Seconds()
}

// appendDetail appends the detail of e to b.
func appendDetail(b []byte, e *model.Event) []byte {
	fields := fieldsOf(e)
	b = binary.AppendUvarint(b, fields)
	if fields&fieldType != 0 {
		b = appendString(b, string(e.Type))
	}
	if fields&fieldAddress != 0 {
		b = appendAddress(b, e.Address)
	}
	if fields&fieldSource != 0 {
		code := codeOf(sources, e.Source)
		b = append(b, code)
		if code == 0 {
			b = appendString(b, string(e.Source))
		}
	}
	if fields&fieldExposure != 0 {
		b = appendString(b, string(e.Exposure))
	}
	if fields&fieldProcesses != 0 {
		b = appendProcesses(b, e.Processes)
	}
	if fields&fieldPublished != 0 {
		b = binary.AppendUvarint(b, uint64(len(e.Published)))
		for _, published := range e.Published {
			b = appendString(b, published)
		}
	}
	if fields&fieldOpened != 0 {
		b = binary.AppendVarint(b, nanos(e.Time)-nanos(e.OpenedAt))
	}
	if fields&fieldOpenSeconds != 0 {
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(*e.OpenSeconds))
	}
	if fields&fieldReason != 0 {
		b = appendString(b, e.Reason)
	}
	if fields&fieldLost != 0 {
		b = binary.AppendUvarint(b, e.Lost)
	}
	if fields&fieldBurst != 0 {
		b = appendBurst(b, e)
	}
	return b
}

func appendBurst(b []byte, e *model.Event) []byte {
	b = binary.AppendUvarint(b, e.Opened)
	b = binary.AppendUvarint(b, e.Closed)
	b = binary.AppendVarint(b, nanos(e.Time)-nanos(e.First))
	b = binary.AppendVarint(b, nanos(e.Time)-nanos(e.Last))
	b = binary.AppendVarint(b, int64(e.PortCount))
	b = binary.AppendUvarint(b, uint64(len(e.Ports)))
	before := uint16(0)
	for _, number := range e.Ports {
		b = binary.AppendVarint(b, int64(number)-int64(before))
		before = number
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendAddress(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		bytes := a.As4()
		return append(append(b, 4), bytes[:]...)
	}
	bytes := a.As16()
	return appendString(append(append(b, 16), bytes[:]...), a.Zone())
}

func appendProcesses(b []byte, processes []model.Process) []byte {
	b = binary.AppendUvarint(b, uint64(len(processes)))
	for i := range processes {
		p := &processes[i]
		b = binary.AppendVarint(b, int64(p.PID))
		b = binary.AppendVarint(b, int64(p.ContainerPID))
		uid := uint64(0)
		if p.UID != nil {
			uid = uint64(*p.UID) + 1
		}
		b = binary.AppendUvarint(b, uid)
		b = appendString(b, p.Name)
		b = appendString(b, p.Executable)
	}
	return b
}
