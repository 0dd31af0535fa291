package capture

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

// crowd reports that the sink has no room for more than what is forced.
func (r *rig) crowd(crowded bool) { r.out.set(false, crowded) }

// burst returns the only burst.
func (r *rig) burst() *model.Event {
	r.t.Helper()
	var found []*model.Event
	for _, e := range r.out.events() {
		if e.Type == model.Bursts {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		r.t.Fatalf("%d bursts, want one: %q", len(found), r.out.lines())
	}
	return found[0]
}

// A sink without room makes the capture count. What is open in the end and was not
// before, or the other way round, is an event of its own.
func TestFold(t *testing.T) {
	r := newRig(t, nil)
	web, mate := r.run("web", 1), r.run("mate", 2)
	before, _ := r.openedAndClosed(1, 80)
	closes, closesLater := r.openedAndClosed(1, 79)
	r.facts(before, closes)
	r.crowd(true)
	for range 10 {
		opened, closed := r.openedAndClosed(1, 81)
		r.facts(opened, closed)
	}
	stays, _ := r.openedAndClosed(1, 82)
	r.facts(stays, closesLater)
	again := r.fact(probe.Closed, 1, before.Socket)
	reopened, _ := r.openedAndClosed(1, 80)
	r.facts(again, reopened) // 80 is open as it was before
	r.wants("opened web 80/tcp loopback ebpf", "opened web 79/tcp loopback ebpf")
	r.crowd(false)
	opened, _ := r.openedAndClosed(2, 90)
	r.facts(opened) // the neighbour is not counted
	r.flushBursts()
	r.wants("opened web 80/tcp loopback ebpf", "opened web 79/tcp loopback ebpf", "opened mate 90/tcp loopback ebpf",
		"closed web 79/tcp loopback ebpf", "opened web 82/tcp loopback ebpf", "burst web +11 -11")
	e := r.burst()
	if e.Container.ID != web.ID || e.Source != model.SourceEBPF || e.Port != 0 || e.Protocol != 0 || e.Address != netip.IPv4Unspecified() ||
		len(e.Processes) != 1 || !slices.Equal(e.Ports, []uint16{79, 80, 81, 82}) || e.PortCount != 4 {
		t.Errorf("burst %+v %+v", e, e.Burst)
	}
	if !e.First.Before(e.Last) || !e.Time.Equal(e.Last) {
		t.Errorf("first %v, last %v, time %v", e.First, e.Last, e.Time)
	}
	if got := r.out.sumsOf(mate.ID); got != (sums{opened: 1}) {
		t.Errorf("of the neighbour %+v", got)
	}
	opened, _ = r.openedAndClosed(1, 83)
	r.facts(opened) // it is listed again
	if got := r.out.lines(); got[len(got)-1] != "opened web 83/tcp loopback ebpf" {
		t.Errorf("after the burst: %q", got)
	}
	s := r.balance()
	if s["bursts"].Counted != 22 || s["bursts"].Held != 0 || s["output"].Lost != 0 {
		t.Errorf("bursts %+v, output %+v", s["bursts"], s["output"])
	}
}

// A change of what was not reported as open yet is no event: the opening has the new
// processes.
func TestChangeOfAHeldOpening(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.crowd(true)
	s := r.socket(80)
	r.scan(1, web, s)
	holdings := r.tracker.Holdings(nil, nil)
	if len(holdings) != 1 {
		t.Fatalf("%d holdings", len(holdings))
	}
	holdings[0].Processes = []model.Process{{PID: 5, Name: "worker"}}
	held := &source.Held{}
	held.Lookup.Began = r.tick()
	held.Lookup.Time, held.Lookup.Source, held.Lookup.Holdings = r.tick(), model.SourceProc, holdings
	r.do(held)
	r.wants()
	r.flushBursts()
	r.wants("opened web 80/tcp loopback sock_diag")
	if p := r.out.events()[0].Processes; len(p) != 1 || p[0].PID != 5 {
		t.Errorf("processes %+v, want the present one", p)
	}
	r.balance()
}

// The fields of a burst are set as far as all that it counts has them in common.
func TestBurstFields(t *testing.T) {
	one, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, test := range []struct {
		name      string
		change    func(*source.Count) // of the second count
		protocol  model.Protocol
		port      uint16
		address   netip.Addr
		processes int
		portCount int
	}{
		{"the same", func(*source.Count) {}, model.TCP, 80, one, 1, 1},
		{"another port", func(c *source.Count) { c.Socket.Port = 81 }, 0, 0, one, 1, 2},
		{"another protocol", func(c *source.Count) { c.Socket.Protocol = model.UDP }, 0, 0, one, 1, 1},
		{"another address", func(c *source.Count) { c.Socket.Address = other }, model.TCP, 80, netip.Addr{}, 1, 1},
		{"another process", func(c *source.Count) { c.Processes = []model.Process{{PID: 5, Name: "x"}} }, model.TCP, 80, one, 0, 1},
		{"several processes", func(c *source.Count) { c.SameProcess = false }, model.TCP, 80, one, 0, 1},
		{"the rest", func(c *source.Count) { c.Rest, c.Socket.Port, c.Socket.Address = true, 0, netip.Addr{} }, 0, 0, netip.Addr{}, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			web := r.run("web", 1)
			first, second := r.countOf(web, 1, 80, 3, 3), r.countOf(web, 1, 80, 4, 4)
			first.Socket.Address, second.Socket.Address = one, one
			test.change(&second)
			r.counted(first, second)
			r.flushBursts()
			e := r.burst()
			if e.Opened != 7 || e.Closed != 7 || e.Protocol != test.protocol || e.Port != test.port || e.Address != test.address ||
				len(e.Processes) != test.processes || e.PortCount != test.portCount || e.Transient {
				t.Errorf("burst %+v %+v", e, e.Burst)
			}
		})
	}
}

