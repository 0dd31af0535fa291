package tracker

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

var (
	start    = clock.Instant(time.Hour)
	wildcard = netip.IPv4Unspecified()
	web      = &model.Container{ID: "web", Name: "web"}
	db       = &model.Container{ID: "db", Name: "db"}
	ns1      = model.Namespace{Device: 4, Inode: 1}
	ns2      = model.Namespace{Device: 4, Inode: 2}
)

func at(second float64) clock.Instant { return start.Add(time.Duration(second * float64(time.Second))) }

// seen is a socket in a snapshot, with its owner.
type seen struct {
	cookie    uint64
	port      uint16
	container *model.Container
	pids      []int
}

func processes(pids []int) []model.Process {
	var all []model.Process
	for _, pid := range pids {
		all = append(all, model.Process{PID: pid})
	}
	return all
}

// dump feeds a snapshot as a source does, and returns the changes as text.
func dump(t *Tracker, ns model.Namespace, second float64, sockets ...seen) []string {
	return dumpSince(t, ns, second, second, sockets...)
}

func dumpSince(t *Tracker, ns model.Namespace, began, ended float64, sockets ...seen) []string {
	s := Snapshot{Began: at(began), Time: at(ended), Source: model.SourceSockDiag, New: map[int]Owner{}}
	for _, one := range sockets {
		s.Sockets = append(s.Sockets, model.Socket{Cookie: one.cookie, Protocol: model.TCP, Address: wildcard, Port: one.port})
	}
	for _, i := range t.Unknown(nil, ns, s.Sockets) {
		s.New[i] = Owner{Container: sockets[i].container, Processes: processes(sockets[i].pids)}
	}
	return describe(t.Snapshot(nil, ns, s))
}

// describe writes a change as "second type container:port pids source".
func describe(changes []Change) []string {
	var lines []string
	for _, c := range changes {
		var pids []string
		for _, p := range c.Processes {
			pids = append(pids, fmt.Sprint(p.PID))
		}
		line := fmt.Sprintf("%v %s %s:%d [%s] %s", c.Time.Sub(start).Seconds(), c.Type, c.Endpoint.Container, c.Endpoint.Port, strings.Join(pids, " "), c.Source)
		if c.Type == model.Closed {
			line += fmt.Sprintf(" since %v", c.OpenedAt.Sub(start).Seconds())
		}
		lines = append(lines, line)
	}
	return lines
}

// tracking returns a tracker of both namespaces.
func tracking(grace time.Duration) *Tracker {
	tr := New(grace)
	tr.OpenNamespace(ns1)
	tr.OpenNamespace(ns2)
	return tr
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("changes:\n  got  %s\n  want %s", strings.Join(got, "\n       "), strings.Join(want, "\n       "))
	}
}

func TestOpenAndClose(t *testing.T) {
	tr := tracking(0)
	expect(t, dump(tr, ns1, 1, seen{1, 80, web, []int{10, 11}}, seen{2, 22, web, nil}),
		"1 opened web:22 [] sock_diag", "1 opened web:80 [10 11] sock_diag")
	expect(t, dump(tr, ns1, 2, seen{1, 80, web, nil}, seen{2, 22, web, nil}))
	expect(t, dump(tr, ns1, 3, seen{2, 22, web, nil}), "3 closed web:80 [10 11] sock_diag since 1")
	expect(t, dump(tr, ns1, 4), "4 closed web:22 [] sock_diag since 1")
	expect(t, dump(tr, ns1, 5))
}

// A container can listen at one place in its own namespace and in others.
func TestEndpointsOfInnerNamespaces(t *testing.T) {
	tr := tracking(0)
	c := &model.Container{ID: "web", Namespace: ns1}
	expect(t, dump(tr, ns1, 1, seen{1, 80, c, nil}), "1 opened web:80 [] sock_diag")
	expect(t, dump(tr, ns2, 2, seen{1, 80, c, nil}), "2 opened web:80 [] sock_diag")
	open := tr.Open()
	if len(open) != 2 || open[0].Endpoint.Namespace != "" || open[1].Endpoint.Namespace != ns2.String() || open[1].Namespace != ns2 {
		t.Errorf("open are %+v, want one in its own namespace and one in %s", open, ns2)
	}
	expect(t, dump(tr, ns1, 3), "3 closed web:80 [] sock_diag since 1")
	expect(t, describe(tr.CloseContainer(nil, "web", at(4), model.SourceEngine)), "4 closed web:80 [] engine since 2")
}

