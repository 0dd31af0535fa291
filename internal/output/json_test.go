package output

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/model"
)

var burst = model.Event{
	ID: 46, Time: time.Date(2026, 11, 22, 18, 36, 40, 456000000, time.UTC), Type: model.Bursts,
	Listener: model.Listener{
		Host: "node1", Container: &model.ContainerRef{ID: "x", Name: "web"},
		Protocol: model.TCP, Address: netip.MustParseAddr("127.0.0.1"), Port: 20000,
		Processes: []model.Process{{PID: 1827, Name: "storm"}}, Source: model.SourceEBPF,
	},
	Burst: &model.Burst{
		Opened: 31245, Closed: 31244, Ports: []uint16{20000}, PortCount: 1,
		First: time.Date(2026, 11, 22, 18, 36, 39, 456000000, time.UTC), Last: time.Date(2026, 11, 22, 18, 36, 40, 456000000, time.UTC),
	},
}

// encode writes an event by encoding/json.
func encode(w io.Writer, e *model.Event) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(e)
}

// sameJSON compares with encoding/json.
func sameJSON(t *testing.T, e *model.Event) {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, e); err != nil {
		t.Fatal(err)
	}
	want := string(EscapeMarks(bytes.TrimSuffix(b.Bytes(), []byte{'\n'})))
	if got := string(AppendJSON([]byte("x"), e)); got != "x"+want {
		t.Errorf("got  %s\nwant %s", got[1:], want)
	}
}

func TestAppendJSON(t *testing.T) {
	for _, change := range []func(e *model.Event){
		func(*model.Event) {},
		func(e *model.Event) { *e = model.Event{} },
		func(e *model.Event) { *e = burst },
		func(e *model.Event) { e.Burst = &model.Burst{} },
		func(e *model.Event) { *e = reached },
		func(e *model.Event) { e.SetReach(model.Lan, nil) },
		func(e *model.Event) { e.Change, e.PreviousPublished = model.ChangeProcess, []string{"a\"", ""} },
		func(e *model.Event) {
			e.Type, e.Reason, e.Lost = model.Gap, "a\u2028<b>&\x00\x7f\x1f\b\f\n\r\t\"\\\xffé", math.MaxUint64
		},
		func(e *model.Event) { e.Namespace = "net:[4026532281]" },
		func(e *model.Event) { e.Processes = []model.Process{{PID: 1, Arguments: "a.py \"x\""}} },
		func(e *model.Event) { e.OpenSeconds, e.OpenedAt = seconds(0), time.Unix(0, 1).UTC() },
		func(e *model.Event) { e.OpenSeconds = seconds(1e-9) },
		func(e *model.Event) { e.OpenSeconds = seconds(-1.5e-10) },
		func(e *model.Event) { e.OpenSeconds = seconds(1e22) },
		func(e *model.Event) { e.Address = netip.MustParseAddr("fe80::1%a\"b") },
		func(e *model.Event) { e.Address = netip.MustParseAddr("::ffff:1.2.3.4") },
		func(e *model.Event) { e.Protocol, e.Container, e.IPv6Only, e.Transient = 99, nil, true, true },
		func(e *model.Event) { e.Drift = model.DriftWider },
		func(e *model.Event) { e.Container = &model.ContainerRef{Name: "web"} },
		func(e *model.Event) { e.Container = &model.ContainerRef{} },
		func(e *model.Event) {
			e.Type, e.Drift, e.Ended, e.Reason = model.Drifted, model.DriftMissing, true, "a"
		},
		func(e *model.Event) { e.Time = e.Time.In(time.FixedZone("", -3600)) },
	} {
		e := opened
		change(&e)
		sameJSON(t, &e)
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("web", "::1", uint64(42), int64(1_800_000_000_123_456_789), 12.5, uint16(80), uint8(6), uint8(255))
	f.Add("\xff\u2029\\\"\x01", "fe80::1%eth0", uint64(0), int64(-1), 1e-7, uint16(0), uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, text, address string, number uint64, nanoseconds int64, duration float64, portNumber uint16, protocol, set uint8) {
		has := func(bit int) bool { return set>>bit&1 != 0 }
		at := time.Unix(0, nanoseconds).UTC()
		e := model.Event{ID: number, Time: at, Type: model.Type(text), Transient: has(0), Ended: has(7), Reason: text, Lost: number >> 60}
		e.Host, e.Port, e.Protocol, e.IPv6Only = text, portNumber, model.Protocol(protocol), has(1)
		e.Address, _ = netip.ParseAddr(address) // an invalid one is left out
		if has(2) {
			e.Container = &model.ContainerRef{ID: text, Name: text, Image: text, Project: text, Service: text}
		}
		if has(3) {
			user := uint32(number)
			e.Processes = []model.Process{{PID: int(number), Name: text, UID: &user}, {ContainerPID: int(portNumber), Executable: text}}
		}
		if has(4) {
			e.Source, e.Change, e.PreviousExposure, e.PreviousPublished = model.Source(text), model.Change(text), model.Exposure(address), []string{address, text}
			e.SetReach(model.Exposure(text), []string{text, address})
		}
		if has(7) {
			e.Drift, e.Expected = model.Drift(text), text
		}
		if has(5) && !math.IsNaN(duration) && !math.IsInf(duration, 0) {
			e.OpenedAt, e.OpenSeconds = at, &duration
		}
		if has(6) {
			e.Burst = &model.Burst{Opened: number, Closed: uint64(portNumber), First: at, Last: at, PortCount: int(portNumber)}
			e.Burst.Ports = slices.Repeat([]uint16{portNumber}, int(protocol))
		}
		sameJSON(t, &e)
	})
}

