package capture

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

// stubProbe has numbers and nothing to read.
type stubProbe struct {
	mutex  sync.Mutex
	stats  probe.Stats
	limit  int
	closed chan struct{}
}

func (p *stubProbe) Read(*probe.Event) error                         { <-p.closed; return os.ErrClosed }
func (p *stubProbe) More() bool                                      { return false }
func (p *stubProbe) Flush() error                                    { return os.ErrClosed }
func (p *stubProbe) Counts(dst []probe.Count) ([]probe.Count, error) { return dst, os.ErrClosed }
func (p *stubProbe) Alive() error                                    { return nil }
func (p *stubProbe) Close() error                                    { close(p.closed); return nil }
func (p *stubProbe) Configure(limit int, _ bool) error               { p.limit = limit; return nil }
func (p *stubProbe) Stats() probe.Stats                              { p.mutex.Lock(); defer p.mutex.Unlock(); return p.stats }
func (p *stubProbe) add(f func(*probe.Stats))                        { p.mutex.Lock(); defer p.mutex.Unlock(); f(&p.stats) }

// probed has the capture use eBPF, which ends with the test.
func (r *rig) probed() *stubProbe {
	r.t.Helper()
	p := &stubProbe{closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.env.RunProbe(ctx, p, nil)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-ended
	})
	r.do(<-r.env.Inbox)
	if r.reader == nil {
		r.t.Fatal("eBPF is not used")
	}
	return p
}

func TestFacts(t *testing.T) {
	r := newRig(t, nil)
	r.run("web", 1)
	opened, closed := r.openedAndClosed(1, 80)
	r.facts(opened, closed)
	opened, closed = r.openedAndClosed(1, 4711)
	opened.Socket.Port = 0 // listens without bind
	r.facts(opened, closed)
	opened, _ = r.openedAndClosed(1, 41000)
	opened.Socket.Address = attribute.EngineResolver
	r.facts(opened)
	opened, closed = r.openedAndClosed(9, 90) // of a namespace that is nobody's
	r.facts(opened, closed)
	r.wants("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback ebpf",
		"opened web 4711/tcp loopback ebpf", "closed web 4711/tcp loopback ebpf")
	if p := r.out.events()[0].Processes; len(p) != 1 || p[0].PID != 4711 {
		t.Errorf("processes %+v", p)
	}
	if d := r.counters().Detection[model.SourceEBPF]; d.Sum <= 0 {
		t.Errorf("detection %+v, want the four durations", d)
	}
	if s := r.balance()["facts"]; s.In != 7 || s.Out != 5 || s.Dropped != 2 {
		t.Errorf("facts %+v, want 5 out and 2 dropped of 7", s)
	}
}

// What a scan has found, eBPF closes, and the other way round; neither reports twice.
func TestFactsAndScans(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	scanned := r.socket(80)
	r.scan(1, web, scanned)
	r.facts(r.fact(probe.Opened, 1, scanned)) // late
	r.facts(r.fact(probe.Closed, 1, scanned))
	r.scan(1, web, scanned) // the dump had passed that place before
	opened, _ := r.openedAndClosed(1, 81)
	r.facts(opened)
	r.scan(1, web) // it is too new for the dump to lack it
	r.scan(1, web, opened.Socket)
	r.wants("opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback ebpf", "opened web 81/tcp loopback ebpf")
	r.now = r.now.Add(time.Minute)
	r.scan(1, web)
	if got := r.out.lines()[3]; got != "closed web 81/tcp loopback sock_diag" {
		t.Errorf("a scan without the socket, a minute later: %s", got)
	}
}

