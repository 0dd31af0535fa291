package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/probe"
	"portwatcher/internal/process"
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/tracker"
)

// fakeProbe tells what the test says.
type fakeProbe struct {
	events chan probe.Event
	flush  chan struct{}
	held   chan probe.Event // read only by a flush, before its end
	closed chan struct{}
	lost   atomic.Uint64
	behind atomic.Bool // a flush is not answered
}

func newFakeProbe() *fakeProbe {
	return &fakeProbe{events: make(chan probe.Event), flush: make(chan struct{}, 1), held: make(chan probe.Event, 8), closed: make(chan struct{})}
}

func (p *fakeProbe) Read(e *probe.Event) error {
	select {
	case *e = <-p.events:
		if e.Kind == 0 {
			return errors.New("the ring is broken")
		}
		return nil
	case <-p.flush:
		select {
		case *e = <-p.held:
			signal(p.flush)
			return nil
		default:
			return probe.ErrFlushed
		}
	case <-p.closed:
		return os.ErrClosed
	}
}

// Flush is answered when everything that was sent before has been read: events
// has no buffer.
func (p *fakeProbe) Flush() error {
	select {
	case <-p.closed:
		return os.ErrClosed
	default:
		if !p.behind.Load() {
			signal(p.flush)
		}
		return nil
	}
}

func (p *fakeProbe) Lost() uint64 { return p.lost.Load() }
func (p *fakeProbe) Alive() error { return nil }
func (p *fakeProbe) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// startProbed runs a controller on a fake probe.
func startProbed(t *testing.T, change func(*Options)) (*rig, *fakeProbe) {
	t.Helper()
	p := newFakeProbe()
	r := start(t, func(o *Options) {
		o.Source = Auto
		o.OpenProbe = func() (Probe, error) { return p, nil }
		if change != nil {
			change(o)
		}
	})
	return r, p
}

