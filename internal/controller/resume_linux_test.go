package controller

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/journal"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
)

// fakeJournal keeps what it is told.
type fakeJournal struct{ collector[journal.Record] }

func (j *fakeJournal) Offer(r journal.Record) bool { return j.offer(r) }

// state returns the last whole state, and how many there were.
func (j *fakeJournal) state() (last []port.State, count int) {
	for _, r := range j.all() {
		if r.Full {
			last = r.State
			count++
		}
	}
	return last, count
}

// described tells the records but for whole states in words.
func (j *fakeJournal) described() []string {
	var all []string
	for _, r := range j.all() {
		switch {
		case r.Forget != "":
			all = append(all, "forget")
		case r.Event != nil:
			all = append(all, fmt.Sprintf("%s %d sockets %v", r.Event.Type, r.Event.Port, r.Sockets != nil))
		}
	}
	return all
}

// remembered runs a controller on a box until it has seen these ports, and
// returns what its journal keeps then.
func remembered(t *testing.T, b *box, web *port.Container, ports int) []port.State {
	t.Helper()
	j := &fakeJournal{}
	r := start(t, func(o *Options) { o.Journal = j })
	r.tell(engine.Started, web)
	r.tell(engine.Synced, nil)
	kerneltest.Eventually(t, "all are open", func() bool { return len(r.Open()) == ports })
	r.eventually("the engine has listed all", func() bool { return r.synced })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	state, _ := j.state()
	if len(state) != ports || slices.ContainsFunc(state, func(s port.State) bool { return s.Sockets == nil }) {
		t.Fatalf("the journal keeps %+v, want %d endpoints with their sockets", state, ports)
	}
	return state
}

// again is the next start, after what remembered returned.
func again(t *testing.T, j Journal, before []port.State, change func(*Resume)) *rig {
	t.Helper()
	resume := Resume{FirstID: 1000, Again: true, SameBoot: true, Open: before}
	if change != nil {
		change(&resume)
	}
	return start(t, func(o *Options) { o.Journal, o.Resume = j, resume })
}

func TestResume(t *testing.T) {
	b := newBox(t)
	web := b.container("web")
	b.listen(80)
	closeIt := b.listen(81)
	reopen := b.listen(82)
	before := remembered(t, b, web, 3)
	closeIt()
	b.listen(83)
	reopen()
	b.listen(82)
	gone := before[0]
	gone.Container = &port.ContainerRef{ID: "gone", Name: "gone"}
	r := again(t, &fakeJournal{}, append(before, gone), func(r *Resume) { r.Gap = "away" })
	r.tell(engine.Started, web)
	want := []string{
		"gap: away", "closed web 81/tcp loopback restart", "closed web 82/tcp loopback restart",
		"opened web 82/tcp loopback restart", "opened web 83/tcp loopback restart",
	}
	r.wait(want...)
	r.tell(engine.Synced, nil)
	want = append(want, "closed gone 80/tcp loopback restart")
	r.wait(want...)
	for i, e := range r.all() {
		if e.ID != uint64(1000+i) || e.OpenSeconds != nil || e.Type == port.Closed && e.OpenedAt.IsZero() {
			t.Errorf("%d: %+v, want the next id, and no time that is not known", i, e)
		}
	}
	b.listen(84)
	r.wait(append(want, "opened web 84/tcp loopback sock_diag")...)
	if open := r.Open(); len(open) != 4 || !open[0].OpenedAt.Equal(before[0].OpenedAt) {
		t.Errorf("open are %+v, want 4, the first since %v", open, before[0].OpenedAt)
	}
}

// Sockets of another boot, or of a namespace that is not the container's any
// more, are not the same whatever their numbers.
func TestResumeWithNothingTheSame(t *testing.T) {
	for name, change := range map[string]func(*Resume){
		"booted":    func(r *Resume) { r.SameBoot = false },
		"restarted": func(r *Resume) { r.Open[0].Sockets.Namespace.Inode++ },
		"unknown":   func(r *Resume) { r.Open[0].Sockets = nil },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			web := b.container("web")
			b.listen(80)
			r := again(t, nil, remembered(t, b, web, 1), change)
			r.tell(engine.Started, web)
			r.tell(engine.Synced, nil)
			r.wait("closed web 80/tcp loopback restart", "opened web 80/tcp loopback restart")
		})
	}
}

