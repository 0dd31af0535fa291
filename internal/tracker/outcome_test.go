package tracker

import (
	"slices"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// checkFacts compares the state with the history where all of it was observed.
func (r *run) checkFacts() {
	for key, s := range r.sites {
		if !r.silent || !s.all(byFact, byCount) || s.ambiguous && (s.group || !r.inTurn) {
			continue
		}
		want := slices.ContainsFunc(s.lives, func(l *life) bool { return l.closed == endless })
		got := len(r.cookies(key)) > 0
		if got != want {
			r.fail("%s:%d is open: %v, want %v", key.Container, key.Port, got, want)
		}
	}
}

// checkBalance compares the numbers of openings and closings where they can be
// right.
func (r *run) checkBalance() (checked int) {
	for key, s := range r.sites {
		facts := s.all(byFact) && !s.outOfTurn && !slices.ContainsFunc(s.lives, func(l *life) bool { return l.missed })
		if s.group || s.shown || r.grace > 0 || !(facts || r.inTurn && s.all(byFact, byCount)) || len(s.lives) == 0 {
			continue
		}
		checked++
		closings := 0
		for _, l := range s.lives {
			if l.closed != endless {
				closings++
			}
		}
		if s.opened != len(s.lives) || s.closed != closings {
			r.fail("%s:%d: %d openings and %d closings are accounted for, want %d and %d",
				key.Container, key.Port, s.opened, s.closed, len(s.lives), closings)
		}
	}
	return checked
}

// checkEnd compares the state with a snapshot of the end of the history.
func (r *run) checkEnd(all []*site) {
	for second := range 2 {
		end := at(200 + 10*float64(second))
		for _, id := range []model.Namespace{ns1, ns2} {
			before := len(r.log)
			r.snapshot(id, Snapshot{Began: end, Time: end, Source: model.SourceSockDiag, Sockets: table(id, all, func() clock.Instant { return end })})
			if second > 0 && len(r.log) > before+1 {
				r.fail("the second of two equal snapshots led to changes")
			}
		}
		r.take(r.tracker.Expire(nil, end.Add(r.grace)))
	}
	want := 0
	for key, s := range r.sites {
		var open []model.Socket
		for _, l := range s.lives {
			if l.closed == endless {
				open = append(open, l.Socket)
			}
		}
		if len(open) > 0 {
			want++
		}
		got := r.cookies(key)
		if !slices.Equal(got, cookiesOf(open)) || s.isOpen != (len(open) > 0) {
			r.fail("%s:%d has the sockets %v and was reported open: %v, want the sockets %v", key.Container, key.Port, got, s.isOpen, cookiesOf(open))
		}
	}
	checkIndexes(r, want)
}

// checkIndexes compares the indexes with each other.
func checkIndexes(r *run, want int) {
	tr := r.tracker
	tr.Prune(at(1000))
	open := describe(tr.Open())
	byNamespace := slices.Concat(describe(tr.OpenIn(ns1)), describe(tr.OpenIn(ns2)))
	byContainer := slices.Concat(describe(tr.OpenOf("db")), describe(tr.OpenOf("web")))
	slices.Sort(byNamespace)
	if len(open) != want || !slices.Equal(open, byContainer) || !slices.Equal(slices.Sorted(slices.Values(open)), byNamespace) {
		r.fail("open are %q, by container %q, by namespace %q", open, byContainer, byNamespace)
	}
	for _, ns := range tr.namespaces {
		for _, n := range ns.counts {
			if n.standIn == nil || n.standIn.generation != ns.generation || n.lost > 0 {
				r.fail("a count is left over: %+v", n)
			}
		}
		if ns.ended.recent.endings != nil || ns.counted.recent.endings != nil {
			r.fail("tombstones are left over")
		}
	}
	if _, ok := tr.NextExpiry(); ok {
		r.fail("an expiry is left over")
	}
}
