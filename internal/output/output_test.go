package output

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

func uid(n uint32) *uint32 { return &n }

func seconds(s float64) *float64 { return &s }

var opened = model.Event{
	ID: 42, Time: time.Date(2026, 11, 22, 18, 36, 28, 123456789, time.UTC), Type: model.Opened,
	Listener: model.Listener{
		Host:      "node1",
		Container: &model.ContainerRef{ID: strings.Repeat("8f", 32), Name: "web", Image: "nginx:1.27", Project: "shop", Service: "web"},
		Protocol:  model.TCP, Address: netip.MustParseAddr("0.0.0.0"), Port: 80,
		Processes: []model.Process{{PID: 1827, ContainerPID: 1, Name: "nginx", Executable: "/usr/sbin/nginx", UID: uid(0)}},
		Exposure:  model.Published, Published: []string{"0.0.0.0:8080", "[::]:8080"}, Source: model.SourceEBPF,
	},
}

// The JSON object is a contract: these lines must not change, but for added
// fields.
func TestEventJSON(t *testing.T) {
	closed := opened
	closed.ID, closed.Type, closed.OpenedAt, closed.OpenSeconds = 43, model.Closed, opened.Time, seconds(12.5)
	closed.Processes, closed.Published, closed.Exposure, closed.Source = nil, nil, model.Loopback, model.SourceEngine
	closed.Container = &model.ContainerRef{ID: "x", Name: "db"}
	ipv6Only := model.Event{ID: 45, Time: opened.Time, Type: model.Opened, Listener: model.Listener{
		Protocol: model.TCP, Address: netip.IPv6Unspecified(), IPv6Only: true, Port: 80}}
	for _, test := range []struct {
		event model.Event
		want  string
	}{
		{opened, `{"id":42,"time":"2026-11-22T18:36:28.123456789Z","type":"opened","host":"node1",` +
			`"container":{"id":"` + strings.Repeat("8f", 32) + `","name":"web","image":"nginx:1.27","project":"shop","service":"web"},` +
			`"protocol":"tcp","address":"0.0.0.0","port":80,` +
			`"processes":[{"pid":1827,"container_pid":1,"name":"nginx","executable":"/usr/sbin/nginx","uid":0}],` +
			`"exposure":"published","published":["0.0.0.0:8080","[::]:8080"],"source":"ebpf","transient":false}`},
		{ipv6Only, `{"id":45,"time":"2026-11-22T18:36:28.123456789Z","type":"opened","protocol":"tcp","address":"::","ipv6_only":true,"port":80,"transient":false}`},
		{closed, `{"id":43,"time":"2026-11-22T18:36:28.123456789Z","type":"closed","host":"node1","container":{"id":"x","name":"db"},` +
			`"protocol":"tcp","address":"0.0.0.0","port":80,"exposure":"loopback","source":"engine","transient":false,` +
			`"opened_at":"2026-11-22T18:36:28.123456789Z","open_seconds":12.5}`},
		{reached, `{"id":48,"time":"2026-11-22T18:36:28.123456789Z","type":"changed","container":{"id":"x","name":"web"},` +
			`"protocol":"tcp","address":"0.0.0.0","port":80,"exposure":"published","published":["127.0.0.1:8080"],"outside":false,` +
			`"source":"rtnetlink","transient":false,"change":"exposure","previous_exposure":"published","previous_published":["0.0.0.0:8080"]}`},
		{burst, `{"id":46,"time":"2026-11-22T18:36:40.456Z","type":"burst","host":"node1","container":{"id":"x","name":"web"},` +
			`"protocol":"tcp","address":"127.0.0.1","port":20000,"processes":[{"pid":1827,"name":"storm"}],"source":"ebpf","transient":false,` +
			`"opened":31245,"closed":31244,"first":"2026-11-22T18:36:39.456Z","last":"2026-11-22T18:36:40.456Z","ports":[20000],"port_count":1}`},
		{model.Event{ID: 47, Time: opened.Time, Type: model.Gap, Reason: "an overrun", Lost: 128},
			`{"id":47,"time":"2026-11-22T18:36:28.123456789Z","type":"gap","transient":false,"reason":"an overrun","lost":128}`},
		{model.Event{ID: 44, Time: opened.Time, Type: model.Gap, Reason: "7 events were dropped"},
			`{"id":44,"time":"2026-11-22T18:36:28.123456789Z","type":"gap","transient":false,"reason":"7 events were dropped"}`},
	} {
		if got := string(AppendEvent(nil, JSON, &test.event)); got != test.want+"\n" {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

// reached is a change of the exposure.
var reached = func() model.Event {
	e := model.Event{ID: 48, Time: opened.Time, Type: model.Changed, Change: model.ChangeExposure, PreviousExposure: model.Published, PreviousPublished: []string{"0.0.0.0:8080"}}
	e.Listener = model.Listener{Container: &model.ContainerRef{ID: "x", Name: "web"}, Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: 80, Source: model.SourceRTNetlink}
	e.SetReach(model.Published, []string{"127.0.0.1:8080"})
	return e
}()

func TestEventText(t *testing.T) {
	with := func(change func(e *model.Event)) *model.Event {
		e := opened
		change(&e)
		return &e
	}
	for _, test := range []struct {
		name  string
		event *model.Event
		want  string
	}{
		{"opened", &opened, "2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on 0.0.0.0 (pids: 1827 nginx) published at 0.0.0.0:8080, [::]:8080"},
		{"closed", with(func(e *model.Event) { e.Type, e.OpenSeconds = model.Closed, seconds(12.34) }),
			"2026-11-22T18:36:28.123Z web: Port closed: 80/tcp on 0.0.0.0 (last pids: 1827 nginx) after 12.3s"},
		{"changed", with(func(e *model.Event) { e.Type, e.Exposure = model.Changed, model.Network }),
			"2026-11-22T18:36:28.123Z web: Port changed owner: 80/tcp on 0.0.0.0 (pids: 1827 nginx)"},
		{"another exposure", &reached,
			"2026-11-22T18:36:28.123Z web: Port changed exposure: 80/tcp on 0.0.0.0 is now published at 127.0.0.1:8080, and was published at 0.0.0.0:8080"},
		{"lan", with(func(e *model.Event) { e.Exposure, e.Processes = model.Lan, nil }),
			"2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on 0.0.0.0 reachable from other machines"},
		{"IPv6 only", with(func(e *model.Event) { e.Address, e.IPv6Only, e.Exposure = netip.IPv6Unspecified(), true, model.Network }),
			"2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on :: (IPv6 only) (pids: 1827 nginx)"},
		{"dual stack", with(func(e *model.Event) { e.Address, e.Exposure = netip.IPv6Unspecified(), model.Network }),
			"2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on :: (pids: 1827 nginx)"},
		{"unexpected", with(func(e *model.Event) { e.Drift, e.Exposure, e.Processes = model.DriftUnexpected, model.Loopback, nil }),
			"2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on 0.0.0.0 loopback only [drift: unexpected]"},
		{"unexpected since the reload", with(func(e *model.Event) {
			e.Type, e.Drift, e.Reason = model.Drifted, model.DriftUnexpected, "the expectations changed"
		}), "2026-11-22T18:36:28.123Z web: Drift began: 80/tcp on 0.0.0.0 is not expected, and is open with exposure published at 0.0.0.0:8080, [::]:8080 (the expectations changed)"},
		{"missing", with(func(e *model.Event) {
			e.Type, e.Drift, e.Listener = model.Drifted, model.DriftMissing, model.Listener{Container: e.Container, Protocol: model.TCP, Port: 5432}
		}), "2026-11-22T18:36:28.123Z web: Drift began: 5432/tcp is required, and is not open"},
		{"wider ended", with(func(e *model.Event) { e.Type, e.Drift, e.Ended = model.Drifted, model.DriftWider, true }),
			"2026-11-22T18:36:28.123Z web: Drift ended: 80/tcp on 0.0.0.0 can be reached from further than expected: published at 0.0.0.0:8080, [::]:8080"},
		{"another program", with(func(e *model.Event) { e.Type, e.Drift = model.Drifted, model.DriftProcess }),
			"2026-11-22T18:36:28.123Z web: Drift began: 80/tcp on 0.0.0.0 is held by another program than expected (pids: 1827 nginx)"},
		{"uncovered", with(func(e *model.Event) {
			e.Type, e.Drift, e.Listener = model.Drifted, model.DriftUncovered, model.Listener{Container: e.Container}
		}), "2026-11-22T18:36:28.123Z web: Drift began: no expectation covers the container"},
		{"gap", with(func(e *model.Event) { e.Type, e.Container, e.Reason = model.Gap, nil, "overrun" }),
			"2026-11-22T18:36:28.123Z Gap: overrun"},
		{"gap with a number", with(func(e *model.Event) { e.Type, e.Reason, e.Lost = model.Gap, "overrun", 128 }),
			"2026-11-22T18:36:28.123Z web: Gap: overrun (lost 128 openings and closings)"},
		{"burst of one port", &burst,
			"2026-11-22T18:36:40.456Z web: Burst: 31245 ports opened and 31244 closed within 1.0s: 20000/tcp on 127.0.0.1 (pids: 1827 storm)"},
		{"transient without processes", with(func(e *model.Event) { e.Transient, e.Processes, e.Exposure = true, nil, model.Loopback }),
			"2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on 0.0.0.0 loopback only [transient]"},
		{"control characters", with(func(e *model.Event) {
			e.Processes = []model.Process{{PID: 1, Name: "a\x1b[2Jb\nc"}, {PID: 2}}
			e.Exposure = model.Host
		}), "2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on 0.0.0.0 (pids: 1 a?[2Jb?c, 2) on the host's network"},
		{"namespace", with(func(e *model.Event) { e.Namespace, e.Exposure = "net:[4026532281]", model.Loopback }),
			"2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on 0.0.0.0 in net:[4026532281] (pids: 1827 nginx) loopback only"},
		{"names that mean nothing", with(func(e *model.Event) {
			e.Processes = []model.Process{
				{PID: 1, Name: "MainThread", Executable: "/usr/bin/python3.11", Arguments: "a.py"}, {PID: 2, Executable: "/bin/a"},
				{PID: 3, Name: "containerd-shim", Executable: "/usr/bin/containerd-shim-runc-v2"}, {PID: 4, Name: "a", Executable: "b\n"},
			}
		}), "2026-11-22T18:36:28.123Z web: New port opened: 80/tcp on 0.0.0.0 (pids: 1 MainThread (python3.11), 2 (a), 3 containerd-shim, 4 a (b?)) published at 0.0.0.0:8080, [::]:8080"},
	} {
		if got := eventText(test.event); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestBurstText(t *testing.T) {
	for _, test := range []struct {
		change func(e *model.Event, b *model.Burst)
		want   string
	}{
		{func(e *model.Event, b *model.Burst) {
			e.Port, b.Ports, b.PortCount = 0, []uint16{20000, 20003, 20911}, 3
		},
			"31245 ports opened and 31244 closed within 1.0s: 3 ports, 20000 to 20911, tcp on 127.0.0.1"},
		{func(e *model.Event, b *model.Burst) { e.Port, b.Ports, b.PortCount = 0, []uint16{20000, 20911}, 64 },
			"31245 ports opened and 31244 closed within 1.0s: 64 ports or more, among them 20000 to 20911, tcp on 127.0.0.1"},
		{func(e *model.Event, b *model.Burst) {
			e.Port, e.Protocol, e.Address, b.Ports = 0, 0, netip.Addr{}, nil
			b.PortCount, b.Opened, b.First = 5, 1, b.Last
		}, "1 port opened and 31244 closed within less than 0.1ms: 5 ports or more"},
		{func(e *model.Event, b *model.Burst) { e.Protocol = 0 }, "31245 ports opened and 31244 closed within 1.0s: 20000 on 127.0.0.1"},
		{func(e *model.Event, b *model.Burst) { e.Port, b.Ports, b.PortCount = 0, nil, 0 },
			"31245 ports opened and 31244 closed within 1.0s: tcp on 127.0.0.1"},
		{func(e *model.Event, b *model.Burst) { *e, *b = model.Event{}, model.Burst{} }, "ports opened and closed"},
		{func(e *model.Event, b *model.Burst) { *e, *b = model.Event{Burst: b}, model.Burst{} }, "0 ports opened and 0 closed"},
	} {
		e, counts := burst, *burst.Burst
		e.Burst = &counts
		test.change(&e, &counts)
		if got := BurstText(&e); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
	if got, want := GapText(&model.Event{Reason: "overrun\n", Lost: 1}), "overrun? (lost 1 opening or closing)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDurationText(t *testing.T) {
	for s, want := range map[float64]string{0: "less than 0.1ms", 0.00006: "0.1ms", 0.0505: "50.5ms", 12.34: "12.3s", 61: "1m1s", 3600: "1h0m", 93780: "26h3m"} {
		if got := DurationText(s); got != want {
			t.Errorf("%v s: %q, want %q", s, got, want)
		}
	}
}

func open(name string, number uint16, address string, exposure model.Exposure, pids ...int) model.Open {
	o := model.Open{Time: opened.Time, OpenedAt: opened.Time, Listener: model.Listener{
		Container: &model.ContainerRef{ID: name, Name: name}, Protocol: model.TCP, Address: netip.MustParseAddr(address), Port: number, Exposure: exposure,
	}}
	for _, pid := range pids {
		o.Processes = append(o.Processes, model.Process{PID: pid, Name: "p"})
	}
	if exposure == model.Published {
		o.Published = []string{"0.0.0.0:8080"}
	}
	return o
}

func TestTable(t *testing.T) {
	list := []model.Open{
		open("db", 5432, "127.0.0.1", model.Loopback, 7),
		open("web", 80, "0.0.0.0", model.Published, 1, 2),
		open("web", 80, "::", model.Network, 2, 3, 4, 5),
		open("web", 443, "::", model.Network),
		open("web", 8443, "::", model.Network),
	}
	list[2].IPv6Only, list[4].IPv6Only = true, true
	var b bytes.Buffer
	if err := WriteOpen(&b, Text, list); err != nil {
		t.Fatal(err)
	}
	want := `
CONTAINER  PORT      ADDRESS         EXPOSURE                PROCESSES
db         5432/tcp  127.0.0.1       loopback                7 p
web        80/tcp    0.0.0.0, ::     published 0.0.0.0:8080  1 p, 2 p, 3 p and 2 more
web        443/tcp   ::              network                 -
web        8443/tcp  :: (IPv6 only)  network                 -
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	b.Reset()
	if err := WriteOpen(&b, JSON, list); err != nil {
		t.Fatal(err)
	}
	var back []model.Open
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back) != 5 || back[2].Address != list[2].Address || !back[4].IPv6Only || back[3].IPv6Only {
		t.Errorf("JSON keeps all %d rows apart: %v, error %v", len(back), back, err)
	}
}

func TestEmptyList(t *testing.T) {
	var b bytes.Buffer
	if err := WriteOpen(&b, JSON, nil); err != nil || b.String() != "[]\n" {
		t.Errorf("%q, error %v; want an empty array", b.String(), err)
	}
}
