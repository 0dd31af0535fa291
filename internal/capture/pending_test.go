package capture

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

// What a container does before the engine has announced it is kept for it.
func TestFactsBeforeTheContainer(t *testing.T) {
	r := newRig(t, nil)
	web := container("web")
	opened, closed := r.openedAndClosed(1, 80)
	host, _ := r.openedAndClosed(2, 22)      // of no container
	r.facts(r.of(web, opened), closed, host) // a close waits behind its opening, whatever is known of it
	r.counted(r.countOf(web, 1, 81, 5, 5), source.Count{Count: probe.Count{NetnsCookie: 5, Opened: 1}})
	r.wants()
	if s := r.balance(); s["facts"].Held != 2 || s["facts"].Dropped != 1 || s["counts"].Held != 10 || s["counts"].Dropped != 1 {
		t.Errorf("facts %+v, counts %+v; want 2 and 10 held, 1 and 1 dropped", s["facts"], s["counts"])
	}
	r.change(engine.Started, web, 1)
	r.wants() // its namespace's number is not known yet
	r.open(1)
	r.wants("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback ebpf")
	r.flushBursts()
	if got := r.out.sumsOf(web.ID); got != (sums{opened: 6, closed: 6}) {
		t.Errorf("reported %+v, want 6 opened and 6 closed: %q", got, r.out.lines())
	}
	if s := r.balance(); s["facts"].Held != 0 || s["facts"].Out != 2 || s["counts"].Out != 10 || len(r.pending.opened) > 0 {
		t.Errorf("facts %+v, counts %+v", s["facts"], s["counts"])
	}
}

// When portwatcher stops, what waits for the watcher of a namespace is reported.
func TestStopBeforeTheFirstSession(t *testing.T) {
	r := newRig(t, nil)
	web := container("web")
	r.change(engine.Started, web, 1)
	opened, _ := r.openedAndClosed(1, 80)
	r.facts(r.of(web, opened))
	r.counted(r.countOf(web, 1, 81, 5, 5))
	r.facts(r.of(container("stranger"), r.fact(probe.Opened, 9, r.socket(90))))
	r.wants()
	r.finish()
	r.wants("opened web 80/tcp loopback ebpf", "burst web +5 -5")
}

// A container that ended before the engine reported it, so that only eBPF observed it.
func TestFactsOfAPassedContainer(t *testing.T) {
	r := newRig(t, nil)
	gone := container("gone")
	first, firstClosed := r.openedAndClosed(99, 80)
	second, secondClosed := r.openedAndClosed(99, 4711)
	second.Socket.Port = 0
	_, unknown := r.openedAndClosed(99, 7)
	r.facts(r.of(gone, first), r.of(gone, second), firstClosed, secondClosed, unknown)
	r.counted(r.countOf(gone, 99, 81, 5, 5))
	r.change(engine.Passed, gone, 0)
	r.wants("opened gone 80/tcp  ebpf", "closed gone 80/tcp  ebpf",
		"opened gone 4711/tcp  ebpf", "closed gone 4711/tcp  ebpf", "burst gone +5 -5")
	if len(r.tracker.Open())+len(r.pending.lists) > 0 {
		t.Error("something of it is left")
	}
	if r.tracker.HasNamespace(model.Namespace{Device: model.UnseenDevice, Inode: netnsCookie(99)}) {
		t.Error("its namespace is left in the tracker")
	}
	r.balance()

	// One that is not monitored.
	hidden := container("hidden")
	hidden.Labels = map[string]string{"watch": "no"}
	third, _ := r.openedAndClosed(98, 90)
	r.facts(r.of(hidden, third))
	r.change(engine.Passed, hidden, 0)
	if n := len(r.out.lines()); n != 5 {
		t.Errorf("%q", r.out.lines()[5:])
	}
	if s := r.balance()["facts"]; s.Held != 0 || s.Dropped != 2 {
		t.Errorf("facts %+v, want two dropped: the hidden one, and the close of nobody", s)
	}
}

