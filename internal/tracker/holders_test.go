package tracker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// held gives the tracker the answer to a lookup of who holds sockets now.
func held(tr *Tracker, ns model.Namespace, second float64, sockets ...seen) []string {
	return describe(tr.Held(nil, answer(ns, second, second, sockets...)))
}

func answer(ns model.Namespace, began, ended float64, sockets ...seen) Lookup {
	l := Lookup{Began: at(began), Time: at(ended), Source: model.SourceProc}
	for _, s := range sockets {
		l.Holdings = append(l.Holdings, Holding{Namespace: ns, Cookie: s.cookie, Processes: processes(s.pids)})
	}
	return l
}

// of is a socket with the pids that were found to hold it.
func of(cookie uint64, pids ...int) seen { return seen{cookie: cookie, pids: pids} }

// Who holds a port is found after its opening; it is reported only where none is
// left of those who were reported.
func TestHeld(t *testing.T) {
	for _, test := range []struct {
		name    string
		opened  []seen // at second 1, web:80
		lookups [][]seen
		want    []string // from second 2 on, one lookup a second
		open    string   // the processes in the end
	}{
		{"nothing new", []seen{of(1, 10)}, [][]seen{{of(1, 10)}}, nil, "[10]"},
		{"workers join", []seen{of(1, 10)}, [][]seen{{of(1, 10, 11, 12)}}, nil, "[10 11 12]"},
		{"workers are replaced", []seen{of(1, 10, 11)}, [][]seen{{of(1, 10, 12)}}, nil, "[10 12]"},
		{"a fork whose parent ends", []seen{of(1, 10)}, [][]seen{{of(1, 10, 11)}, {of(1, 11)}}, []string{"3 changed web:80 [11] proc"}, "[11]"},
		{"an inherited socket", []seen{of(1, 10)}, [][]seen{{of(1, 11)}}, []string{"2 changed web:80 [11] proc"}, "[11]"},
		{"again and again", []seen{of(1, 10)}, [][]seen{{of(1, 11)}, {of(1, 12)}, {of(1, 12)}},
			[]string{"2 changed web:80 [11] proc", "3 changed web:80 [12] proc"}, "[12]"},
		{"first known later", []seen{of(1)}, [][]seen{{of(1, 10)}, {of(1, 11)}}, []string{"3 changed web:80 [11] proc"}, "[11]"},
		{"none found", []seen{of(1, 10)}, [][]seen{{of(1)}}, nil, "[10]"},
		{"one of two sockets unknown", []seen{of(1, 10), of(2)}, [][]seen{{of(1, 11)}, {of(2, 12)}},
			[]string{"3 changed web:80 [11 12] proc"}, "[11 12]"},
		{"one of two sockets stays", []seen{of(1, 10), of(2, 20)}, [][]seen{{of(1, 11)}}, nil, "[11 20]"},
		{"both sockets at once", []seen{of(1, 10), of(2, 20)}, [][]seen{{of(1, 20), of(2, 10)}}, nil, "[10 20]"},
		{"a socket that is gone", []seen{of(1, 10)}, [][]seen{{of(9, 11)}}, nil, "[10]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := tracking(0)
			for i := range test.opened {
				test.opened[i].port, test.opened[i].container = 80, web
			}
			dump(tr, ns1, 1, test.opened...)
			var got []string
			for i, one := range test.lookups {
				got = append(got, held(tr, ns1, float64(i+2), one...)...)
			}
			expect(t, got, test.want...)
			expect(t, describe(tr.Open()), strings.TrimSpace("1 opened web:80 "+test.open+" "+lastSource(test.want)))
			expect(t, dump(tr, ns1, 60), "60 closed web:80 "+test.open+" sock_diag since 1")
		})
	}
}

func lastSource(changes []string) string {
	if len(changes) == 0 {
		return "sock_diag"
	}
	return "proc"
}

// One of a group of sockets leaves (SO_REUSEPORT): the others held the port before,
// and a lookup of them finds nothing new.
func TestGroupMemberLeaves(t *testing.T) {
	for _, test := range []struct {
		name string
		pids []int // of the second socket
		open string
	}{
		{"another process", []int{20}, "[20]"},
		{"the same process", []int{10}, "[10]"},
		{"with the first", []int{10, 20}, "[10 20]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := tracking(0)
			exactly(tr, 1, 1, 80, 10)
			expect(t, exactly(tr, 2, 2, 80, test.pids...))
			expect(t, ends(tr, 3, 1))
			expect(t, held(tr, ns1, 4, of(2, test.pids...)))
			expect(t, describe(tr.Open()), "1 opened web:80 "+test.open+" ebpf")
			expect(t, held(tr, ns1, 5, of(2, 30)), "5 changed web:80 [30] proc")
		})
	}
}