// netnsCookie asks for the number of the box's namespace in eBPF events.
func (b *box) netnsCookie() uint64 {
	b.t.Helper()
	handle, err := netns.Open("/proc", b.Process.Pid)
	if err != nil {
		b.t.Fatal(err)
	}
	defer handle.Close()
	conn, err := sockdiag.Dial(handle.FD(), sockdiag.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	cookie, err := netnsCookie(conn)
	if err != nil {
		kerneltest.Skip(b.t, "the kernel has no namespace cookies: "+err.Error())
	}
	return cookie
}

func tell(b *box, netns uint64, kind probe.Kind, cookie uint64, number uint16) probe.Event {
	e := probe.Event{Kind: kind, Time: time.Now(), NetnsCookie: netns}
	e.Socket = port.Socket{Cookie: cookie, Protocol: port.TCP, Address: netip.IPv4Unspecified(), Port: number}
	if kind == probe.Opened {
		e.PID, e.Name = b.Process.Pid, "sleep"
	}
	return e
}

// registered waits until the box's namespace is known to the probe's reader.
func (r *rig) registered(cookie uint64) {
	r.t.Helper()
	kerneltest.Eventually(r.t, "the namespace is registered", func() bool {
		r.Controller.mutex.Lock()
		defer r.Controller.mutex.Unlock()
		return r.byCookie[cookie] != nil
	})
}

func TestFacts(t *testing.T) {
	r, p := startProbed(t, nil)
	b := newBox(t)
	cookie := b.netnsCookie()
	r.tell(engine.Started, b.container("web"))
	r.registered(cookie)
	p.events <- tell(b, cookie, probe.Opened, 1000001, 80)
	p.events <- tell(b, cookie, probe.Closed, 1000001, 80)
	p.events <- tell(b, cookie, probe.Opened, 1000002, 0) // listens without bind
	p.events <- tell(b, cookie, probe.Closed, 1000002, 4711)
	udp := tell(b, cookie, probe.Opened, 1000003, 5000)
	udp.Socket.Protocol, udp.Socket.AutoBound = port.UDP, true
	p.events <- udp // a client
	resolver := tell(b, cookie, probe.Opened, 1000004, 41000)
	resolver.Socket.Address = process.EngineResolver
	p.events <- resolver
	r.wait("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback ebpf",
		"opened web 4711/tcp loopback ebpf", "closed web 4711/tcp loopback ebpf")
	got := r.all()[0].Processes
	if len(got) != 1 || got[0].PID != b.Process.Pid || got[0].Name != "sleep" || got[0].Executable == "" {
		t.Errorf("processes %+v, want the box's with its executable", got)
	}
}

// A port that a dump tells, and one that stays open over a scan.
func TestFactsAndScans(t *testing.T) {
	r, p := startProbed(t, nil)
	b := newBox(t)
	cookie := b.netnsCookie()
	b.listen(80)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
	r.registered(cookie)
	r.Controller.mutex.Lock()
	sockets, err := r.onlyGroup().watcher.session.dump(nil)
	r.Controller.mutex.Unlock()
	if err != nil || len(sockets) != 1 {
		t.Fatalf("%v, error %v", sockets, err)
	}
	p.events <- tell(b, cookie, probe.Opened, sockets[0].Cookie, 80) // late news
	p.events <- tell(b, cookie, probe.Closed, sockets[0].Cookie, 80)
	r.wait("opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback ebpf")
}

// A scan that sees a socket before eBPF's event of it has been read waits for
// that.
func TestFactsBeforeTheScan(t *testing.T) {
	r, p := startProbed(t, nil)
	b := newBox(t)
	cookie := b.netnsCookie()
	r.tell(engine.Started, b.container("web"))
	r.registered(cookie)
	r.Controller.mutex.Lock()
	first := r.onlyGroup().watcher.first
	r.Controller.mutex.Unlock()
	<-first
	b.listen(80)
	r.Controller.mutex.Lock()
	sockets, err := r.onlyGroup().watcher.session.dump(nil)
	r.Controller.mutex.Unlock()
	if err != nil || len(sockets) != 1 {
		t.Fatalf("%v, error %v", sockets, err)
	}
	p.held <- tell(b, cookie, probe.Opened, sockets[0].Cookie, 80)
	r.scanAll()
	r.wait("opened web 80/tcp loopback ebpf")
}

// In a storm, where eBPF's events wait long, a scan is put off.
func TestScanIsPutOff(t *testing.T) {
	r, p := startProbed(t, nil)
	b := newBox(t)
	cookie := b.netnsCookie()
	r.tell(engine.Started, b.container("web"))
	r.registered(cookie)
	r.Controller.mutex.Lock()
	first, facts := r.onlyGroup().watcher.first, r.facts
	r.Controller.mutex.Unlock()
	<-first
	p.behind.Store(true)
	b.listen(80)
	r.Controller.mutex.Lock()
	sockets, err := r.onlyGroup().watcher.session.dump(nil)
	r.Controller.mutex.Unlock()
	if err != nil || len(sockets) != 1 {
		t.Fatalf("%v, error %v", sockets, err)
	}
	p.held <- tell(b, cookie, probe.Opened, sockets[0].Cookie, 80)
	r.scanAll()
	kerneltest.Eventually(t, "the namespace is scanned again", func() bool {
		facts.mutex.Lock()
		defer facts.mutex.Unlock()
		return len(facts.flushes.next) > 0
	})
	r.wait() // nothing so far
	p.behind.Store(false)
	signal(p.flush)
	r.wait("opened web 80/tcp loopback ebpf")
}

// cgroups makes a cgroup v2 folder for a container, and returns its id.
func cgroupOf(t *testing.T, containerID string) (*process.Cgroups, uint64) {
	t.Helper()
	c, err := process.OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		kerneltest.Skip(t, err.Error())
	}
	dir := filepath.Join(c.Root(), "portwatcher-test-"+containerID)
	if err := os.Mkdir(dir, 0o755); err != nil {
		kerneltest.Skip(t, "making a cgroup needs root: "+err.Error())
	}
	t.Cleanup(func() { os.Remove(dir) })
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return c, st.Ino
}

// waiting waits until so many facts wait for their container.
func (r *rig) waiting(count int) {
	r.t.Helper()
	kerneltest.Eventually(r.t, fmt.Sprint(count, " facts wait"), func() bool {
		r.Controller.mutex.Lock()
		defer r.Controller.mutex.Unlock()
		return len(r.pending.facts) == count
	})
}