// A container that is not monitored any more ends in the journal, and with a gap
// elsewhere; one that ends before its namespace was seen is closed.
func TestResumeWithoutAContainer(t *testing.T) {
	b := newBox(t)
	web := b.container("web")
	b.listen(80)
	before := remembered(t, b, web, 1)
	j := &fakeJournal{}
	r := again(t, j, before, nil)
	unwatched := b.container("web")
	unwatched.Labels = map[string]string{"watch": "no"}
	r.tell(engine.Started, unwatched)
	r.tell(engine.Synced, nil)
	kerneltest.Eventually(t, "the container is forgotten", func() bool { return slices.Contains(j.described(), "forget") })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r.wait(left)
	if gap := r.all()[0]; gap.Container == nil || gap.Container.ID != unwatched.ID {
		t.Errorf("the gap is of %+v, want it of the container", gap.Container)
	}

	r = again(t, nil, before, nil)
	unseen := b.container("web")
	unseen.PID = 1 << 29 // no such process
	r.tell(engine.Started, unseen)
	r.tell(engine.Stopped, unseen)
	r.wait("closed web 80/tcp loopback engine")
}

// What the journal did not take is told by a gap, and the whole state follows.
func TestFullJournal(t *testing.T) {
	j := &fakeJournal{}
	r, b := start(t, func(o *Options) { o.Journal = j }), newBox(t)
	r.tell(engine.Started, b.container("web"))
	r.tell(engine.Synced, nil)
	j.setFull(true)
	b.listen(80)
	r.wait("opened web 80/tcp loopback sock_diag")
	j.setFull(false)
	r.keepState()
	r.wait("opened web 80/tcp loopback sock_diag", "gap: 1 events are missing from the journal, which could not be written in time")
	if got, want := j.described(), []string{"gap 0 sockets false"}; !slices.Equal(got, want) {
		t.Errorf("the journal has %q, want %q", got, want)
	}
	if state, _ := j.state(); len(state) != 1 {
		t.Errorf("the journal's state is %+v, want port 80", state)
	}
	_, count := j.state()
	r.eventually("the second look is over", func() bool {
		w := r.onlyGroup().watcher
		fresh, _ := r.tracker.Fresh(nil, w.group.id, time.Time{})
		return !w.armed && len(fresh) == 0
	})
	r.keepState()
	r.keepState()
	if _, now := j.state(); now > count+1 {
		t.Errorf("%d whole states, %d before: nothing has changed", now, count)
	}
}

func TestTune(t *testing.T) {
	j := &fakeJournal{}
	tuning := Tuning{
		ScanInterval: time.Hour, Monitored: func(*port.Container) bool { return true },
		Reported: func(_ *port.Container, _ port.Protocol, number uint16) bool { return number != 81 },
	}
	r, b := start(t, func(o *Options) { o.Tuning, o.Journal = tuning, j }), newBox(t)
	b.listen(80)
	b.listen(81)
	r.tell(engine.Started, b.container("web"))
	r.tell(engine.Synced, nil)
	want := []string{"opened web 80/tcp loopback sock_diag"}
	r.wait(want...)

	only81 := tuning
	only81.Reported = func(_ *port.Container, _ port.Protocol, number uint16) bool { return number == 81 }
	r.Tune(only81)
	want = append(want, "opened web 81/tcp loopback sock_diag")
	r.wait(want...)
	if open := r.Open(); len(open) != 1 || open[0].Port != 81 {
		t.Errorf("open are %+v, want 81 alone", open)
	}
	kerneltest.Eventually(t, "the journal has 81 alone", func() bool {
		r.keepState()
		state, _ := j.state()
		return len(state) == 1 && state[0].Port == 81
	})

	nobody := tuning
	nobody.Monitored = func(*port.Container) bool { return false }
	r.Tune(nobody)
	kerneltest.Eventually(t, "the container is forgotten", func() bool { return slices.Contains(j.described(), "forget") })
	often := Tuning{ScanInterval: 10 * time.Millisecond, Monitored: tuning.Monitored}
	r.Tune(often)
	want = append(append(want, left), want[0], want[1])
	r.wait(want...)
	r.locked(func() {
		if len(r.reaches) != 2 {
			t.Errorf("who can speak to %d endpoints is remembered, want 2", len(r.reaches))
		}
	})
	b.listen(82)
	r.wait(append(want, "opened web 82/tcp loopback sock_diag")...)
}