func TestBurstPorts(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	var list []source.Count
	for number := range uint16(100) {
		list = append(list, r.countOf(web, 1, 1000-number, 1, 1))
	}
	r.counted(list...)
	r.flushBursts()
	if e := r.burst(); len(e.Ports) != model.MaxBurstPorts || e.PortCount != 100 || e.Ports[0] != 901 || !slices.IsSorted(e.Ports) {
		t.Errorf("ports %v of %d", e.Ports, e.PortCount)
	}
}

// Beyond the limit of a second a container is counted, and no other is.
func TestBurstLimit(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Tuning.BurstLimit = 10 })
	web, mate := r.run("web", 1), r.run("mate", 2)
	for number := range uint16(20) {
		opened, closed := r.openedAndClosed(1, 1000+number)
		r.facts(opened, closed)
	}
	opened, closed := r.openedAndClosed(2, 80)
	r.facts(opened, closed)
	if n := len(r.out.lines()); n != 12 {
		t.Errorf("%d events, want ten and the neighbour's two", n)
	}
	r.flushBursts()
	if got := r.out.sumsOf(web.ID); got != (sums{opened: 20, closed: 20}) {
		t.Errorf("reported %+v, want 20 each", got)
	}
	if e := r.burst(); e.Opened != 15 || e.Closed != 15 {
		t.Errorf("burst %+v", e.Burst)
	}
	if got := r.out.sumsOf(mate.ID); got != (sums{opened: 1, closed: 1}) {
		t.Errorf("of the neighbour %+v", got)
	}
	r.now = r.now.Add(time.Second)
	opened, closed = r.openedAndClosed(1, 80)
	r.facts(opened, closed)
	if n := len(r.out.lines()); n != 15 {
		t.Errorf("%d events after the second is over, want two more", n)
	}
	r.balance()
}

// What was counted of a container is reported before its end.
func TestBurstAtTheEnd(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	s, _ := r.openedAndClosed(1, 80)
	r.crowd(true)
	opened, closed := r.openedAndClosed(1, 81)
	r.facts(s, opened, closed)
	r.change(engine.Stopped, web, 0)
	r.wants("opened web 80/tcp loopback ebpf", "burst web +1 -1", "closed web 80/tcp loopback engine")
	if len(r.bursts) > 0 {
		t.Error("a burst is left")
	}
	r.balance()
}

// The timer of bursts is set while something is counted, and not otherwise.
func TestBurstTimer(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.setBurstTimer()
	if r.timers.burstSet {
		t.Error("the timer is set, and nothing is counted")
	}
	r.counted(r.countOf(web, 1, 80, 1, 1))
	if r.setBurstTimer(); !r.timers.burstSet || !r.timers.burst.Stop() {
		t.Error("the timer is not set, and something is counted")
	}
}
