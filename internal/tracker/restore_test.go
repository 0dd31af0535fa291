package tracker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"portwatcher/internal/model"
)

// states is what a journal keeps of a tracker.
func states(t *Tracker) []model.State {
	var all []model.State
	for _, open := range t.Open() {
		s := model.State{Sockets: t.Sockets(open.Endpoint)}
		s.Container, s.Processes, s.Source = open.Container.Ref(), open.Processes, open.Source
		s.Protocol, s.Address, s.Port = open.Endpoint.Protocol, open.Endpoint.Address, open.Endpoint.Port
		all = append(all, s)
	}
	return all
}

// restarted returns a tracker that has forgotten everything but that.
func restarted(t *testing.T, old *Tracker) *Tracker {
	t.Helper()
	fresh := tracking(old.grace)
	for i, open := range old.Open() {
		s := states(old)[i]
		container := map[string]*model.Container{"web": web, "db": db}[s.Container.ID]
		if !fresh.Restore(container, &s, open.OpenedAt) {
			t.Errorf("%s:%d was not restored", s.Container.ID, s.Port)
		}
	}
	return fresh
}

// resume is the first snapshot after a restart.
func resume(t *Tracker, ns model.Namespace, second float64, source model.Source, sockets ...seen) []string {
	s := Snapshot{Began: at(second), Time: at(second), Source: source, Resumed: true, New: map[int]Owner{}}
	for _, one := range sockets {
		s.Sockets = append(s.Sockets, model.Socket{
			Cookie: one.cookie, Protocol: model.TCP, Address: wildcard, Port: one.port, Inode: uint32(one.cookie &^ model.MadeUpCookie % 1000),
		})
	}
	for _, i := range t.Unknown(nil, ns, s.Sockets) {
		s.New[i] = Owner{Container: sockets[i].container, Processes: processes(sockets[i].pids)}
	}
	return describe(t.Snapshot(nil, ns, s))
}

func TestRestart(t *testing.T) {
	before := []seen{{1, 80, web, []int{10}}, {2, 80, web, []int{11}}, {3, 443, web, []int{10}}}
	for _, test := range []struct {
		name  string
		after []seen
		want  []string
	}{
		{"all stayed", before, nil},
		{"one of a group left", before[1:], nil},
		{"a group was joined", append([]seen{{9, 80, web, []int{12}}}, before...), nil},
		{"one port closed", before[:2], []string{"60 closed web:443 [10] restart since 1"}},
		{"all closed", nil, []string{"60 closed web:80 [10 11] restart since 1", "60 closed web:443 [10] restart since 1"}},
		{"one opened", append([]seen{{9, 22, web, []int{12}}}, before...), []string{"60 opened web:22 [12] restart"}},
		{
			"one closed and opened again", append([]seen{{9, 443, web, []int{10}}}, before[:2]...),
			[]string{"60 closed web:443 [10] restart since 1", "60 opened web:443 [10] restart"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			old := tracking(0)
			dump(old, ns1, 1, before...)
			tr := restarted(t, old)
			expect(t, resume(tr, ns1, 60, model.SourceSockDiag, test.after...), test.want...)
			expect(t, dump(tr, ns1, 61, test.after...))
			if got, want := len(tr.Open()), len(states(tr)); got != want {
				t.Errorf("%d open, %d states", got, want)
			}
		})
	}
}

// Facts of a restored endpoint before its first snapshot.
func TestRestartThenFacts(t *testing.T) {
	old := tracking(0)
	dump(old, ns1, 1, seen{1, 80, web, []int{10}}, seen{2, 443, web, []int{10}})
	tr := restarted(t, old)
	tr.Failed(ns1)
	owner := Owner{Container: web, Processes: processes([]int{12})}
	socket := model.Socket{Cookie: 9, Protocol: model.TCP, Address: wildcard, Port: 80}
	expect(t, describe(tr.Opened(nil, ns1, socket, owner, at(59), model.SourceEBPF)))
	changes, known := tr.Closed(nil, ns1, 2, at(59.5), model.SourceDestroy)
	if !known {
		t.Error("the socket of before is not known")
	}
	expect(t, describe(changes), "59.5 closed web:443 [10] destroy since 1")
	expect(t, resume(tr, ns1, 60, model.SourceSockDiag, seen{9, 80, web, []int{12}}),
		"60 closed web:80 [10] restart since 1", "60 opened web:80 [12] restart")
}

func TestRestartAndTheContainerEnds(t *testing.T) {
	old := tracking(0)
	dump(old, ns1, 1, seen{1, 80, web, []int{10}})
	tr := restarted(t, old)
	expect(t, describe(tr.CloseContainer(nil, "web", at(60), model.SourceEngine)), "60 closed web:80 [10] engine since 1")
	expect(t, resume(tr, ns1, 61, model.SourceSockDiag))
}

// The source before and after the restart may know sockets by other numbers.
func TestRestartWithAnotherSource(t *testing.T) {
	const inode = 1
	for _, test := range []struct {
		first, then        model.Source
		cookie, thenCookie uint64
	}{
		{model.SourceProc, model.SourceSockDiag, model.MadeUpCookie | inode, 1},
		{model.SourceSockDiag, model.SourceProc, 1, model.MadeUpCookie | inode},
	} {
		old := tracking(0)
		resume(old, ns1, 1, test.first, seen{test.cookie, 80, web, []int{10}})
		tr := restarted(t, old)
		expect(t, resume(tr, ns1, 60, test.then, seen{test.thenCookie, 80, web, []int{10}}))
		expect(t, describe(tr.Open()), "1 opened web:80 [10] restart")
	}
}

func TestRestoreOnlyWhatIsNotKnown(t *testing.T) {
	old := tracking(0)
	dump(old, ns1, 1, seen{1, 80, web, nil})
	state := states(old)[0]
	if old.Restore(web, &state, at(1)) {
		t.Error("an endpoint that is open was restored")
	}
	state.Sockets = nil
	if tracking(0).Restore(web, &state, at(1)) {
		t.Error("an endpoint without sockets was restored")
	}
	if old.Sockets(model.Endpoint{Container: "db"}) != nil {
		t.Error("an endpoint that is not open has sockets")
	}
}

// A tracker that was restarted reports, at its next snapshot, what one that was not
// would have reported; but for which of an endpoint's processes holds which of its
// sockets, which it does not know yet.
func TestRestartAgainstNoRestart(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 2))
		cookie := uint64(0)
		var live []seen
		step := func() {
			for range random.IntN(6) {
				if len(live) > 0 && random.IntN(2) == 0 {
					live = slices.Delete(live, 0, 1)
					continue
				}
				cookie++
				live = append(live, seen{cookie, uint16(80 + random.IntN(3)), web, []int{1 + random.IntN(3)}})
			}
		}
		old := tracking(0)
		for second := 1.0; second < 5; second++ {
			step()
			dump(old, ns1, second, live...)
		}
		fresh := restarted(t, old)
		revision := old.Revision()
		step()
		got := resume(fresh, ns1, 60, model.SourceSockDiag, live...)
		want := slices.DeleteFunc(dump(old, ns1, 60, live...), func(line string) bool { return strings.Contains(line, "changed") })
		if len(want) > 0 && old.Revision() == revision {
			t.Errorf("seed %d: the revision did not rise", seed)
		}
		if text := strings.ReplaceAll(fmt.Sprint(got), "restart", "sock_diag"); text != fmt.Sprint(want) {
			t.Fatalf("seed %d: restarted %q\nnot restarted %q", seed, got, want)
		}
	}
}