// Of two lookups the later one is right, whichever answer comes first.
func TestHeldOutOfOrder(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	expect(t, describe(tr.Held(nil, answer(ns1, 3, 4, of(1, 11)))), "4 changed web:80 [11] proc")
	expect(t, describe(tr.Held(nil, answer(ns1, 2, 5, of(1, 10)))))
	expect(t, describe(tr.Open()), "1 opened web:80 [11] proc")
}

// Processes of another pid namespace replace the known ones, and are no change.
func TestHeldIncomparable(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, []int{1000}})
	l := answer(ns1, 2, 2, of(1, 10))
	l.Incomparable = true
	expect(t, describe(tr.Held(nil, l)))
	expect(t, describe(tr.Open()), "1 opened web:80 [10] sock_diag")
}

// An exec leaves the process what it is; its name is right from then on.
func TestHeldAfterExec(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	l := answer(ns1, 2, 2, of(1, 10))
	l.Holdings[0].Processes[0].Name = "server"
	revision := tr.Revision()
	expect(t, describe(tr.Held(nil, l)))
	if open := tr.Open(); open[0].Processes[0].Name != "server" || tr.Revision() == revision {
		t.Errorf("%+v, revision %d after %d; want the new name, and a new revision", open[0].Processes, tr.Revision(), revision)
	}
	revision = tr.Revision()
	l.Holdings[0].Processes = slices.Clone(l.Holdings[0].Processes)
	tr.Held(nil, l)
	if tr.Revision() != revision {
		t.Error("the revision rose although nothing has changed")
	}
}

// What the first lookup finds after a restart happened meanwhile.
func TestHeldAfterRestart(t *testing.T) {
	old := tracking(0)
	dump(old, ns1, 1, seen{1, 80, web, []int{10}}, seen{2, 81, web, []int{10}})
	tr := restarted(t, old)
	resume(tr, ns1, 60, model.SourceSockDiag, seen{1, 80, web, nil}, seen{2, 81, web, nil})
	fresh, _ := tr.Fresh(nil, ns1, at(60))
	if len(fresh) != 2 {
		t.Fatalf("%+v; want both sockets to be looked up again", fresh)
	}
	expect(t, held(tr, ns1, 61, of(1, 11), of(2, 10)), "61 changed web:80 [11] restart")
	expect(t, held(tr, ns1, 62, of(1, 12), of(2, 12)), "62 changed web:80 [12] proc", "62 changed web:81 [12] proc")
}

// A port that comes back within the close grace is compared with what was reported.
func TestHeldWithinTheGrace(t *testing.T) {
	tr := tracking(5 * time.Second)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}})
	dump(tr, ns1, 2)
	expect(t, held(tr, ns1, 2.5, of(1, 11))) // the answer is about a socket that is gone
	expect(t, dump(tr, ns1, 3, seen{2, 80, web, nil}))
	expect(t, held(tr, ns1, 4, of(2, 20)), "4 changed web:80 [20] proc")
}

func TestHoldings(t *testing.T) {
	tr := tracking(time.Minute)
	dump(tr, ns1, 1, seen{1, 80, web, []int{10}}, seen{2, 80, web, []int{20}}, seen{3, 81, web, []int{30}}, seen{4, 82, nil, []int{10}}, seen{5, 83, web, []int{10}})
	dump(tr, ns1, 2, seen{1, 80, web, nil}, seen{2, 80, web, nil}, seen{3, 81, web, nil}, seen{4, 82, nil, nil}) // 83 waits for its grace
	cookies := func(held func(int) bool) []uint64 {
		var all []uint64
		for _, h := range tr.Holdings(nil, held) {
			all = append(all, h.Cookie)
		}
		slices.Sort(all)
		return all
	}
	if got := cookies(func(pid int) bool { return pid == 10 }); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("sockets of the endpoints of 10: %v, want 1 and 2", got)
	}
	if got := cookies(nil); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("all sockets: %v, want 1, 2 and 3", got)
	}
	var pids []int
	tr.Holders(func(p *model.Process) { pids = append(pids, p.PID) })
	slices.Sort(pids)
	if !slices.Equal(pids, []int{10, 20, 30}) {
		t.Errorf("holders %v, want 10, 20 and 30", pids)
	}
}
