package capture

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

// closes hands over destroy notifications of sockets that were servers.
func (r *rig) closes(inode uint64, sockets ...model.Socket) {
	r.t.Helper()
	r.do(r.notified(inode, sockets...))
}

func (r *rig) notified(inode uint64, sockets ...model.Socket) *source.Closes {
	r.t.Helper()
	q := &source.Closes{Watcher: r.watcher(inode), Time: r.tick()}
	for _, s := range sockets {
		q.List = append(q.List, source.Close{Socket: s, Server: true})
	}
	return q
}

func TestTransient(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.closes(1, r.socket(80))
	for i, want := range []model.Type{model.Opened, model.Closed} {
		e := r.out.events()[i]
		if e.Type != want || !e.Transient || e.Port != 80 || e.Source != model.SourceDestroy || e.Container.ID != web.ID || e.OpenSeconds != nil || !e.OpenedAt.IsZero() {
			t.Errorf("%+v, want a transient %s", e, want)
		}
	}
	if s := r.balance()["notifications"]; s.In != 1 || s.Out != 1 {
		t.Errorf("notifications %+v", s)
	}
}

// Known sockets are closed once; clients' sockets, ports that are not reported and
// those of unmonitored containers are nothing.
func TestCloses(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Tuning.Reported = func(_ *model.Container, _ model.Protocol, number uint16) bool { return number != 90 }
	})
	web := r.run("web", 1)
	s, client := r.socket(80), r.socket(41000)
	r.scan(1, web, s)
	r.closes(1, s)
	q := r.notified(1, client, r.socket(90))
	q.List[0].Server = false
	r.do(q)
	r.closes(1, s) // once more, by whatever
	r.scan(1, web, s)
	r.wants("opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback destroy")
	hidden := container("hidden")
	hidden.Labels = map[string]string{"watch": "no"}
	late := r.notified(1, r.socket(81))
	r.change(engine.Stopped, web, 0)
	r.do(late) // of a watcher that was stopped
	r.wants("opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback destroy")
	if s := r.balance()["notifications"]; s.In != 5 || s.Out != 2 || s.Dropped != 3 {
		t.Errorf("notifications %+v, want 2 out and 3 dropped", s)
	}
}

// A socket that was not known closes at an endpoint that others share: it was one
// opening and one closing, and the endpoint stays open.
func TestUnknownCloseAtAnOpenEndpoint(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.scan(1, web, r.socket(80), r.socket(80))
	r.closes(1, r.socket(80), r.socket(80))
	r.flushBursts()
	r.wants("opened web 80/tcp loopback sock_diag", "burst web +2 -2")
	if e := r.burst(); e.Port != 80 || e.Source != model.SourceDestroy {
		t.Errorf("burst %+v %+v", e, e.Burst)
	}
	if got := r.out.sumsOf(web.ID); got != (sums{opened: 3, closed: 2}) {
		t.Errorf("reported %+v", got)
	}
	r.balance()
}

// A port that lived between two scans in a shared namespace: its container is not known,
// and a gap reports that, at most one a second.
func TestTransientInASharedNamespace(t *testing.T) {
	r := newRig(t, nil)
	r.run("first", 1)
	r.change(engine.Started, container("second"), 1)
	r.closes(1, r.socket(80))
	r.closes(1, r.socket(81), r.socket(82))
	gap := func(lost int, count, last string) string {
		return "gap " + string(rune('0'+lost)) + ": ports that opened and closed between two scans in the network namespace of first, second: " +
			count + ", the last " + last + " on 0.0.0.0; their containers are not known"
	}
	r.wants(gap(2, "1", "80/tcp"))
	r.now = r.now.Add(gapInterval)
	r.scan(1, nil)
	r.wants(gap(2, "1", "80/tcp"), gap(4, "2", "82/tcp"))
	r.scan(1, nil)
	if n := len(r.out.lines()); n != 2 {
		t.Errorf("%d gaps, want 2", n)
	}
	if s := r.balance()["notifications"]; s.In != 3 || s.Lost != 3 {
		t.Errorf("notifications %+v", s)
	}
}

// What waits for the end of the interval between two gaps is reported when the
// namespace, or portwatcher, ends before.
func TestDoubtAtTheEnd(t *testing.T) {
	r := newRig(t, nil)
	first, second := r.run("first", 1), container("second")
	r.change(engine.Started, second, 1)
	r.closes(1, r.socket(80))
	r.closes(1, r.socket(81), r.socket(82))
	r.change(engine.Stopped, first, 0)
	r.change(engine.Stopped, second, 0)
	if got := r.out.sumsOf(""); got.lost != 6 {
		t.Errorf("gaps stand for %d, want 6: %q", got.lost, r.out.lines())
	}
}

// Notifications that were lost are a gap with their number, of the container where there
// is one; without a number where the kernel gives none.
func TestOverrun(t *testing.T) {
	for _, test := range []struct {
		mate, number bool
	}{{false, true}, {false, false}, {true, true}} {
		r := newRig(t, nil)
		web := r.run("web", 1)
		if test.mate {
			r.change(engine.Started, container("mate"), 1)
		}
		q := r.notified(1)
		q.Overrun = true
		if test.number {
			q.Lost = 21
		}
		r.do(q)
		r.wants()
		r.scan(1, web)
		gaps := r.out.events()
		if len(gaps) != 1 || gaps[0].Type != model.Gap || gaps[0].Lost != 2*q.Lost {
			t.Fatalf("%q, want one gap of %d", r.out.lines(), 2*q.Lost)
		}
		if named := gaps[0].Container != nil && gaps[0].Container.ID == web.ID; named == test.mate {
			t.Errorf("the gap is of %+v, shared namespace: %v", gaps[0].Container, test.mate)
		}
		if without := strings.Contains(gaps[0].Reason, "how many were lost is not known"); without == test.number {
			t.Errorf("the gap reports %q, of %d", gaps[0].Reason, q.Lost)
		}
		if s := r.balance()["notifications"]; s.Lost != q.Lost {
			t.Errorf("notifications %+v", s)
		}
		if st := r.status(); st.Overruns != 1 {
			t.Errorf("%d overruns", st.Overruns)
		}
	}
}