// What a container does before the engine has announced it is kept for it.
func TestFactsBeforeTheContainer(t *testing.T) {
	b := newBox(t)
	web := b.container("web")
	web.ID = strings.Repeat(fmt.Sprintf("%08x", b.Process.Pid), 8)
	cgroups, id := cgroupOf(t, web.ID)
	r, p := startProbed(t, func(o *Options) { o.Attributor = process.NewAttributor(o.Finder, cgroups) })
	cookie := b.netnsCookie()
	opened := tell(b, cookie, probe.Opened, 1000001, 80)
	opened.Socket.Cgroup = id
	p.events <- opened
	p.events <- tell(b, cookie, probe.Closed, 1000001, 80)
	host := tell(b, cookie+1, probe.Opened, 1000002, 22) // of no container
	p.events <- host
	r.waiting(2)
	r.tell(engine.Started, web)
	r.wait("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback ebpf")
}

// A container that was gone before anyone could look at it.
func TestFactsOfAPassedContainer(t *testing.T) {
	b := newBox(t)
	gone := &port.Container{ID: strings.Repeat(fmt.Sprintf("%08x", b.Process.Pid), 8), Name: "gone"}
	cgroups, id := cgroupOf(t, gone.ID)
	r, p := startProbed(t, func(o *Options) { o.Attributor = process.NewAttributor(o.Finder, cgroups) })
	for _, number := range []uint16{80, 0} {
		e := tell(b, 99, probe.Opened, 1000001+uint64(number), number)
		e.Socket.Cgroup = id
		p.events <- e
	}
	p.events <- tell(b, 99, probe.Closed, 1000081, 80)
	p.events <- tell(b, 99, probe.Closed, 1000001, 4711)
	p.events <- tell(b, 99, probe.Closed, 7, 7)
	r.waiting(4)
	r.tell(engine.Passed, gone)
	r.wait("opened gone 80/tcp  ebpf", "closed gone 80/tcp  ebpf", "opened gone 4711/tcp  ebpf", "closed gone 4711/tcp  ebpf")
}

// An engine that comes back starts a container again before it tells of its end:
// what the new life does is not closed with the old one.
func TestFactsOfTheNextLife(t *testing.T) {
	first, second := newBox(t), newBox(t)
	web := first.container("web")
	web.ID = strings.Repeat(fmt.Sprintf("%08x", first.Process.Pid), 8)
	again := *web
	again.PID = second.Process.Pid
	cgroups, id := cgroupOf(t, web.ID)
	r, p := startProbed(t, func(o *Options) { o.Attributor = process.NewAttributor(o.Finder, cgroups) })
	r.tell(engine.Started, web)
	r.registered(first.netnsCookie())
	opened := tell(second, second.netnsCookie(), probe.Opened, 1000001, 80)
	opened.Socket.Cgroup = id
	p.events <- opened
	r.waiting(1)
	r.tell(engine.Stopped, web)
	r.tell(engine.Started, &again)
	r.wait("opened web 80/tcp loopback ebpf")
	r.tell(engine.Stopped, &again)
	r.wait("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback engine")
}

func TestLossIsAGap(t *testing.T) {
	r, p := startProbed(t, nil)
	b := newBox(t)
	cookie := b.netnsCookie()
	r.tell(engine.Started, b.container("web"))
	r.registered(cookie)
	p.lost.Store(7) // set before the reader looks, which it does after each event
	p.events <- tell(b, cookie, probe.Closed, 1, 1)
	b.listen(80)
	r.wait("gap: 7 socket events were lost: they came faster than they could be read; scanned again",
		"opened web 80/tcp loopback sock_diag")
}

