package tracker

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/model"
)

func tcp(cookie uint64, number uint16) model.Socket {
	return model.Socket{Cookie: cookie, Protocol: model.TCP, Address: wildcard, Port: number, Inode: uint32(cookie) + 1000}
}

func exactly(t *Tracker, second float64, cookie uint64, number uint16, pids ...int) []string {
	return describe(t.Opened(nil, ns1, tcp(cookie, number), Owner{web, processes(pids)}, at(second), model.SourceEBPF))
}

func ends(t *Tracker, second float64, cookie uint64) []string {
	changes, _ := t.Closed(nil, ns1, cookie, at(second), model.SourceEBPF)
	return describe(changes)
}

func TestExactFacts(t *testing.T) {
	tr := tracking(0)
	expect(t, exactly(tr, 1, 1, 80, 10), "1 opened web:80 [10] ebpf")
	expect(t, exactly(tr, 1, 1, 80, 10)) // reported twice
	expect(t, dump(tr, ns1, 2, seen{1, 80, web, nil}))
	expect(t, ends(tr, 3, 1), "3 closed web:80 [10] ebpf since 1")
	expect(t, ends(tr, 3, 1))
	expect(t, exactly(tr, 4, 1, 81, 10), "4 opened web:81 [10] ebpf") // the socket listens again
	expect(t, exactly(tr, 5, 1, 82, 10), "5 closed web:81 [10] ebpf since 4", "5 opened web:82 [10] ebpf")
}

// The snapshot came first, without a process; the exact fact names it.
func TestExactFactFillsIn(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 2, seen{1, 80, web, nil})
	expect(t, exactly(tr, 1.9, 1, 80, 10))
	expect(t, ends(tr, 1.95, 1), "2 closed web:80 [10] ebpf since 2")
}

func TestSnapshotDoesNotReopen(t *testing.T) {
	tr := tracking(0)
	exactly(tr, 1, 1, 80, 10)
	ends(tr, 2, 1)
	expect(t, dumpSince(tr, ns1, 1.9, 2.1, seen{1, 80, web, nil}))                         // read before the close
	expect(t, dumpSince(tr, ns1, 2.1, 2.2, seen{1, 80, web, nil}))                         // leaving the table takes a moment
	expect(t, dump(tr, ns1, 3.5, seen{1, 80, web, nil}), "3.5 opened web:80 [] sock_diag") // it is open after all
}

func TestSnapshotDoesNotCloseTheNewest(t *testing.T) {
	tr := tracking(0)
	exactly(tr, 1, 1, 80, 10)
	expect(t, dump(tr, ns1, 1.1)) // not yet in the table
	expect(t, dump(tr, ns1, 2.2), "2.2 closed web:80 [10] sock_diag since 1")
}

func TestTransient(t *testing.T) {
	transient := func(tr *Tracker, second float64, cookie uint64, number uint16, c *model.Container) []Change {
		changes, reported := tr.Transient(nil, ns1, tcp(cookie, number), Owner{Container: c}, at(second), model.SourceDestroy)
		if reported != (len(changes) > 0 || tr.grace > 0) {
			t.Errorf("reported %v with %d changes", reported, len(changes))
		}
		return changes
	}
	tr := tracking(0)
	changes := transient(tr, 1, 1, 80, web)
	if len(changes) != 2 || changes[0].Type != model.Opened || changes[1].Type != model.Closed || !changes[0].Transient || !changes[1].Transient || !changes[1].OpenedAt.IsZero() {
		t.Errorf("%+v; want a transient pair", changes)
	}
	expect(t, describe(transient(tr, 1, 2, 80, nil)))
	dump(tr, ns1, 2, seen{3, 80, web, nil})
	// The snapshot found the next socket before the notification of this one's close came.
	expect(t, describe(transient(tr, 3, 4, 80, web)), "3 closed web:80 [] destroy since 2", "3 opened web:80 [] destroy")
	expect(t, describe(transient(tr, 3.5, 5, 80, web)), "3.5 closed web:80 [] destroy since 3", "3.5 opened web:80 [] destroy")
	expect(t, describe(transient(tr, 1.5, 6, 80, web)), "3.5 closed web:80 [] destroy since 3.5", "3.5 opened web:80 [] destroy")
	expect(t, ends(tr, 4, 3), "4 closed web:80 [] ebpf since 3.5")
	// The endpoint may have been open all the time: it was found long ago, or is shared,
	// or its opening is an exact fact.
	dump(tr, ns1, 5, seen{7, 81, web, nil}, seen{8, 82, web, nil})
	dump(tr, ns1, 8, seen{7, 81, web, nil}, seen{8, 82, web, nil}, seen{9, 82, web, nil})
	exactly(tr, 8, 10, 83, 10)
	expect(t, describe(transient(tr, 10, 11, 81, web)))
	expect(t, describe(transient(tr, 9, 12, 82, web)))
	expect(t, describe(transient(tr, 9, 13, 83, web)))

	tr = tracking(5 * time.Second)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	dump(tr, ns1, 2)
	expect(t, describe(transient(tr, 4, 2, 80, web))) // back within the grace, and gone
	expect(t, describe(tr.Expire(nil, at(8))))
	expect(t, describe(tr.Expire(nil, at(9))), "4 closed web:80 [10] destroy since 1")
}