func TestNamespacesAreApart(t *testing.T) {
	tr := tracking(0)
	expect(t, dump(tr, ns1, 1, seen{1, 80, web, nil}), "1 opened web:80 [] sock_diag")
	expect(t, dump(tr, ns2, 2, seen{1, 80, db, nil}), "2 opened db:80 [] sock_diag")
	expect(t, dump(tr, ns1, 3), "3 closed web:80 [] sock_diag since 1")
	expect(t, describe(tr.Open()), "2 opened db:80 [] sock_diag")
}

func TestSocketsOfOneEndpoint(t *testing.T) {
	tr := tracking(0)
	expect(t, dump(tr, ns1, 1, seen{1, 80, web, []int{10}}, seen{2, 80, web, []int{11, 10}}), "1 opened web:80 [10 11] sock_diag")
	expect(t, dump(tr, ns1, 2, seen{2, 80, web, nil}))
	expect(t, dump(tr, ns1, 3, seen{2, 80, web, nil}, seen{3, 80, web, []int{11}}))
	expect(t, dump(tr, ns1, 3.5, seen{3, 80, web, nil}))
	expect(t, dump(tr, ns1, 4), "4 closed web:80 [11] sock_diag since 1")
}

// A new process listens before the old one ends (SO_REUSEPORT).
func TestOverlappingTakeover(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	expect(t, dump(tr, ns1, 2, seen{1, 80, web, nil}, seen{2, 80, web, []int{20}}))
	expect(t, dump(tr, ns1, 3, seen{2, 80, web, nil}))
	expect(t, dump(tr, ns1, 4), "4 closed web:80 [20] sock_diag since 1")
}

func TestReplacedBetweenSnapshots(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	expect(t, dump(tr, ns1, 2, seen{2, 80, web, []int{20}}),
		"2 closed web:80 [10] sock_diag since 1", "2 opened web:80 [20] sock_diag")
}

// A socket that is shut down may listen again elsewhere under its cookie.
func TestSocketThatMoves(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	expect(t, dump(tr, ns1, 2, seen{1, 81, web, []int{10}}),
		"2 closed web:80 [10] sock_diag since 1", "2 opened web:81 [10] sock_diag")
}

func TestCloseGrace(t *testing.T) {
	tr := tracking(5 * time.Second)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}}, seen{2, 81, web, []int{10}}, seen{3, 82, web, []int{10}}, seen{4, 83, web, nil})
	expect(t, dump(tr, ns1, 2))
	if next, ok := tr.NextExpiry(); !ok || next != at(7) {
		t.Errorf("next expiry %v, %v; want second 7", next, ok)
	}
	expect(t, describe(tr.Open()))
	expect(t, describe(tr.Expire(nil, at(6.9))))
	// Back with the same process, with another, with one that was not known.
	expect(t, dump(tr, ns1, 6.9, seen{5, 80, web, []int{10}}, seen{6, 81, web, []int{20}}, seen{7, 83, web, []int{20}}),
		"6.9 changed web:81 [20] sock_diag")
	expect(t, describe(tr.Expire(nil, at(7))), "2 closed web:82 [10] sock_diag since 1")
	if _, ok := tr.NextExpiry(); ok {
		t.Error("an expiry is left")
	}
	dump(tr, ns1, 8)
	expect(t, describe(tr.Expire(nil, at(20))),
		"8 closed web:80 [10] sock_diag since 1", "8 closed web:81 [20] sock_diag since 1", "8 closed web:83 [20] sock_diag since 1")
}

func TestCloseGraceOverRestart(t *testing.T) {
	tr := tracking(5 * time.Second)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	expect(t, describe(tr.CloseContainer(nil, "web", at(2), model.SourceEngine)))
	expect(t, describe(tr.CloseNamespace(nil, ns1, at(2), model.SourceEngine)))
	expect(t, dump(tr, ns2, 3, seen{1, 80, web, []int{30}}), "3 changed web:80 [30] sock_diag")
}

func TestSnapshotKeepsWhatOpenedAfterItBegan(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 2, seen{1, 80, web, nil})
	expect(t, dumpSince(tr, ns1, 1, 3)) // asked before second 2, answered after
	expect(t, dump(tr, ns1, 4), "4 closed web:80 [] sock_diag since 2")
}

