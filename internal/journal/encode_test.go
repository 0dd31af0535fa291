package journal

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

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
	e.Namespace = pick(r, "", "", "net:[4026532281]")
	e.Protocol = pick(r, model.TCP, model.UDP, 0, 132)
	e.Address = pick(r, netip.Addr{}, netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.MustParseAddr("fe80::1%eth0"),
		netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("fe80::1").WithZone(strings.Repeat("z", 300)))
	e.IPv6Only = r.IntN(4) == 0
	e.Port = uint16(r.Uint32())
	for range r.IntN(4) {
		uid := pick(r, 0, 1000, uint32(math.MaxUint32))
		p := model.Process{PID: int(int32(r.Uint32())), ContainerPID: r.IntN(100), Name: pick(r, "", "nginx", "a b\n"), Executable: pick(r, "", "/usr/sbin/nginx"), Arguments: pick(r, "", "-g \"daemon off;\"")}
		if r.IntN(3) > 0 {
			p.UID = &uid
		}
		e.Processes = append(e.Processes, p)
	}
	exposures := []model.Exposure{"", model.Loopback, model.Network, model.Lan, model.Published, model.Host, "world"}
	e.Source = pick(r, "", model.SourceEBPF, model.SourceSockDiag, model.SourceDestroy, model.SourceProc, model.SourceEngine, model.SourceRestart, "telepathy")
	published := func() (all []string) {
		for range r.IntN(3) {
			all = append(all, pick(r, "", "0.0.0.0:8080", "[::]:8080", "127.0.0.1:81"))
		}
		return all
	}
	e.SetReach(pick(r, exposures...), published())
	if e.Type == model.Changed {
		if e.Change = pick(r, model.ChangeProcess, model.ChangeExposure); e.Change == model.ChangeExposure {
			e.PreviousExposure, e.PreviousPublished = pick(r, exposures...), published()
		}
	}
	if e.Type == model.Closed && r.IntN(2) == 0 {
		e.OpenedAt = randomTime(r)
		e.OpenSeconds = openSeconds(e)
	}
	if r.IntN(3) == 0 {
		seconds := r.ExpFloat64()
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

func asJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("%+v: %v", value, err)
	}
	return string(text)
}

// FuzzSchema1 checks that damaged rows of schema 1 are an error or an event, never a
// panic.
func FuzzSchema1(f *testing.F) {
	for _, seed := range []string{
		"\x06\x04\x0a\x00\x00\x01\x01", "\x80\x20\x02\x02\x00\x02\x04\x02\x50\x02", "\x10\x01\x0e\x02\x01\x01a\x00", "\x02\x101234567812345678\x02lo", "\xff\x1f",
		"", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x80\x40", "\x02\x05abcde", "\x04\x09", "\x04", "\x10\xff\xff\xff\xff\x0f", "\x00\x01",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, detail string) {
		e, err := event1(2, 6, 80, 1, 1, []byte(detail))
		if err == nil && (e.Port != 80 || len(detail) == 0) {
			t.Errorf("%q is %+v", detail, e)
		}
	})
}