// A number that is none has no form in JSON.
func TestAppendJSONLeavesOutWhatIsNoNumber(t *testing.T) {
	e := opened
	e.OpenSeconds = seconds(math.NaN())
	if got, want := string(AppendJSON(nil, &e)), string(AppendJSON(nil, &opened)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func BenchmarkJSON(b *testing.B) {
	b.Run("encoding", func(b *testing.B) {
		b.ReportAllocs()
		var w bytes.Buffer
		for b.Loop() {
			w.Reset()
			if err := encode(&w, &opened); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		var line []byte
		for b.Loop() {
			line = AppendJSON(line[:0], &opened)
		}
	})
}

// What shows nothing is escaped, and means the same.
func TestMarksAreEscaped(t *testing.T) {
	name := "evil\u202e66\u009b31m\u200b\u00ad\x7f\U000e0041אב"
	e := opened
	e.Container = &model.ContainerRef{ID: "x", Name: name, Image: name, Project: name, Service: name}
	e.Processes = []model.Process{{PID: 17766, Name: name, Executable: name}}
	line := AppendJSON(nil, &e)
	if bad := bytes.IndexFunc(line, isMark); bad >= 0 {
		t.Errorf("a raw mark is in %q", line[bad:])
	}
	if !bytes.Contains(line, []byte(`"name":"evil\u202e66\u009b31m\u200b\u00ad\u007f\udb40\udc41אב"`)) {
		t.Errorf("%s", line)
	}
	var read model.Event
	if err := json.Unmarshal(line, &read); err != nil || read.Processes[0] != e.Processes[0] || !read.Container.Same(e.Container) {
		t.Errorf("%+v, error %v", read, err)
	}
	for _, format := range []Format{Text, JSON} {
		if text := AppendEvent(nil, format, &e); bytes.ContainsFunc(bytes.TrimSuffix(text, []byte{'\n'}), isMark) {
			t.Errorf("a raw mark is in %q", text)
		}
	}
	if got, want := Visible(name), `evil\u202e66\u009b31m\u200b\u00ad\u007f\udb40\udc41אב`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