func TestFailureKeepsState(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, nil})
	if !tr.Failed(ns1) || tr.Failed(ns1) || !tr.Stale(ns1) {
		t.Error("the first failure is new, the second is not, the state is stale")
	}
	expect(t, describe(tr.Open()), "1 opened web:80 [] sock_diag")
	expect(t, dump(tr, ns1, 2, seen{1, 80, web, nil}))
	if tr.Stale(ns1) {
		t.Error("the state is stale after a snapshot")
	}
}

func TestNobodysSockets(t *testing.T) {
	tr := tracking(0)
	expect(t, dump(tr, ns1, 1, seen{1, 80, nil, nil}))
	if unknown := tr.Unknown(nil, ns1, []model.Socket{{Cookie: 1, Protocol: model.TCP, Address: wildcard, Port: 80}}); len(unknown) != 0 {
		t.Errorf("unknown %v; want the socket to be remembered", unknown)
	}
	tr.Reconsider(ns1)
	expect(t, dump(tr, ns1, 2, seen{1, 80, web, []int{10}}), "2 opened web:80 [10] sock_diag")
}

func TestNewSocketWithoutOwnerIsPassedOver(t *testing.T) {
	tr := tracking(0)
	s := Snapshot{Began: at(1), Time: at(1), Sockets: []model.Socket{{Cookie: 1, Protocol: model.TCP, Address: wildcard, Port: 80}}}
	expect(t, describe(tr.Snapshot(nil, ns1, s)))
	expect(t, dump(tr, ns1, 2, seen{1, 80, web, nil}), "2 opened web:80 [] sock_diag")
}

func TestContainerEnds(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}}, seen{2, 5432, db, []int{20}})
	expect(t, describe(tr.CloseContainer(nil, "web", at(2), model.SourceEngine)), "2 closed web:80 [10] engine since 1")
	expect(t, describe(tr.CloseNamespace(nil, ns1, at(3), model.SourceEngine)), "3 closed db:5432 [20] engine since 1")
	expect(t, describe(tr.CloseNamespace(nil, ns1, at(3), model.SourceEngine)))
}

func TestContainerIsDropped(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	tr.Drop(func(e model.Endpoint) bool { return e.Container == "web" })
	expect(t, describe(tr.Open()))
	expect(t, dump(tr, ns1, 2))
	dump(tr, ns1, 3, seen{2, 80, web, []int{10}})
	tr.Drop(func(e model.Endpoint) bool { return e.Container == "web" })
	tr.Reconsider(ns1)
	expect(t, dump(tr, ns1, 4, seen{2, 80, web, []int{10}}), "4 opened web:80 [10] sock_diag")
}

func TestContainerIsRenamed(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, nil})
	tr.UpdateContainer(&model.Container{ID: "web", Name: "front"})
	changes := tr.CloseContainer(nil, "web", at(2), model.SourceEngine)
	if len(changes) != 1 || changes[0].Container.Name != "front" {
		t.Errorf("%v; want one close under the new name", changes)
	}
}

// A steady scan is the hot path.
func TestSteadySnapshotAllocatesNothing(t *testing.T) {
	tr, sockets := steady(1000)
	var unknown []int
	var changes []Change
	allocations := testing.AllocsPerRun(100, func() {
		unknown = tr.Unknown(unknown[:0], ns1, sockets)
		changes = tr.Snapshot(changes[:0], ns1, Snapshot{Began: at(2), Time: at(2), Sockets: sockets})
	})
	if allocations != 0 || len(unknown) != 0 || len(changes) != 0 {
		t.Errorf("%v allocations, %d unknown, %d changes; want none", allocations, len(unknown), len(changes))
	}
}

func steady(count int) (*Tracker, []model.Socket) {
	tr := tracking(0)
	s := Snapshot{Began: at(1), Time: at(1), New: map[int]Owner{}}
	for i := range count {
		s.Sockets = append(s.Sockets, model.Socket{Cookie: uint64(i), Protocol: model.TCP, Address: wildcard, Port: uint16(i + 1)})
		s.New[i] = Owner{Container: web}
	}
	tr.Snapshot(nil, ns1, s)
	return tr, s.Sockets
}

func BenchmarkSteadySnapshot(b *testing.B) {
	tr, sockets := steady(30)
	var unknown []int
	b.ReportAllocs()
	for b.Loop() {
		unknown = tr.Unknown(unknown[:0], ns1, sockets)
		tr.Snapshot(nil, ns1, Snapshot{Began: at(2), Time: at(2), Sockets: sockets})
	}
}