// A snapshot found the socket gone before its destroy notification came.
func TestCloseAfterSnapshotIsKnown(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, nil})
	dump(tr, ns1, 2)
	for cookie, want := range map[uint64]bool{1: true, 2: false} {
		if changes, known := tr.Closed(nil, ns1, cookie, at(2.1), model.SourceDestroy); known != want || len(changes) != 0 {
			t.Errorf("socket %d: known %v, %d changes; want %v and none", cookie, known, len(changes), want)
		}
	}
}

// Falling back to a source without cookies, and back, changes nothing.
func TestSourceWithoutCookies(t *testing.T) {
	tr := tracking(0)
	fromProc := func(second float64, inodes ...uint32) []string {
		s := Snapshot{Began: at(second), Time: at(second), Source: model.SourceProc, New: map[int]Owner{}}
		for i, inode := range inodes {
			one := tcp(model.MadeUpCookie|uint64(inode), 80+uint16(inode-1001))
			one.Inode = inode
			s.Sockets = append(s.Sockets, one)
			s.New[i] = Owner{Container: web}
		}
		return describe(tr.Snapshot(nil, ns1, s))
	}
	netlink := func(second float64, sockets ...model.Socket) []string {
		s := Snapshot{Began: at(second), Time: at(second), Source: model.SourceSockDiag, Sockets: sockets, New: map[int]Owner{}}
		for i := range sockets {
			s.New[i] = Owner{Container: web}
		}
		return describe(tr.Snapshot(nil, ns1, s))
	}
	expect(t, netlink(1, tcp(1, 80), tcp(2, 81)), "1 opened web:80 [] sock_diag", "1 opened web:81 [] sock_diag")
	expect(t, fromProc(2, 1001, 1002))
	expect(t, fromProc(3, 1001, 1003), "3 closed web:81 [] proc since 1", "3 opened web:82 [] proc")
	expect(t, netlink(4, tcp(1, 80), tcp(3, 82)))
	expect(t, ends(tr, 5, 1), "5 closed web:80 [] ebpf since 1")
	expect(t, netlink(6), "6 closed web:82 [] sock_diag since 3")
}

// A source without cookies reconciles beside exact facts.
func TestFactsBesideASourceWithoutCookies(t *testing.T) {
	tr := tracking(0)
	fromProc := func(second float64, inodes ...uint32) []string {
		s := Snapshot{Began: at(second), Time: at(second), Source: model.SourceProc, New: map[int]Owner{}}
		for i, inode := range inodes {
			one := tcp(model.MadeUpCookie|uint64(inode), 80+uint16(inode-1001))
			one.Inode = inode
			s.Sockets = append(s.Sockets, one)
			s.New[i] = Owner{Container: web}
		}
		if unknown := tr.Unknown(nil, ns1, s.Sockets); len(unknown) > 0 {
			t.Logf("at %v unknown: %v", second, unknown)
		}
		return describe(tr.Snapshot(nil, ns1, s))
	}
	opens := func(second float64, inode uint32) []string {
		one := tcp(uint64(inode-1000), 80+uint16(inode-1001))
		one.Inode = inode
		return describe(tr.Opened(nil, ns1, one, Owner{Container: web}, at(second), model.SourceEBPF))
	}
	expect(t, fromProc(1, 1001), "1 opened web:80 [] proc")
	expect(t, opens(2, 1001)) // its opening, late: the same socket
	expect(t, opens(3, 1002), "3 opened web:81 [] ebpf")
	expect(t, fromProc(5, 1001, 1002))
	expect(t, ends(tr, 6, 1), "6 closed web:80 [] ebpf since 1")
	expect(t, fromProc(8, 1002))
	expect(t, fromProc(10), "10 closed web:81 [] proc since 3")
}

