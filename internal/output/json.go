package output

import (
	"bytes"
	"encoding/json"
	"math"
	"net/netip"
	"strconv"
	"time"

	"portwatcher/internal/model"
)

// AppendJSON appends an event's JSON object to dst: byte for byte what
// encoding/json and [EscapeMarks] make of it without escaping HTML, in a fraction of the time. An
// OpenSeconds that is no number, which encoding/json refuses, is left out. A time
// before the year 0 or after 9999 is not valid RFC 3339.
func AppendJSON(dst []byte, e *model.Event) []byte {
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendUint(dst, e.ID, 10)
	dst = appendTime(append(dst, `,"time":`...), e.Time)
	dst = appendText(dst, `,"type":`, string(e.Type))
	dst = appendListener(dst, &e.Listener)
	dst = append(dst, `,"transient":`...)
	dst = strconv.AppendBool(dst, e.Transient)
	if !e.OpenedAt.IsZero() {
		dst = appendTime(append(dst, `,"opened_at":`...), e.OpenedAt)
	}
	if s := e.OpenSeconds; s != nil && !math.IsNaN(*s) && !math.IsInf(*s, 0) {
		dst = appendFloat(append(dst, `,"open_seconds":`...), *s)
	}
	dst = appendKnown(dst, `,"change":`, string(e.Change))
	dst = appendKnown(dst, `,"previous_exposure":`, string(e.PreviousExposure))
	dst = appendTexts(dst, `,"previous_published":[`, e.PreviousPublished)
	dst = appendForward(dst, `,"previous_forward":`, e.PreviousForward)
	dst = appendKnown(dst, `,"drift":`, string(e.Drift))
	if e.Ended {
		dst = append(dst, `,"ended":true`...)
	}
	dst = appendKnown(dst, `,"expected":`, e.Expected)
	dst = appendKnown(dst, `,"reason":`, e.Reason)
	if e.Lost != 0 {
		dst = strconv.AppendUint(append(dst, `,"lost":`...), e.Lost, 10)
	}
	if e.Burst != nil {
		dst = appendBurst(dst, e.Burst)
	}
	return append(dst, '}')
}

// AppendOpen appends the JSON object of an open endpoint to dst, as [AppendJSON] does.
func AppendOpen(dst []byte, o *model.Open) []byte {
	dst = appendTime(append(dst, `{"time":`...), o.Time)
	dst = appendListener(dst, &o.Listener)
	dst = appendTime(append(dst, `,"opened_at":`...), o.OpenedAt)
	dst = appendKnown(dst, `,"drift":`, string(o.Drift))
	if !o.DriftSince.IsZero() {
		dst = appendTime(append(dst, `,"drift_since":`...), o.DriftSince)
	}
	return append(dst, '}')
}

func appendListener(dst []byte, l *model.Listener) []byte {
	dst = appendKnown(dst, `,"host":`, l.Host)
	if c := l.Container; c != nil {
		dst = appendContainer(append(dst, `,"container":`...), c)
	}
	dst = appendKnown(dst, `,"namespace":`, l.Namespace)
	if l.Protocol != 0 {
		dst = appendText(dst, `,"protocol":`, l.Protocol.String())
	}
	if l.Address != (netip.Addr{}) {
		dst = appendAddress(append(dst, `,"address":`...), l.Address)
	}
	if l.IPv6Only {
		dst = append(dst, `,"ipv6_only":true`...)
	}
	if l.Port != 0 {
		dst = strconv.AppendUint(append(dst, `,"port":`...), uint64(l.Port), 10)
	}
	for i := range l.Processes {
		dst = appendProcess(append(dst, before(i, `,"processes":[`)...), &l.Processes[i])
	}
	if len(l.Processes) > 0 {
		dst = append(dst, ']')
	}
	dst = appendKnown(dst, `,"exposure":`, string(l.Exposure))
	dst = appendTexts(dst, `,"published":[`, l.Published)
	if l.Outside != nil {
		dst = strconv.AppendBool(append(dst, `,"outside":`...), *l.Outside)
	}
	dst = appendForward(dst, `,"forward":`, l.Forward)
	return appendKnown(dst, `,"source":`, string(l.Source))
}