// A dump shows the port of a socket that listens without bind.
func TestUnbound(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Tuning.Reported = func(_ *model.Container, _ model.Protocol, number uint16) bool { return number != 90 }
	})
	web := r.run("web", 1)
	opened, closed := r.openedAndClosed(1, 80)
	bound := opened.Socket
	opened.Socket.Port = 0
	r.facts(opened)
	r.wants()
	r.scan(1, web, bound)
	r.facts(closed)
	opened, closed = r.openedAndClosed(1, 90) // which is not reported
	opened.Socket.Port = 0
	r.facts(opened)
	r.scan(1, web, closed.Socket)
	r.facts(closed)
	r.wants("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback ebpf")
	if n := r.namespaces[model.Namespace{Inode: 1}]; len(n.unbound) > 0 {
		t.Errorf("%d sockets wait for their port", len(n.unbound))
	}
}

// A UDP socket closes as of its connect where a scan after it lacks the socket.
func TestConnect(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	opened, about := r.openedAndClosed(1, 5000)
	opened.Socket.Protocol, about.Socket.Protocol, about.Connected = model.UDP, model.UDP, true
	n := r.namespaces[model.Namespace{Inode: 1}]
	r.facts(opened, about)
	r.scan(1, web, opened.Socket) // it has not connected, or not yet
	if len(n.connecting) != 1 {
		t.Error("the connect is given up at once")
	}
	r.now = r.now.Add(2 * maxConnect)
	r.scan(1, web, opened.Socket)
	if len(n.connecting) > 0 {
		t.Error("a connect that failed is waited for")
	}
	r.wants("opened web 5000/udp loopback ebpf")
	r.question(1)
	r.wants("opened web 5000/udp loopback ebpf", "closed web 5000/udp loopback sock_diag")
}

// A snapshot that began before a connect does not decide on it.
func TestConnectAfterTheScanBegan(t *testing.T) {
	r := newRig(t, nil)
	r.run("web", 1)
	opened, about := r.openedAndClosed(1, 5000)
	opened.Socket.Protocol, about.Socket.Protocol, about.Connected = model.UDP, model.UDP, true
	r.facts(opened)
	q := &source.Scan{Watcher: r.watcher(1)}
	q.Snapshot.Began = r.tick()
	about.Time = r.tick()
	q.Snapshot.Time, q.Snapshot.Source = r.tick(), model.SourceSockDiag
	r.facts(about)
	r.do(q)
	r.wants("opened web 5000/udp loopback ebpf")
	r.question(1)
	r.wants("opened web 5000/udp loopback ebpf", "closed web 5000/udp loopback ebpf")
	if e := r.out.events()[1]; e.Time.Sub(r.wall.Time(about.Time)).Abs() > time.Microsecond {
		t.Errorf("closed at %v, want the moment of the connect, %v", e.Time, r.wall.Time(about.Time))
	}
}

// Where facts were lost, a close makes known a port by itself; otherwise it does not.
func TestCloseAfterLoss(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	lone := func(number uint16) {
		_, closed := r.openedAndClosed(1, number)
		r.facts(closed)
	}
	lone(80)
	r.do(source.Loss{Count: 7})
	lone(82)
	r.now = r.now.Add(2 * lossTime)
	lone(83)
	lost := "gap 7: socket events were lost: there was no room left to record or to count them; all namespaces are scanned again"
	r.wants(lost, "opened web 82/tcp loopback ebpf", "closed web 82/tcp loopback ebpf")
	for _, e := range r.out.events()[1:] {
		if !e.Transient || !e.OpenedAt.IsZero() || e.OpenSeconds != nil || e.Container.ID != web.ID {
			t.Errorf("%+v, want a transient, without the time of its opening", e)
		}
	}
	if s := r.Capture.status(); s.Gaps != 1 || s.Overruns != 1 {
		t.Errorf("%d gaps, %d overruns, want one each", s.Gaps, s.Overruns)
	}
}