func TestFresh(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, nil}, seen{2, 81, nil, nil})
	dump(tr, ns1, 3, seen{1, 80, web, nil}, seen{2, 81, nil, nil}, seen{3, 82, web, nil})
	for _, test := range []struct {
		until float64
		want  []uint64
		more  bool
	}{{0, nil, true}, {2, []uint64{1}, true}, {2, nil, true}, {3, []uint64{3}, false}, {3, nil, false}} {
		fresh, more := tr.Fresh(nil, ns1, at(test.until))
		var cookies []uint64
		for _, f := range fresh {
			cookies = append(cookies, f.Cookie)
		}
		if !slices.Equal(cookies, test.want) || more != test.more {
			t.Errorf("until %v: %v, more %v; want %v, %v", test.until, cookies, more, test.want, test.more)
		}
	}
}

// fact is an exact fact on its way to the tracker.
type fact struct {
	opened  bool
	cookie  uint64
	at      float64
	arrives float64
}

// TestExactFactsAgainstSnapshots lets a simulated kernel open and close
// sockets, with exact facts that arrive late, and snapshots that take a while.
// Whatever the interleaving, each socket is reported opened once and closed
// once, at the exact time where the exact fact came first.
func TestExactFactsAgainstSnapshots(t *testing.T) {
	for seed := range uint64(2000) {
		simulate(t, rand.New(rand.NewPCG(seed, 2)), seed)
		if t.Failed() {
			return
		}
	}
}

func simulate(t *testing.T, random *rand.Rand, seed uint64) {
	// A socket is in the table a moment after it opens, and until a moment after
	// it closes.
	type life struct{ from, to, enters, leaves float64 }
	var lives []life
	var facts []fact
	for cookie := range uint64(40) {
		from := random.Float64() * 20
		to := from + random.Float64()*random.Float64()*10
		l := life{from, to, from + random.Float64()*0.1, to + random.Float64()*0.1}
		lives = append(lives, l)
		arrival := l.from + random.Float64()*0.3
		facts = append(facts, fact{true, cookie, l.from, arrival})
		facts = append(facts, fact{false, cookie, l.to, max(arrival, l.to+random.Float64()*0.3)})
	}
	slices.SortStableFunc(facts, func(a, b fact) int {
		switch {
		case a.arrives < b.arrives:
			return -1
		case a.arrives > b.arrives:
			return 1
		}
		return 0
	})
	tr := tracking(0)
	counts := map[uint16][2]int{}
	count := func(changes []Change) {
		for _, c := range changes {
			n := counts[c.Endpoint.Port]
			if c.Type == model.Opened {
				n[0]++
			} else {
				n[1]++
			}
			if n[0]-n[1] != 0 && n[0]-n[1] != 1 {
				t.Errorf("seed %d: port %d was opened %d times and closed %d times", seed, c.Endpoint.Port, n[0], n[1])
			}
			counts[c.Endpoint.Port] = n
		}
	}
	deliver := func(until float64) {
		for len(facts) > 0 && facts[0].arrives <= until {
			f := facts[0]
			facts = facts[1:]
			if f.opened {
				count(tr.Opened(nil, ns1, tcp(f.cookie, uint16(f.cookie+1)), Owner{Container: web}, at(f.at), model.SourceEBPF))
			} else {
				changes, _ := tr.Closed(nil, ns1, f.cookie, at(f.at), model.SourceEBPF)
				count(changes)
			}
		}
	}
	for began := 0.0; began < 40; {
		ended := began + random.Float64()*0.2
		deliver(began)
		s := Snapshot{Began: at(began), Time: at(ended), Source: model.SourceSockDiag, New: map[int]Owner{}}
		for cookie, l := range lives {
			reads := began + random.Float64()*(ended-began) // when the dump passes this place
			if l.enters <= reads && reads < l.leaves {
				s.Sockets = append(s.Sockets, tcp(uint64(cookie), uint16(cookie+1)))
			}
		}
		deliver(ended)
		for _, i := range tr.Unknown(nil, ns1, s.Sockets) {
			s.New[i] = Owner{Container: web}
		}
		count(tr.Snapshot(nil, ns1, s))
		began = ended + random.Float64()
	}
	for number := range uint16(40) {
		if counts[number+1] != [2]int{1, 1} {
			t.Errorf("seed %d: port %d, life %v: opened %d, closed %d times; want 1 and 1", seed, number+1, lives[number], counts[number+1][0], counts[number+1][1])
		}
	}
}