// A socket closes while the owners of the dump that shows it are resolved: it opened
// and closed, and the dump does not open it for good.
func TestCloseWhileADumpIsAttributed(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	s := r.socket(80)
	q := r.question(1, s)
	r.closes(1, s)
	r.resolve(q, web)
	r.wants("opened web 80/tcp loopback destroy", "closed web 80/tcp loopback destroy")
	if len(r.tracker.Open()) > 0 {
		t.Error("the port is open")
	}
}

// A published port of which only loopback listens inside is reported once.
func TestPublishedPortOnLoopback(t *testing.T) {
	r := newRig(t, nil)
	web := container("web")
	web.Addresses = []netip.Addr{netip.MustParseAddr("172.17.0.2")}
	for _, number := range []uint16{80, 81, 82} {
		web.Ports = append(web.Ports, model.PublishedPort{Protocol: model.TCP, Port: number, Host: netip.AddrPortFrom(netip.IPv4Unspecified(), 8000+number)})
	}
	r.change(engine.Started, web, 1)
	r.open(1)
	nowhere, both, both2, private := r.socket(80), r.socket(81), r.socket(81), r.socket(90)
	for _, s := range []*model.Socket{&nowhere, &both, &private} {
		s.Address = netip.MustParseAddr("127.0.0.1")
	}
	r.scan(1, web, nowhere, both, both2, r.socket(82), private)
	for range 2 {
		r.do(&source.Held{Watcher: r.watcher(1)})
	}
	if n := r.logged("does not reach it"); n != 1 {
		t.Errorf("%d warnings, want one", n)
	}
	if r.logged("Port 80/tcp is published at 0.0.0.0:8080") != 1 {
		t.Error("the warning does not name port 80 and where it is published")
	}
}

// Within its close grace an endpoint that comes back was never closed.
func TestCloseGrace(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Tuning.CloseGrace = time.Hour })
	web := r.run("web", 1)
	first, firstClosed := r.openedAndClosed(1, 80)
	second, secondClosed := r.openedAndClosed(1, 80)
	r.facts(first, firstClosed)
	r.expire()
	r.facts(second)
	r.wants("opened web 80/tcp loopback ebpf")
	r.facts(secondClosed)
	r.expire()
	if next, waits := r.tracker.NextExpiry(); !waits || next.Sub(r.now) > time.Hour || next.Sub(r.now) < 59*time.Minute {
		t.Errorf("waits %v until %v", waits, next.Sub(r.now))
	}
	if !r.timers.expiry.Stop() {
		t.Error("the timer of the grace is not set")
	}
	r.wants("opened web 80/tcp loopback ebpf")
	r.tracker.SetGrace(time.Nanosecond)
	r.expire()
	r.wants("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback ebpf")
	if e := r.out.events()[1]; e.Time.Sub(r.wall.Time(secondClosed.Time)).Abs() > time.Millisecond {
		t.Errorf("closed at %v, want when it closed, %v", e.Time, r.wall.Time(secondClosed.Time))
	}
	if _, waits := r.tracker.NextExpiry(); waits {
		t.Error("something waits although nothing is closed")
	}
	r.change(engine.Stopped, web, 0)
	r.balance()
}

// A lost notification stands for an opening and a closing, but for the socket that a scan
// then finds closed.
func TestLostNotifications(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	known, other := r.socket(80), r.socket(81)
	r.scan(1, web, known, other)
	lost := r.notified(1)
	lost.Overrun, lost.Lost = true, 3
	r.do(lost)
	r.scan(1, web, other)
	gap := r.out.events()[len(r.out.events())-1]
	if gap.Type != model.Gap || gap.Lost != 4 || gap.Container == nil || gap.Container.Name != "web" {
		t.Errorf("the last event is %+v; want a gap of 4 in web", gap)
	}
	// All that was lost is of a known socket.
	lost = r.notified(1)
	lost.Overrun, lost.Lost = true, 1
	r.do(lost)
	before := len(r.out.events())
	r.scan(1, web)
	if after := r.out.events()[before:]; len(after) != 1 || after[0].Type != model.Closed {
		t.Errorf("%+v; want the closing of 81 alone", after)
	}
	// The scan found it before the kernel reported the loss, and a round came between.
	r.scan(1, web, r.socket(82))
	r.scan(1, web)
	r.now = r.now.Add(overrunTime + time.Second)
	r.reportOverruns()
	lost = r.notified(1)
	lost.Overrun, lost.Lost = true, 1
	r.do(lost)
	before = len(r.out.events())
	r.scan(1, web)
	if after := r.out.events()[before:]; len(after) != 0 {
		t.Errorf("%+v; want nothing: the closing is an event", after)
	}
	// No scan comes.
	lost = r.notified(1)
	lost.Overrun, lost.Lost = true, 0
	r.do(lost)
	r.now = r.now.Add(overrunTime + time.Second)
	r.reportOverruns()
	if gap := r.out.events()[len(r.out.events())-1]; gap.Type != model.Gap || gap.Lost != 0 || !strings.Contains(gap.Reason, "not known") {
		t.Errorf("the last event is %+v; want a gap without a number", gap)
	}
	r.balance()
}
