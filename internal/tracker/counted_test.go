package tracker

import (
	"slices"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// tally is a count of web:80, with the last socket that opened and the last that
// closed, and when.
type tally struct {
	opened, closed, missed uint64
	last                   uint64
	lastAt                 float64
	ended                  uint64
	endedAt                float64
	ownerless              bool
}

func (c tally) counted() Counted {
	one := Counted{
		Socket: tcp(c.last, 80), Owner: Owner{web, processes([]int{10})},
		Opened: c.opened, Closed: c.closed, Missed: c.missed, ClosedCookie: c.ended, Source: model.SourceEBPF,
	}
	if c.opened > 0 {
		one.LastOpened = at(c.lastAt)
	}
	if c.closed+c.missed > 0 {
		one.LastClosed = at(c.endedAt)
	}
	if c.ownerless {
		one.Owner = Owner{}
	}
	return one
}

func counts(t *Tracker, c tally) []string { return describe(t.Counted(nil, ns1, c.counted())) }

// expectSockets compares the sockets by which web:80 is open.
func expectSockets(t *testing.T, tr *Tracker, want ...uint64) {
	t.Helper()
	var got []uint64
	if sockets := tr.Sockets(model.Endpoint{Container: "web", Protocol: model.TCP, Address: wildcard, Port: 80}); sockets != nil {
		got = slices.Sorted(slices.Values(sockets.Cookies))
	}
	if !slices.Equal(got, want) {
		t.Errorf("web:80 is open by %v, want %v", got, want)
	}
}

func TestCounted(t *testing.T) {
	tr := tracking(0)
	expect(t, counts(tr, tally{opened: 5, closed: 5, last: 5, lastAt: 1, ended: 5, endedAt: 1.1}))
	expect(t, counts(tr, tally{opened: 1, last: 11, lastAt: 2}), "2 opened web:80 [10] ebpf")
	expect(t, counts(tr, tally{opened: 3, closed: 3, last: 14, lastAt: 3, ended: 13, endedAt: 2.9}))
	expectSockets(t, tr, 14)
	expect(t, counts(tr, tally{opened: 1, closed: 1, last: 15, lastAt: 4, ended: 15, endedAt: 4.1}))
	expect(t, counts(tr, tally{closed: 1, ended: 14, endedAt: 5}), "5 closed web:80 [10] ebpf since 2")
	if n := tr.namespaces[ns1].counts; len(n) != 0 {
		t.Errorf("%v is kept of an endpoint that is closed", n)
	}
}

// A count that begins in the middle: more closings than openings are known.
func TestCountedNeverBelowZero(t *testing.T) {
	tr := tracking(0)
	exactly(tr, 1, 1, 80, 10)
	expect(t, counts(tr, tally{closed: 3, ended: 7, endedAt: 2}))
	expectSockets(t, tr, 1)
	expect(t, counts(tr, tally{opened: 1, last: 8, lastAt: 3}))
	expectSockets(t, tr, 1, 8)
	expect(t, counts(tr, tally{closed: 1, ended: 8, endedAt: 4}))
	expectSockets(t, tr, 1)
}

func TestCountedBesideFacts(t *testing.T) {
	tr := tracking(0)
	expect(t, exactly(tr, 1, 1, 80, 10), "1 opened web:80 [10] ebpf")
	expect(t, counts(tr, tally{opened: 2, closed: 1, last: 3, lastAt: 2, ended: 2, endedAt: 1.9}))
	expect(t, ends(tr, 3, 1))
	expect(t, exactly(tr, 4, 4, 80, 10))
	expect(t, counts(tr, tally{closed: 1, ended: 3, endedAt: 5})) // the fact's socket carries on
	expect(t, ends(tr, 6, 4), "6 closed web:80 [10] ebpf since 1")
}

func TestMissed(t *testing.T) {
	tr := tracking(0)
	for cookie := range uint64(5) {
		exactly(tr, float64(cookie), cookie+1, 80, 10)
	}
	expect(t, counts(tr, tally{missed: 1, ended: 2, endedAt: 10}))
	expectSockets(t, tr, 1, 3, 4, 5)
	expect(t, counts(tr, tally{missed: 1, ended: 9, endedAt: 11})) // one that is not known
	expect(t, counts(tr, tally{missed: 1, ended: 2, endedAt: 10})) // removed before
	expectSockets(t, tr, 1, 3, 4, 5)
	expect(t, counts(tr, tally{opened: 1, closed: 1, missed: 1, last: 6, lastAt: 11, ended: 6, endedAt: 12}))
	expectSockets(t, tr, 3, 4, 5)                                   // the oldest was missed
	expect(t, counts(tr, tally{missed: 3, ended: 4, endedAt: 3.5})) // 5 opened later
	expectSockets(t, tr, 5)
	expect(t, counts(tr, tally{missed: 1, ended: 5, endedAt: 14}), "14 closed web:80 [10] ebpf since 0")
}

// What a snapshot had after the count's last closing was not missed.
func TestMissedAfterSnapshot(t *testing.T) {
	tr := tracking(0)
	exactly(tr, 1, 1, 80, 10)
	exactly(tr, 1, 2, 80, 10)
	dump(tr, ns1, 4, seen{1, 80, web, nil})
	expect(t, counts(tr, tally{missed: 3, ended: 9, endedAt: 2}))
	expectSockets(t, tr, 1)
}

func TestCountedAgainstSnapshots(t *testing.T) {
	tr := tracking(0)
	counts(tr, tally{opened: 1, last: 1, lastAt: 1})
	expect(t, dump(tr, ns1, 1.5)) // not yet in the table
	expect(t, dump(tr, ns1, 3, seen{2, 80, web, nil}))
	expectSockets(t, tr, 2)
	// The counts of what the snapshot had come late.
	expect(t, counts(tr, tally{opened: 1, closed: 1, last: 2, lastAt: 2.5, ended: 1, endedAt: 2.4}))
	expect(t, counts(tr, tally{opened: 1, closed: 1, last: 3, lastAt: 4, ended: 2, endedAt: 3.9}))
	expectSockets(t, tr, 3)
	expect(t, dump(tr, ns1, 6), "6 closed web:80 [10] sock_diag since 1")
	expect(t, counts(tr, tally{closed: 1, ended: 3, endedAt: 5.5}))
	expect(t, counts(tr, tally{opened: 1, last: 4, lastAt: 7}), "7 opened web:80 [10] ebpf")
}

// A later count of closings does not close what another socket holds.
func TestCountedAfterSnapshotDroppedTheStandIn(t *testing.T) {
	tr := tracking(0)
	counts(tr, tally{opened: 2, last: 1, lastAt: 1})
	dump(tr, ns1, 3, seen{2, 80, web, nil})
	expect(t, counts(tr, tally{closed: 3, ended: 1, endedAt: 2.5}))
	expectSockets(t, tr, 2)
	expect(t, dump(tr, ns1, 8, seen{2, 80, web, nil}))
	if n := tr.namespaces[ns1].counts; len(n) != 0 {
		t.Errorf("%v is kept", n)
	}
}

// Closings that were never counted are forgotten in the end.
func TestLostClosingsAreForgotten(t *testing.T) {
	tr := tracking(0)
	counts(tr, tally{opened: 1, last: 1, lastAt: 1})
	expect(t, dump(tr, ns1, 3), "3 closed web:80 [10] sock_diag since 1")
	dump(tr, ns1, 5)
	if n := tr.namespaces[ns1].counts; len(n) != 0 {
		t.Errorf("%v is kept", n)
	}
	expect(t, counts(tr, tally{opened: 1, last: 2, lastAt: 6}), "6 opened web:80 [10] ebpf")
	expect(t, counts(tr, tally{closed: 1, ended: 2, endedAt: 7}), "7 closed web:80 [10] ebpf since 6")
}

// A socket whose owner was not found in time does for the stand-in, too.
func TestStandInAndUnattributedSocket(t *testing.T) {
	tr := tracking(0)
	counts(tr, tally{opened: 1, last: 1, lastAt: 1})
	s := Snapshot{Began: at(3), Time: at(3), Source: model.SourceSockDiag, Sockets: []model.Socket{tcp(2, 80)}}
	expect(t, describe(tr.Snapshot(nil, ns1, s)))
	expect(t, counts(tr, tally{closed: 1, ended: 2, endedAt: 4}), "4 closed web:80 [10] ebpf since 1")
}

// A dump that is under way may show any of the sockets that were counted.
func TestSnapshotDoesNotOpenWhatWasCounted(t *testing.T) {
	tr := tracking(0)
	counts(tr, tally{opened: 3, closed: 3, last: 3, lastAt: 2, ended: 3, endedAt: 2})
	expect(t, dumpSince(tr, ns1, 1.9, 2.1, seen{2, 80, web, nil}))
	expect(t, dump(tr, ns1, 3.5, seen{4, 80, web, nil}), "3.5 opened web:80 [] sock_diag")
}

// The close of a stand-in comes as a fact, too.
func TestStandInClosesByFact(t *testing.T) {
	tr := tracking(0)
	counts(tr, tally{opened: 2, last: 2, lastAt: 1})
	expect(t, ends(tr, 2, 2)) // it stands for another
	expect(t, counts(tr, tally{closed: 1, ended: 2, endedAt: 2}))
	expect(t, ends(tr, 5, 2), "5 closed web:80 [10] ebpf since 1")
	expect(t, dump(tr, ns1, 5.5))
	expect(t, counts(tr, tally{opened: 1, closed: 1, last: 3, lastAt: 5.6, ended: 1, endedAt: 5}), "5.6 opened web:80 [10] ebpf")
}

func TestCountedWithinTheGrace(t *testing.T) {
	tr := tracking(5 * time.Second)
	counts(tr, tally{opened: 1, last: 1, lastAt: 1})
	expect(t, counts(tr, tally{closed: 1, ended: 1, endedAt: 2}))
	expect(t, counts(tr, tally{opened: 3, closed: 3, last: 4, lastAt: 4, ended: 4, endedAt: 4}))
	expect(t, describe(tr.Expire(nil, at(8.9))))
	expect(t, counts(tr, tally{opened: 1, last: 5, lastAt: 8.9}))
	expect(t, describe(tr.Expire(nil, at(20))))
	expect(t, counts(tr, tally{closed: 1, ended: 5, endedAt: 20}))
	expect(t, describe(tr.Expire(nil, at(25))), "20 closed web:80 [10] ebpf since 1")
}

func TestCountedOfNobody(t *testing.T) {
	tr := tracking(0)
	expect(t, counts(tr, tally{opened: 1, last: 1, lastAt: 1, ownerless: true}))
	expect(t, counts(tr, tally{closed: 1, ended: 1, endedAt: 2, ownerless: true}))
	expect(t, counts(tr, tally{opened: 1, last: 2, lastAt: 3}), "3 opened web:80 [10] ebpf")
	expect(t, counts(tr, tally{opened: 1, last: 3, lastAt: 4, ownerless: true}))
	expectSockets(t, tr, 2)
}

// The count of one container's socket closes that of another.
func TestCountedClosesBesideNobodys(t *testing.T) {
	tr := tracking(0)
	exactly(tr, 1, 1, 80, 10)
	expect(t, counts(tr, tally{opened: 1, last: 2, lastAt: 2, ownerless: true}))
	expect(t, counts(tr, tally{missed: 1, ended: 1, endedAt: 3, ownerless: true}), "3 closed web:80 [10] ebpf since 1")
}

// A count arrives later than the facts that happened after it: what it leads to has no
// earlier time than their changes.
func TestCountedAfterLaterFacts(t *testing.T) {
	tr := tracking(0)
	expect(t, exactly(tr, 4, 1, 80, 10), "4 opened web:80 [10] ebpf")
	expect(t, ends(tr, 5, 1), "5 closed web:80 [10] ebpf since 4")
	late := tally{opened: 1, last: 2, lastAt: 3}.counted()
	late.NotBefore = at(5)
	expect(t, describe(tr.Counted(nil, ns1, late)), "5 opened web:80 [10] ebpf")
	ended := tally{closed: 1, ended: 2, endedAt: 6}.counted()
	expect(t, describe(tr.Counted(nil, ns1, ended)), "6 closed web:80 [10] ebpf since 5")
}