// eBPF that breaks hands over to the scans without losing what is known.
func TestProbeBreaks(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Tuning.BurstLimit = 5 })
	p := r.probed()
	if !r.env.Settings.Load().Exact || p.limit != 5 {
		t.Errorf("settings %+v, burst limit %d; want eBPF and 5", r.env.Settings.Load(), p.limit)
	}
	web := r.run("web", 1)
	if s := r.sourceOf(r.namespaces[model.Namespace{Inode: 1}]); s != model.SourceEBPF {
		t.Errorf("source %s", s)
	}
	opened, _ := r.openedAndClosed(1, 80)
	r.facts(opened)
	p.add(func(s *probe.Stats) { s.Opened++ })
	r.do(source.ProbeState{Err: errors.New("it is gone")})
	r.now = r.now.Add(time.Minute)
	r.scan(1, web)
	gap := "gap 0: eBPF has stopped working; portwatcher uses sock_diag"
	r.wants("opened web 80/tcp loopback ebpf", gap, "closed web 80/tcp loopback sock_diag")
	if s := r.balance()["kernel"]; s.Out != 1 {
		t.Errorf("the kernel's stage is %+v, want what the reading counted that has ended", s)
	}
	if r.env.Settings.Load().Exact || r.status().Source.EBPF {
		t.Error("eBPF is in use after its end")
	}
	if n := r.logged("eBPF has stopped working"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}

// Facts that come after the end of a container or of its namespace leave nothing
// behind.
func TestFactsAfterTheEnd(t *testing.T) {
	r := newRig(t, nil)
	r.synced()
	for i := range 1000 {
		inode := uint64(i%7 + 1)
		name := "brief"
		c := r.run(name, inode)
		opened, closed := r.openedAndClosed(inode, 80)
		lateOpened, lateClosed := r.openedAndClosed(inode, 81)
		r.facts(r.of(c, opened))
		r.change(engine.Stopped, c, 0)
		r.facts(r.of(c, closed), r.of(c, lateOpened), lateClosed)
		r.do(&source.Counts{Cgroups: source.NewCgroupPaths(r.paths), List: []source.Count{
			{Count: probe.Count{NetnsCookie: netnsCookie(inode), Socket: r.socket(82), Opened: 3, Closed: 3}}}})
		if r.tracker.HasNamespace(model.Namespace{Inode: inode}) {
			t.Fatal("late facts have made the namespace again")
		}
	}
	r.now = r.now.Add(2 * pendingTime)
	r.link.connect()
	r.prunePending()
	r.tracker.Prune(r.now)
	if n := len(r.namespaces) + len(r.containers) + len(r.reaches) + len(r.byCookie) + len(r.pending.lists) + len(r.pending.opened) + len(r.tracker.Open()); n > 0 {
		t.Errorf("%d entries are left: %d namespaces, %d reaches, %d cookies, %d lists", n, len(r.namespaces), len(r.reaches), len(r.byCookie), len(r.pending.lists))
	}
	s := r.balance()
	if s["facts"].In != 4000 || s["facts"].Held != 0 || s["counts"].Held != 0 {
		t.Errorf("facts %+v, counts %+v", s["facts"], s["counts"])
	}
}

// BenchmarkFact takes an opening and its close from eBPF's facts to the sink.
func BenchmarkFact(b *testing.B) {
	t := &testing.T{}
	r := newRig(t, func(o *Options) {
		o.Sinks = []Sink{{Name: "output", Offer: func(string, Record, bool) bool { return true }}}
	})
	r.run("web", 1)
	facts := &source.Facts{}
	b.ReportAllocs()
	for b.Loop() {
		r.cookie++
		now := clock.Now()
		for _, kind := range []probe.Kind{probe.Opened, probe.Closed} {
			f := source.Fact{Event: probe.Event{Kind: kind, Time: now, NetnsCookie: netnsCookie(1), Socket: model.Socket{
				Cookie: r.cookie, Protocol: model.TCP, Address: attribute.EngineResolver.Next(), Port: 80}}}
			facts.List = append(facts.List, f)
		}
		if err := r.handle(facts); err != nil {
			b.Fatal(err)
		}
	}
}