// With eBPF, scans are rare: an old one does not mean that the capture is stuck.
func TestReadyWithProbe(t *testing.T) {
	r, _ := startProbed(t, nil)
	b := newBox(t)
	r.tell(engine.Started, b.container("web"))
	r.tell(engine.Synced, nil)
	r.registered(b.netnsCookie())
	kerneltest.Eventually(t, "ready", func() bool { return r.Ready() == nil })
	r.Controller.mutex.Lock()
	w := r.onlyGroup().watcher
	r.Controller.mutex.Unlock()
	<-w.first
	w.last.Store(time.Now().Add(-reconcileInterval).UnixNano())
	if err := r.Ready(); err != nil {
		t.Errorf("a reconciliation ago: %v", err)
	}
	w.last.Store(time.Now().Add(-4 * reconcileInterval).UnixNano())
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "web") {
		t.Errorf("four of them ago: %v, want an error that names the container", err)
	}
}

// A probe that breaks hands over to the scans without losing state.
func TestProbeBreaks(t *testing.T) {
	opens := 0
	p := newFakeProbe()
	r := start(t, func(o *Options) {
		o.Source = Auto
		o.OpenProbe = func() (Probe, error) {
			if opens++; opens > 1 {
				return nil, errors.New("not yet")
			}
			return p, nil
		}
	})
	b := newBox(t)
	cookie := b.netnsCookie()
	r.tell(engine.Started, b.container("web"))
	r.registered(cookie)
	closeIt := b.listen(80) // unseen: there was no event
	r.tell(engine.Synced, nil)
	p.events <- probe.Event{} // an error of Read
	const gap = "gap: eBPF has stopped working; sock_diag takes over"
	r.wait(gap, "opened web 80/tcp loopback sock_diag")
	if n := r.logged("eBPF has stopped working"); n != 1 {
		t.Errorf("told %d times, want once", n)
	}
	closeIt()
	r.wait(gap, "opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback sock_diag")
}

func TestProbeThatIsInsistedOn(t *testing.T) {
	failure := &probe.UnsupportedError{Feature: "BTF", Remedy: "another kernel", Err: errors.New("none")}
	r := start(t, func(o *Options) {
		o.Source = EBPF
		o.OpenProbe = func() (Probe, error) { return nil, failure }
	})
	<-r.done
	if err := r.stop(); !errors.Is(err, failure) || !strings.Contains(err.Error(), "--source ebpf") {
		t.Errorf("error %v, want %v", err, failure)
	}
}

func TestProcAlone(t *testing.T) {
	r, b := start(t, func(o *Options) { o.Source = Proc }), newBox(t)
	b.listen(80)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback proc")
	b.listen(81)()
	closeIt := b.listen(82)
	kerneltest.Eventually(t, "the second port", func() bool { return len(r.seen()) >= 2 })
	closeIt()
	kerneltest.Eventually(t, "its close", func() bool {
		seen := r.seen()
		return seen[len(seen)-1] == "closed web 82/tcp loopback proc"
	})
}

func TestCalm(t *testing.T) {
	s := calm{timer: stoppedTimer()}
	for range stormSize {
		s.count()
	}
	if !s.timer.Stop() {
		t.Error("the timer does not run after a storm began")
	}
	if s.over() {
		t.Error("over at once: the storm's first part has just been")
	}
	for range stormSize {
		s.count()
	}
	if s.over() {
		t.Error("over while it goes on")
	}
	s.count()
	if !s.over() || s.facts != 0 {
		t.Errorf("not over after a calm: %+v", s)
	}
}

func TestRate(t *testing.T) {
	var r rate
	now := time.Now()
	for i := range 2 * stormRate { // slow: never a storm
		now = now.Add(rateWindow / (stormRate / 2))
		if r.count(now); r.storm(now) {
			t.Fatalf("a storm after %d slow notifications", i+1)
		}
	}
	for range stormRate {
		now = now.Add(rateWindow / (4 * stormRate))
		r.count(now)
	}
	for range stormRate {
		now = now.Add(rateWindow / (4 * stormRate))
		r.count(now)
	}
	if !r.storm(now) {
		t.Errorf("no storm: %+v", r)
	}
	if r.storm(now.Add(2 * rateWindow)) {
		t.Error("a storm long after the last notification")
	}
}

