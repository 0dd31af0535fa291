package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/port"
	"portwatcher/internal/probe"
	"portwatcher/internal/process"
)

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