// An engine that comes back starts a container again before it reports its end: what
// the new life does is not closed with the old one.
func TestFactsOfTheNextLife(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	again := *web
	again.PID = 77
	opened, _ := r.openedAndClosed(2, 80)
	r.facts(r.of(web, opened))
	r.change(engine.Stopped, web, 0)
	r.wants()
	r.change(engine.Started, &again, 2)
	r.open(2)
	r.change(engine.Stopped, &again, 0)
	r.wants("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback engine")
	r.balance()
}

// More than the share of one container is counted: it is in a burst, and costs no
// other container anything.
func TestPendingOfOneContainer(t *testing.T) {
	const more = 100
	for name, finish := range map[string]func(*rig, *model.Container){
		"announced": func(r *rig, c *model.Container) {
			r.change(engine.Started, c, 1)
			r.open(1)
			r.flushBursts()
		},
		"passed": func(r *rig, c *model.Container) { r.change(engine.Passed, c, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			storm, quiet := container("storm"), container("quiet")
			for range maxPending + more {
				opened, closed := r.openedAndClosed(1, 80)
				r.facts(r.of(storm, opened), closed)
			}
			opened, closed := r.openedAndClosed(2, 90)
			r.facts(r.of(quiet, opened), closed)
			r.balance()
			finish(r, storm)
			got := r.out.sumsOf(storm.ID)
			if sum := got.opened + got.closed + got.lost; sum != 2*(maxPending+more) {
				t.Errorf("reported %+v, want %d in all", got, 2*(maxPending+more))
			}
			r.change(engine.Passed, quiet, 0)
			if got := r.out.sumsOf(quiet.ID); got != (sums{opened: 1, closed: 1}) {
				t.Errorf("of the neighbour %+v, want its two", got)
			}
			if s := r.balance(); s["facts"].Held != 0 {
				t.Errorf("facts %+v", s["facts"])
			}
		})
	}
}

// Of too many containers that the engine does not report, the one that has been silent longest
// is forgotten.
func TestPendingOfManyContainers(t *testing.T) {
	r := newRig(t, nil)
	first := container("first")
	opened, closed := r.openedAndClosed(1, 80)
	r.facts(r.of(first, opened), closed)
	for i := range maxPendingIDs {
		r.tick()
		r.pending.addFact(fmt.Sprintf("%064x", i), r.fact(probe.Opened, 5, r.socket(80)), nil, r.now)
		r.counts.ring.In++
	}
	if n := len(r.pending.lists); n != maxPendingIDs {
		t.Errorf("%d containers wait, want %d", n, maxPendingIDs)
	}
	if r.pending.lists[first.ID] != nil || r.pending.dropped != 2 {
		t.Errorf("%d are dropped, want the two of the first", r.pending.dropped)
	}
	r.balance()
	r.wants()
}

// What no container is announced for belongs to another engine: it is dropped, counted,
// and no gap. While the engine is away everything waits.
func TestStrangersAreDropped(t *testing.T) {
	r := newRig(t, nil)
	r.synced()
	stranger, web := container("stranger"), container("web")
	for _, c := range []*model.Container{stranger, web} {
		opened, closed := r.openedAndClosed(1, 80)
		r.facts(r.of(c, opened), closed)
	}
	r.counted(r.countOf(stranger, 1, 81, 5, 5))
	r.link.lose(errors.New("away"))
	r.now = r.now.Add(2 * pendingTime)
	r.prunePending()
	if n := len(r.pending.lists); n != 2 {
		t.Errorf("%d containers wait while the engine is away, want 2", n)
	}
	r.change(engine.Started, web, 1)
	r.link.connect()
	r.prunePending()
	r.open(1)
	r.wants("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback ebpf")
	s := r.balance()
	if s["facts"].Dropped+s["counts"].Dropped != 12 || s["facts"].Held+s["counts"].Held != 0 {
		t.Errorf("facts %+v, counts %+v; want the stranger's 12 dropped", s["facts"], s["counts"])
	}
}

