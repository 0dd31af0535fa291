package journal

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// randomEvent makes an event of any form, also of those that the capture
// never makes.
func randomEvent(r *rand.Rand, id uint64) *model.Event {
	e := &model.Event{ID: id, Time: randomTime(r), Type: pick(r, model.Opened, model.Closed, model.Changed, model.Gap, model.Bursts, "forgotten"), Transient: r.IntN(4) == 0}
	e.Host = pick(r, "", "node1")
	if r.IntN(5) > 0 {
		e.Container = &model.ContainerRef{
			ID: pick(r, "", strings.Repeat("ab", 32)), Name: pick(r, "", "web", "db\x00\xff"), Image: pick(r, "", "nginx:1.27"),
			Project: pick(r, "", "shop"), Service: pick(r, "", "web"),
		}
	}
	e.Protocol = pick(r, model.TCP, model.UDP, 0, 132)
	e.Address = pick(r, netip.Addr{}, netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.MustParseAddr("fe80::1%eth0"),
		netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("fe80::1").WithZone(strings.Repeat("z", 300)))
	e.IPv6Only = r.IntN(4) == 0
	e.Port = uint16(r.Uint32())
	for range r.IntN(4) {
		uid := pick(r, 0, 1000, uint32(math.MaxUint32))
		p := model.Process{PID: int(int32(r.Uint32())), ContainerPID: r.IntN(100), Name: pick(r, "", "nginx", "a b\n"), Executable: pick(r, "", "/usr/sbin/nginx")}
		if r.IntN(3) > 0 {
			p.UID = &uid
		}
		e.Processes = append(e.Processes, p)
	}
	e.Exposure = pick(r, "", model.Loopback, model.Network, model.Published, model.Host, "world")
	e.Source = pick(r, "", model.SourceEBPF, model.SourceSockDiag, model.SourceDestroy, model.SourceProc, model.SourceEngine, model.SourceRestart, "telepathy")
	for range r.IntN(3) {
		e.Published = append(e.Published, pick(r, "", "0.0.0.0:8080", "[::]:8080"))
	}
	if r.IntN(2) == 0 {
		e.OpenedAt = randomTime(r)
	}
	switch r.IntN(3) {
	case 0:
		seconds := r.ExpFloat64()
		e.OpenSeconds = &seconds
	case 1:
		seconds := max(e.Time.Sub(e.OpenedAt), 0).Seconds()
		e.OpenSeconds = &seconds
	}
	e.Reason = pick(r, "", "3 events were dropped", strings.Repeat("x", 1000))
	e.Lost = pick(r, 0, 1, uint64(math.MaxUint64))
	if r.IntN(3) == 0 {
		e.Burst = &model.Burst{Opened: r.Uint64(), Closed: pick(r, 0, uint64(31244)), First: randomTime(r), Last: randomTime(r), PortCount: r.IntN(70)}
		for range r.IntN(model.MaxBurstPorts) {
			e.Ports = append(e.Ports, uint16(r.Uint32()))
		}
	}
	return e
}

func randomTime(r *rand.Rand) time.Time {
	return pick(r, time.Time{}, earliestTime.UTC(), latestTime.UTC(), time.Unix(0, 0).UTC(), time.Unix(1_800_000_000, r.Int64N(1e9)).UTC(), time.Unix(0, r.Int64()-math.MaxInt64/2).UTC())
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func TestDetailKeepsAll(t *testing.T) {
	r := newRandom(1)
	for i := range 10_000 {
		want := randomEvent(r, uint64(i+1))
		got := &model.Event{ID: want.ID, Time: want.Time, Transient: want.Transient}
		got.Listener = model.Listener{Host: want.Host, Container: want.Container}
		err := decodeColumns(got, int64(codeOf(types, want.Type)), int64(want.Protocol), int64(want.Port), int64(codeOf(exposures, want.Exposure)))
		if err != nil {
			t.Fatal(err)
		}
		if err := decodeDetail(appendDetail(nil, want), got); err != nil {
			t.Fatalf("%s: %v", asJSON(t, want), err)
		}
		if asJSON(t, got) != asJSON(t, want) || !reflect.DeepEqual(got.Processes, want.Processes) {
			t.Fatalf("written %s\nread    %s", asJSON(t, want), asJSON(t, got))
		}
	}
}

func asJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("%+v: %v", value, err)
	}
	return string(text)
}

