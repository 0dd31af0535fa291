package capture

import (
	"slices"
	"testing"

	"portwatcher/internal/model"
)

// described describes the records but for whole states in words.
func (k *consumer) described() (all []string) {
	for _, r := range k.all() {
		switch {
		case r.Forget != "":
			all = append(all, "forget")
		case r.Event != nil && r.Sockets != nil:
			all = append(all, line(r.Event)+" with sockets")
		case r.Event != nil:
			all = append(all, line(r.Event))
		}
	}
	return all
}

// states returns the last whole state, and how many there were.
func (k *consumer) states() (last []model.State, count int) {
	for _, r := range k.all() {
		if r.Full {
			last = r.State
			count++
		}
	}
	return last, count
}

// A sink that takes nothing costs gaps with numbers, of each container, and never the
// capture.
func TestFullSink(t *testing.T) {
	r := newRig(t, nil)
	web, mate := r.run("web", 1), r.run("mate", 2)
	r.out.set(true, false)
	eighty, more := r.socket(80), r.socket(81)
	r.scan(1, web, eighty, more)
	r.scan(2, mate, r.socket(90))
	r.counted(r.countOf(web, 1, 85, 5, 5))
	r.flushBursts()
	if n := len(r.tracker.Open()); n != 3 {
		t.Errorf("%d endpoints are open, want 3", n)
	}
	r.out.set(false, false)
	r.scan(1, web, eighty, more, r.socket(82))
	lines := r.out.lines()
	slices.Sort(lines[:2])
	want := []string{
		"gap 12: openings and closings are missing from output, which is slow",
		"gap 1: openings and closings are missing from output, which is slow",
		"opened web 82/tcp loopback sock_diag",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("events %q, want %q", lines, want)
	}
	for i, e := range r.out.events() {
		if e.ID != uint64(5+i) {
			t.Errorf("event %d has id %d, want %d: four were numbered before", i, e.ID, 5+i)
		}
	}
	if a, b := r.out.sumsOf(web.ID), r.out.sumsOf(mate.ID); a != (sums{opened: 1, lost: 12}) || b != (sums{lost: 1}) {
		t.Errorf("reported %+v and %+v", a, b)
	}
	s := r.balance()["output"]
	if s.In != 14 || s.Lost != 13 || s.Out != 1 {
		t.Errorf("output %+v, want 13 of 14 lost", s)
	}
	if st := r.status(); st.Lost != 4 || st.Gaps != 2 || st.Queues[0] != (model.QueueStatus{Name: "output", Length: 3, Capacity: 8, Dropped: 4}) {
		t.Errorf("status %+v", st)
	}
}

// One slow sink does not cost another an event; the gap goes to all.
func TestOneFullSink(t *testing.T) {
	slow, live := newConsumer("slow"), newConsumer("live")
	live.lossy = true
	r := newRig(t, func(o *Options) { o.Sinks = append(o.Sinks, slow.sink(), live.sink()) })
	web := r.run("web", 1)
	slow.set(true, false)
	live.set(true, false)
	s := r.socket(80)
	r.scan(1, web, s)
	slow.set(false, false)
	live.set(false, false)
	r.scan(1, web)
	const gap = "openings and closings are missing from slow, which is slow"
	// Those who have the event need no number for their sums.
	r.wants("opened web 80/tcp loopback sock_diag", "gap 0: "+gap, "closed web 80/tcp loopback sock_diag")
	if got, want := slow.lines(), []string{"gap 1: " + gap, "closed web 80/tcp loopback sock_diag"}; !slices.Equal(got, want) {
		t.Errorf("slow has %q, want %q", got, want)
	}
	if got, want := live.lines(), []string{"gap 0: " + gap, "closed web 80/tcp loopback sock_diag"}; !slices.Equal(got, want) {
		t.Errorf("live has %q, want %q: what it lost itself is in its status alone", got, want)
	}
	s1, s2 := r.balance()["slow"], r.balance()["live"]
	if s1.Lost != 1 || s2.Lost != 1 || r.balance()["output"].Lost != 0 {
		t.Errorf("slow %+v, live %+v", s1, s2)
	}
}

// A gap that is not taken is reported again, with its number.
func TestLostGap(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	for _, lost := range []uint64{0, 7} {
		r.out.set(true, false)
		r.gap(web, "something", lost)
		r.out.set(false, false)
		r.keepState()
	}
	r.wants("gap 0: openings and closings are missing from output, which is slow",
		"gap 7: openings and closings are missing from output, which is slow")
	r.balance()
}

// What the journal did not take is reported by a gap, and the whole state follows.
func TestFullJournal(t *testing.T) {
	journal := newConsumer("journal")
	journal.keeps = true
	r := newRig(t, func(o *Options) { o.Sinks = append(o.Sinks, journal.sink()) })
	web := r.run("web", 1)
	r.synced()
	r.keepState()
	journal.set(true, false)
	r.scan(1, web, r.socket(80))
	r.wants("opened web 80/tcp loopback sock_diag")
	r.keepState()
	journal.set(false, false)
	r.keepState()
	const gap = "openings and closings are missing from journal, which is slow"
	r.wants("opened web 80/tcp loopback sock_diag", "gap 0: "+gap)
	if got := journal.described(); !slices.Equal(got, []string{"gap 1: " + gap}) {
		t.Errorf("the journal has %q, want the gap", got)
	}
	state, count := journal.states()
	if len(state) != 1 || state[0].Port != 80 || state[0].Sockets == nil || len(state[0].Sockets.Cookies) != 1 {
		t.Errorf("the journal's state is %+v, want port 80 with its socket", state)
	}
	r.keepState()
	r.keepState()
	if _, now := journal.states(); now != count {
		t.Errorf("%d whole states, %d before: nothing has changed", now, count)
	}
}

// Opened events go to the journal with their sockets, closed ones without.
func TestSocketsForTheJournal(t *testing.T) {
	journal := newConsumer("journal")
	journal.keeps = true
	r := newRig(t, func(o *Options) { o.Sinks = append(o.Sinks, journal.sink()) })
	r.run("web", 1)
	r.synced()
	opened, closed := r.openedAndClosed(1, 80)
	r.facts(opened, closed)
	want := []string{"opened web 80/tcp loopback ebpf with sockets", "closed web 80/tcp loopback ebpf"}
	if got := journal.described(); !slices.Equal(got, want) {
		t.Errorf("the journal has %q, want %q", got, want)
	}
}

// While openings are held for a burst, the journal's state waits: what it would have is
// reported as opened afterwards.
func TestStateWaitsForBursts(t *testing.T) {
	journal := newConsumer("journal")
	journal.keeps = true
	r := newRig(t, func(o *Options) { o.Sinks = append(o.Sinks, journal.sink()) })
	web := r.run("web", 1)
	r.synced()
	r.keepState()
	_, before := journal.states()
	r.crowd(true)
	r.scan(1, web, r.socket(80))
	r.keepState()
	if _, now := journal.states(); now != before {
		t.Error("a state was sent while an opening is held")
	}
	r.flushBursts()
	r.keepState()
	if state, _ := journal.states(); len(state) != 1 {
		t.Errorf("the state is %+v, want port 80", state)
	}
}

// What a sink refuses of the last events is in a gap, too: no event comes after them.
func TestLastEventsAreAccountedFor(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.out.set(true, false)
	r.scan(1, web, r.socket(80))
	r.out.set(false, false)
	r.finish()
	r.wants("gap 1: openings and closings are missing from output, which is slow")
}