// Another engine's containers do not wait for an announcement; where this engine's
// have the same form, they do.
func TestForeignContainers(t *testing.T) {
	r := newRig(t, nil)
	r.synced()
	path := func(c *model.Container) string { return "/machine.slice/libpod-" + c.ID + ".scope" }
	podmans, ours, next := container("podmans"), container("ours"), container("next")
	r.paths = map[uint64]string{1: path(podmans), 2: path(ours), 3: path(next)}
	fact := func(cgroup, inode uint64) source.Fact {
		f, _ := r.openedAndClosed(inode, 80)
		f.Socket.Cgroup = cgroup
		return f
	}
	for range 2 * maxPending {
		r.facts(fact(1, 5))
	}
	if len(r.pending.lists) > 0 {
		t.Error("another engine's container waits to be announced")
	}
	if s := r.balance()["facts"]; s.Dropped != 2*maxPending {
		t.Errorf("facts %+v", s)
	}
	r.wants()

	r.change(engine.Started, ours, 1)
	r.open(1)
	r.facts(fact(2, 1)) // Podman behind Docker's API
	r.facts(fact(3, 2))
	r.change(engine.Started, next, 2)
	r.open(2)
	r.wants("opened ours 80/tcp loopback ebpf", "opened next 80/tcp loopback ebpf")
}

// A container that is known and not monitored keeps nothing waiting.
func TestFactsOfUnmonitored(t *testing.T) {
	r := newRig(t, nil)
	hidden := container("hidden")
	hidden.Labels = map[string]string{"watch": "no"}
	opened, closed := r.openedAndClosed(1, 80)
	r.facts(r.of(hidden, opened), r.of(hidden, closed))
	r.counted(r.countOf(hidden, 1, 81, 5, 5))
	r.change(engine.Started, hidden, 1)
	opened, _ = r.openedAndClosed(1, 82)
	r.facts(r.of(hidden, opened))
	r.counted(r.countOf(hidden, 1, 83, 5, 5))
	r.wants()
	s := r.balance()
	if s["facts"].Dropped != 3 || s["counts"].Dropped != 20 || s["facts"].Held+s["counts"].Held != 0 || len(r.pending.lists) > 0 {
		t.Errorf("facts %+v, counts %+v; want all dropped", s["facts"], s["counts"])
	}
}

// The engine reports an end and eBPF is lost: nothing waits for ever.
func TestPendingOfALostProbe(t *testing.T) {
	r := newRig(t, nil)
	p := r.probed()
	web := container("web")
	opened, closed := r.openedAndClosed(1, 80)
	p.add(func(s *probe.Stats) { s.Opened, s.Closed = 1, 1 })
	r.facts(r.of(web, opened), closed)
	r.do(source.ProbeState{Err: errors.New("gone")})
	s := r.balance()
	lost := s["facts"].Held + s["facts"].Dropped + r.out.sumsOf("").lost
	if lost != 2 {
		t.Errorf("facts %+v and gaps %q account for %d of 2", s["facts"], strings.Join(r.out.lines(), "; "), lost)
	}
}

// Counts beyond the share of one container, as those of a long storm, are added up.
func TestPendingCounts(t *testing.T) {
	r := newRig(t, nil)
	web := container("web")
	var list []source.Count
	for i := range uint64(maxPending + 100) {
		list = append(list, r.countOf(web, 1, uint16(i+1), 2, 2))
	}
	r.counted(list...)
	if n := len(r.pending.lists[web.ID].counts); n != maxPending {
		t.Errorf("%d counts wait, want %d", n, maxPending)
	}
	r.balance()
	r.change(engine.Started, web, 1)
	r.open(1)
	r.flushBursts()
	const sum = 2 * (maxPending + 100)
	if got := r.out.sumsOf(web.ID); got != (sums{opened: sum, closed: sum}) {
		t.Errorf("reported %+v, want %d opened and closed", got, sum)
	}
	r.balance()
}