func TestDetailIsSmall(t *testing.T) {
	e := journaltest.New(1, 1, time.Now(), time.Millisecond).Next()
	// Fields, address, source, one process with its name and executable.
	if size, want := len(appendDetail(nil, e)), 50; size > want {
		t.Errorf("%s takes %d bytes: want at most %d", asJSON(t, e), size, want)
	}
}

func TestDetailTellsWhatIsDamaged(t *testing.T) {
	for _, test := range []struct {
		detail []byte
		want   string
	}{
		{nil, "fields: the end comes too early"},
		{[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "fields: a number is too large"},
		{[]byte{0x80, 0x40}, "fields: 0x2000 is not known"},
		{[]byte{fieldAddress, 5, 1, 2, 3, 4, 5}, "address: it has 5 bytes"},
		{[]byte{fieldAddress, 16, 1}, "address: the end comes too early"},
		{[]byte{fieldSource, 9}, "source: code 9 is not known"},
		{[]byte{fieldSource}, "source: the end comes too early"},
		{[]byte{fieldProcesses, 0xff, 0xff, 0xff, 0xff, 0x0f}, "processes: the end comes too early"},
		{[]byte{fieldProcesses, 1, 2, 2, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0}, "uid: a number is too large"},
		{[]byte{0x80, 0x20, 2, 2, 0}, "last: the end comes too early"}, // 0x1000, a burst
		{[]byte{0x80, 0x20, 2, 2, 0, 0, 0, 9}, "ports: the end comes too early"},
		{[]byte{0x80, 0x20, 2, 2, 0, 0, 0, 1, 1}, "ports: a number is too large"},
		{[]byte{0, 1}, "end: 1 bytes too many"},
	} {
		err := decodeDetail(test.detail, &model.Event{})
		if err == nil || err.Error() != test.want {
			t.Errorf("% x: %v; want %s", test.detail, err, test.want)
		}
	}
}

// FuzzDetail holds that damaged bytes are an error or an event, never a panic,
// and that what is read is written the same again.
func FuzzDetail(f *testing.F) {
	r := newRandom(2)
	for i := range 50 {
		f.Add(appendDetail(nil, randomEvent(r, uint64(i+1))))
	}
	f.Fuzz(func(t *testing.T, detail []byte) {
		e := &model.Event{ID: 1, Time: time.Unix(1_800_000_000, 0).UTC(), Type: model.Closed}
		if decodeDetail(detail, e) != nil {
			return
		}
		again := &model.Event{ID: 1, Time: e.Time, Type: model.Closed}
		if codeOf(exposures, e.Exposure) != 0 {
			again.Exposure = e.Exposure // it is in a column
		}
		if err := decodeDetail(appendDetail(nil, e), again); err != nil {
			t.Fatal(err)
		}
		// NaN is not equal to itself, and JSON has none.
		if got, want := fmt.Sprintf("%+v", plain(again)), fmt.Sprintf("%+v", plain(e)); got != want {
			t.Fatalf("read %s, written and read again %s", want, got)
		}
	})
}

// FuzzState holds that a damaged state is an error or one that has a place, and
// never a panic.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"container":{"id":"a"},"protocol":"tcp","address":"::1","port":80,"sockets":{"cookies":[1],"inodes":[2]}}`))
	f.Add([]byte(`{"container":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var state model.State
		if decodeState(text, &state) == nil {
			endpointOf(&state.Listener)
		}
	})
}

// plain is an event without pointers.
func plain(e *model.Event) any {
	seconds := -1.0
	if e.OpenSeconds != nil {
		seconds = *e.OpenSeconds
	}
	var processes []string
	for _, p := range e.Processes {
		uid := "none"
		if p.UID != nil {
			uid = fmt.Sprint(*p.UID)
		}
		processes = append(processes, fmt.Sprintf("%d %d %q %q %s", p.PID, p.ContainerPID, p.Name, p.Executable, uid))
	}
	burst := "none"
	if e.Burst != nil {
		burst = fmt.Sprintf("%+v", *e.Burst)
	}
	c := *e
	c.OpenSeconds, c.Processes, c.Burst = nil, nil, nil
	return struct {
		event     model.Event
		seconds   float64
		processes []string
		burst     string
	}{c, seconds, processes, burst}
}
