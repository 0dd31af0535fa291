package capture

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/source"
	"portwatcher/internal/testutil/kernel"
)

const ebpf80 = "opened web 80/tcp loopback ebpf"

func tcp(cookie uint64, number uint16) model.Socket {
	return model.Socket{Cookie: cookie, Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: number}
}

// dumped returns the one socket that a dump of a box shows.
func dumped(t *testing.T, b *kernel.Box) model.Socket {
	t.Helper()
	var sockets []model.Socket
	b.Do(func() error {
		own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(own)
		conn, err := sockdiag.Dial(own, sockdiag.Options{})
		if err != nil {
			return err
		}
		sockets, err = conn.Dump(nil)
		return errors.Join(err, conn.Close())
	})
	if len(sockets) != 1 {
		t.Fatalf("a dump shows %v, want one socket", sockets)
	}
	return sockets[0]
}

func TestProbedRun(t *testing.T) {
	l, p, b, netns := startProbedBox(t)
	opened := event(b, netns, probe.Opened, tcp(1000001, 80))
	p.events <- opened
	p.events <- event(b, netns, probe.Closed, tcp(1000001, 80))
	l.await(ebpf80, "closed web 80/tcp loopback ebpf")
	if got := l.out.events()[0].Processes; len(got) != 1 || got[0].PID != b.Process.Pid || got[0].Name != "sleep" || got[0].Executable == "" {
		t.Errorf("processes %+v, want the box's with its executable", got)
	}
	l.report(engine.Synced, nil)
	kernel.Eventually(t, "ready", func() bool { return l.Ready() == nil })
	if s := l.Status(); !s.Source.EBPF {
		t.Errorf("sources %+v", s.Source)
	}
}

// What eBPF counted is a burst of the container, without a fact.
func TestProbedCounts(t *testing.T) {
	l, p, b, netns := startProbedBox(t)
	socket := tcp(1000001, 80)
	now := event(b, netns, probe.Opened, socket).Time
	p.counts <- []probe.Count{{
		NetnsCookie: netns, Socket: socket, PID: b.Process.Pid, Name: "sleep", SameProcess: true, Opened: 500, Closed: 500,
		First: now, Last: now, LastOpened: now, LastClosed: now, ClosedCookie: socket.Cookie,
	}}
	p.add(func(s *probe.Stats) { s.CountedOpened, s.CountedClosed = 500, 500 })
	p.events <- event(b, netns, probe.Opened, tcp(1000002, 81))
	id := boxed(b, "web").ID
	kernel.Eventually(t, "the burst", func() bool { return l.out.sumsOf(id) == (sums{opened: 501, closed: 500}) })
}

// A scan that has a socket before eBPF's event of it was read waits for that.
func TestFactsBeforeTheScan(t *testing.T) {
	l, p, b, netns := startProbedBox(t)
	b.Listen(80)
	p.held <- event(b, netns, probe.Opened, dumped(t, b))
	l.Tune(l.options.Tuning) // which scans everything
	l.await(ebpf80)
}

// In a storm, where eBPF's events wait long, a scan is put off.
func TestScanIsPutOff(t *testing.T) {
	l, p, b, netns := startProbedBox(t)
	p.behind.Store(true)
	b.Listen(80)
	p.held <- event(b, netns, probe.Opened, dumped(t, b))
	l.Tune(l.options.Tuning)
	before := l.Status().Watchers[0].LastScan
	kernel.Eventually(t, "a scan was put off", func() bool { return l.Status().Watchers[0].LastScan.After(before) })
	l.await() // nothing so far
	p.catchUp()
	l.await(ebpf80)
}

// The engine reports a container's end before all is read that eBPF reported of it.
func TestEndWaitsForFacts(t *testing.T) {
	l, p, b, netns := startProbedBox(t)
	web := boxed(b, "web")
	b.Listen(80)
	p.events <- event(b, netns, probe.Opened, dumped(t, b))
	l.await(ebpf80)
	p.behind.Store(true)
	l.report(engine.Stopped, web)
	next := kernel.NewBox(t) // it starts again at once, in another namespace
	next.Listen(90)
	again := boxed(next, "web")
	again.ID = web.ID
	l.report(engine.Started, again)
	p.events <- event(b, netns, probe.Opened, tcp(1000002, 81))
	p.events <- event(b, netns, probe.Closed, tcp(1000002, 81))
	want := []string{ebpf80, "opened web 81/tcp loopback ebpf", "closed web 81/tcp loopback ebpf"}
	l.await(want...)
	p.catchUp()
	l.await(append(want, "closed web 80/tcp loopback engine", "opened web 90/tcp loopback sock_diag")...)
}

// An end that waits is an event when portwatcher stops.
func TestStopWithAnEndThatWaits(t *testing.T) {
	l, p, b, netns := startProbedBox(t)
	p.events <- event(b, netns, probe.Opened, tcp(1000001, 80))
	l.await(ebpf80)
	p.behind.Store(true)
	l.report(engine.Stopped, boxed(b, "web"))
	l.report(engine.Synced, nil) // the end was taken before this
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	lines := l.lines()
	if lines[len(lines)-1] != "closed web 80/tcp loopback engine" {
		t.Errorf("events %q, want the close last", lines)
	}
}

// A probe that breaks hands over to the scans without losing state.
func TestProbeThatBreaks(t *testing.T) {
	var opens atomic.Int32
	p := newFakeProbe()
	l := start(t, func(o *Options) {
		o.OpenProbe = func() (source.Probe, error) {
			if opens.Add(1) > 1 {
				return nil, errors.New("not yet")
			}
			return p, nil
		}
	})
	b := kernel.NewBox(t)
	l.report(engine.Started, boxed(b, "web"))
	l.watched(model.SourceEBPF)
	closeIt := b.Listen(80)   // without an event
	p.events <- probe.Event{} // an error of Read
	const gap = "gap 0: eBPF has stopped working; portwatcher uses sock_diag"
	l.await(gap, opened80)
	closeIt()
	l.await(gap, opened80, "closed web 80/tcp loopback sock_diag")
}

func TestProbeThatIsInsistedOn(t *testing.T) {
	failure := &probe.UnsupportedError{Feature: "BTF", Remedy: "another kernel", Err: errors.New("none")}
	l := start(t, func(o *Options) {
		o.Mode = source.EBPF
		o.OpenProbe = func() (source.Probe, error) { return nil, failure }
	})
	<-l.done
	if err := l.stop(); !errors.Is(err, failure) {
		t.Errorf("error %v, want %v", err, failure)
	}
	if l.Ready() == nil { // who asks gets an answer
		t.Error("ready")
	}
}