// Closes of sockets that opened before anybody watched fill nothing.
func TestPendingCloses(t *testing.T) {
	r := newRig(t, nil)
	web := container("web")
	for range 3 * maxPending {
		_, closed := r.openedAndClosed(1, 80)
		r.facts(r.of(web, closed))
	}
	if n := len(r.pending.lists[web.ID].facts); n > maxPending {
		t.Errorf("%d facts wait, want %d at most", n, maxPending)
	}
	r.balance()
}

// A container that came and went while the engine was away is never announced. Whether it
// is monitored is not known, so that what it did is a gap.
func TestContainersWhileTheEngineIsAway(t *testing.T) {
	r := newRig(t, nil)
	r.probed()
	r.synced()
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Lost, Err: errors.New("away")}})
	passing := container("passing")
	opened, closed := r.openedAndClosed(1, 80)
	r.facts(r.of(passing, opened), closed)
	r.counted(r.countOf(passing, 1, 81, 5, 5))
	r.now = r.now.Add(pendingTime / 15)
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Missed}})
	r.synced()
	r.now = r.now.Add(2 * pendingTime)
	r.prunePending()
	s := r.balance()
	if s["facts"].Lost+s["counts"].Lost != 12 || len(r.pending.lists) != 0 {
		t.Errorf("facts %+v, counts %+v; want the 12 of the container lost", s["facts"], s["counts"])
	}
	records := r.out.all()
	if len(records) != 1 {
		t.Fatalf("%d events, want one gap", len(records))
	}
	if e := records[0].Event; e.Type != model.Gap || e.Lost != 12 || e.Container != nil {
		t.Errorf("event %+v; want a gap of 12 without a container", e)
	}
}

// A socket whose opening found no room while its container was not known closes when it
// is: both are accounted for.
func TestClosingAfterOverflow(t *testing.T) {
	r := newRig(t, nil)
	storm := container("storm")
	for range maxPending / 2 {
		opened, closed := r.openedAndClosed(1, 80)
		r.facts(r.of(storm, opened), closed)
	}
	opened, closed := r.openedAndClosed(1, 80)
	seen, seenClosed := r.openedAndClosed(1, 81)
	r.facts(r.of(storm, opened), r.of(storm, seen))
	r.change(engine.Started, storm, 1)
	r.open(1)
	r.scan(1, storm, seen.Socket)
	r.facts(closed, seenClosed)
	r.flushBursts()
	if got := r.out.sumsOf(storm.ID); got != (sums{opened: maxPending/2 + 2, closed: maxPending/2 + 2}) {
		t.Errorf("reported %+v, want %d of each", got, maxPending/2+2)
	}
	if n := len(r.pending.overflowed); n != 0 {
		t.Errorf("%d sockets are still remembered", n)
	}
	r.balance()
}

// What happened in a cgroup that had ended before its path was read is in a gap, unless
// the namespace shows whose it was, or it is the host's.
func TestCgroupsThatHaveEnded(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.hostCookie = netnsCookie(9)
	r.paths[4711] = ""
	for inode, port := range map[uint64]uint16{1: 80, 2: 81, 9: 82} {
		opened, closed := r.openedAndClosed(inode, port)
		opened.Socket.Cgroup, closed.Socket.Cgroup = 4711, 4711
		r.facts(opened, closed)
	}
	_, closed := r.openedAndClosed(3, 83) // it was open before: its container ends
	closed.Socket.Cgroup = 4711
	r.facts(closed)
	r.reportUnnamed()
	if got := r.out.sumsOf(web.ID); got != (sums{opened: 1, closed: 1}) {
		t.Errorf("of web %+v, want its two", got)
	}
	if got := r.out.sumsOf(""); got != (sums{lost: 2}) {
		t.Errorf("of nobody %+v, want a gap of two", got)
	}
	r.balance()
}