func appendContainer(dst []byte, c *model.ContainerRef) []byte {
	dst = append(dst, '{')
	if c.ID != "" {
		dst = append(appendText(dst, `"id":`, c.ID), ',')
	}
	dst = appendText(dst, `"name":`, c.Name)
	dst = appendKnown(dst, `,"image":`, c.Image)
	dst = appendKnown(dst, `,"project":`, c.Project)
	dst = appendKnown(dst, `,"service":`, c.Service)
	return append(dst, '}')
}

func appendForward(dst []byte, name string, f *model.Forward) []byte {
	if f == nil {
		return dst
	}
	dst = appendContainer(append(append(dst, name...), `{"container":`...), &f.Container)
	dst = strconv.AppendUint(append(dst, `,"port":`...), uint64(f.Port), 10)
	dst = strconv.AppendBool(append(dst, `,"engine":`...), f.Engine)
	return append(dst, '}')
}

// appendTexts appends an array; first is what precedes its first element. It appends nothing
// where the array is empty.
func appendTexts(dst []byte, first string, texts []string) []byte {
	if len(texts) == 0 {
		return dst
	}
	for i, text := range texts {
		dst = appendText(dst, before(i, first), text)
	}
	return append(dst, ']')
}

// before returns what precedes an element of an array.
func before(index int, first string) string {
	if index == 0 {
		return first
	}
	return ","
}

func appendProcess(dst []byte, p *model.Process) []byte {
	dst = strconv.AppendInt(append(dst, `{"pid":`...), int64(p.PID), 10)
	if p.ContainerPID != 0 {
		dst = strconv.AppendInt(append(dst, `,"container_pid":`...), int64(p.ContainerPID), 10)
	}
	dst = appendKnown(dst, `,"name":`, p.Name)
	dst = appendKnown(dst, `,"executable":`, p.Executable)
	dst = appendKnown(dst, `,"arguments":`, p.Arguments)
	if p.UID != nil {
		dst = strconv.AppendUint(append(dst, `,"uid":`...), uint64(*p.UID), 10)
	}
	return append(dst, '}')
}

func appendBurst(dst []byte, b *model.Burst) []byte {
	dst = strconv.AppendUint(append(dst, `,"opened":`...), b.Opened, 10)
	dst = strconv.AppendUint(append(dst, `,"closed":`...), b.Closed, 10)
	dst = appendTime(append(dst, `,"first":`...), b.First)
	dst = appendTime(append(dst, `,"last":`...), b.Last)
	for i, number := range b.Ports {
		dst = strconv.AppendUint(append(dst, before(i, `,"ports":[`)...), uint64(number), 10)
	}
	if len(b.Ports) > 0 {
		dst = append(dst, ']')
	}
	return strconv.AppendInt(append(dst, `,"port_count":`...), int64(b.PortCount), 10)
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = t.AppendFormat(append(dst, '"'), time.RFC3339Nano)
	return append(dst, '"')
}

func appendAddress(dst []byte, a netip.Addr) []byte {
	if a.Zone() != "" { // free text
		return appendString(dst, a.String())
	}
	return append(a.AppendTo(append(dst, '"')), '"')
}

// appendFloat leaves the rare number with an exponent to encoding/json.
func appendFloat(dst []byte, f float64) []byte {
	if size := math.Abs(f); size == 0 || size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	text, _ := json.Marshal(f) // a finite number always encodes
	return append(dst, text...)
}

func appendKnown(dst []byte, name, s string) []byte {
	if s == "" {
		return dst
	}
	return appendText(dst, name, s)
}

func appendText(dst []byte, name, s string) []byte {
	return appendString(append(dst, name...), s)
}

func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return appendEscaped(dst, s)
		}
	}
	dst = append(append(dst, '"'), s...)
	return append(dst, '"')
}

// appendEscaped leaves the rare text that needs escapes to encoding/json.
func appendEscaped(dst []byte, s string) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string always encodes
	return append(dst, EscapeMarks(bytes.TrimSuffix(text.Bytes(), []byte{'\n'}))...)
}