func TestPendingBounds(t *testing.T) {
	var p pending
	now := time.Now()
	add := func(cookie uint64, at time.Time) {
		p.add(&fact{Event: probe.Event{Kind: probe.Opened, Socket: port.Socket{Cookie: cookie}}, arrived: at})
	}
	for cookie := range uint64(maxPending + 10) {
		add(cookie, now)
	}
	if len(p.facts) != maxPending || p.has(0, 9) || !p.has(0, 10) || len(p.opened) != maxPending || p.overflow != 10 {
		t.Errorf("%d facts, %d openings; want %d, the oldest gone", len(p.facts), len(p.opened), maxPending)
	}
	add(1<<40, now.Add(2*pendingTime))
	if len(p.facts) != 1 || len(p.opened) != 1 || p.overflow != 10 {
		t.Errorf("%d facts, %d openings; want the youngest alone", len(p.facts), len(p.opened))
	}
}

// A port that lived between two looks in a shared namespace: nobody knows whose
// it was, and that is told.
func TestTransientInASharedNamespace(t *testing.T) {
	r, b := start(t, func(o *Options) { o.ScanInterval = time.Hour }), newBox(t)
	first, second := b.container("first"), b.container("second")
	second.ID = strings.Repeat("1", 64)
	r.tell(engine.Started, first)
	r.tell(engine.Started, second)
	kerneltest.Eventually(t, "the namespace is watched", func() bool {
		r.Controller.mutex.Lock()
		defer r.Controller.mutex.Unlock()
		return len(r.containers) == 2 && r.onlyGroup().watcher.isFirstDone()
	})
	b.listen(80)()
	r.wait("gap: ports that opened and closed between two looks in the network namespace of first, second: 1, the last 80/tcp on 0.0.0.0; whose they were is not known")
}

func TestTransient(t *testing.T) {
	r, b := start(t, func(o *Options) { o.ScanInterval = time.Hour }), newBox(t)
	r.tell(engine.Started, b.container("web"))
	kerneltest.Eventually(t, "the namespace is watched", func() bool {
		r.Controller.mutex.Lock()
		defer r.Controller.mutex.Unlock()
		return len(r.groups) == 1 && r.onlyGroup().watcher.isFirstDone()
	})
	b.listen(80)()
	kerneltest.Eventually(t, "the transient", func() bool { return len(r.all()) == 2 })
	for i, want := range []port.Type{port.Opened, port.Closed} {
		e := r.all()[i]
		if e.Type != want || !e.Transient || e.Port != 80 || e.Source != port.SourceDestroy || e.OpenSeconds != nil || !e.OpenedAt.IsZero() {
			t.Errorf("%+v, want a transient %s", e, want)
		}
	}
}

func (w *watcher) isFirstDone() bool {
	select {
	case <-w.first:
		return true
	default:
		return false
	}
}

// A socket closes while the dump that shows it is being attributed: it opened,
// and then it closed.
func TestCloseWhileADumpIsAttributed(t *testing.T) {
	r, b := start(t, func(o *Options) { o.ScanInterval = time.Hour }), newBox(t)
	web := b.container("web")
	r.tell(engine.Started, web)
	kerneltest.Eventually(t, "the namespace is watched", func() bool {
		r.Controller.mutex.Lock()
		defer r.Controller.mutex.Unlock()
		return len(r.groups) == 1 && r.onlyGroup().watcher.isFirstDone()
	})
	c := r.Controller
	c.mutex.Lock()
	w := r.onlyGroup().watcher
	s := port.Socket{Cookie: 1 << 40, Protocol: port.TCP, Address: netip.IPv4Unspecified(), Port: 80}
	w.inFlight, w.unknown = []port.Socket{s}, []int{0}
	c.mutex.Unlock()

	w.destroyed(w.session, &sockdiag.Destroyed{Socket: s}, time.Now())
	if n := len(r.all()); n != 0 {
		t.Errorf("%d events before the dump is applied, want none", n)
	}

	c.mutex.Lock()
	now := time.Now()
	c.publish(c.tracker.Snapshot(nil, w.group.id, tracker.Snapshot{
		Began: now, Time: now, Source: port.SourceSockDiag, Sockets: w.inFlight, New: map[int]tracker.Owner{0: {Container: web}},
	}))
	w.closeDeferred()
	w.inFlight = nil
	c.mutex.Unlock()
	r.wait("opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback sock_diag")
}
