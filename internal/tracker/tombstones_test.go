package tracker

import (
	"math/rand/v2"
	"testing"

	"portwatcher/internal/clock"
)

func (t *tombstones[K]) size() int { return len(t.recent.endings) + len(t.older.endings) }

// Facts that come out of order in time are remembered as long as others, and the
// old ones are forgotten all the same.
func TestTombstonesOutOfOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var ends tombstones[uint64]
	const number, rate = 100_000, 100 // a second
	for i := range number {
		second := float64(i) / rate
		ends.add(uint64(i), ending{at(second - random.Float64()*10), true}) // up to 10 s late
		for _, back := range []int{0, rate} {
			if j := i - back; j >= 0 {
				if _, ok := ends.get(uint64(j)); !ok {
					t.Fatalf("the close of %d was forgotten at second %v", j, second)
				}
			}
		}
		if size := ends.size(); size > 10*rate {
			t.Fatalf("%d are remembered at second %v", size, second)
		}
	}
	last := uint64(number)
	ends.add(last, ending{at(number / rate), true})
	ends.add(last+1, ending{at(1), true})
	ends.prune(at(number/rate + 1))
	if _, ok := ends.get(last); !ok {
		t.Error("an old fact had a new one forgotten")
	}
	ends.prune(at(number/rate + 10))
	if ends.size() > 0 {
		t.Errorf("%d are remembered after all", ends.size())
	}
}

// A close that is reported for a later moment than it is does not let the
// tombstones grow without bound.
func TestTombstonesAreBounded(t *testing.T) {
	var ends tombstones[uint64]
	ends.add(0, ending{at(1e6), true})
	for i := range uint64(3*maxEndings + 10) {
		ends.add(i+1, ending{at(1), true})
	}
	if size := ends.size(); size > 2*maxEndings {
		t.Errorf("%d are remembered, want %d at most", size, 2*maxEndings)
	}
}

func TestTombstonesOfOneKey(t *testing.T) {
	for _, test := range []struct {
		name    string
		endings []ending
		want    ending
	}{
		{"a later fact", []ending{{at(1), true}, {at(2), true}}, ending{at(2), true}},
		{"an earlier fact", []ending{{at(2), true}, {at(1), true}}, ending{at(2), true}},
		{"a fact after a snapshot", []ending{{at(2), false}, {at(1), true}}, ending{at(1), true}},
		{"a snapshot after a fact", []ending{{at(1), true}, {at(3), false}}, ending{at(3), false}},
	} {
		var ends tombstones[uint64]
		for _, e := range test.endings {
			ends.add(1, e)
		}
		if got, _ := ends.get(1); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// A snapshot that took longer than closes are remembered opens nothing.
func TestOldSnapshotOpensNothing(t *testing.T) {
	tr := tracking(0)
	exactly(tr, 1, 1, 80)
	ends(tr, 2, 1)
	for second := 5; second < 30; second += 5 {
		ends(tr, float64(second), uint64(100+second))
	}
	expect(t, dumpSince(tr, ns1, 1.9, 30, seen{1, 80, web, nil}, seen{2, 81, web, nil}))
	expect(t, dumpSince(tr, ns1, 30, 31, seen{2, 81, web, nil}), "31 opened web:81 [] sock_diag")
}

// Before the first closes are forgotten any snapshot is as good as another.
func TestFirstSnapshotAfterBoot(t *testing.T) {
	var ends tombstones[uint64]
	if ends.outdates(1, clock.Instant(1)) {
		t.Error("a snapshot right after the start of the host is outdated")
	}
}

// Of an endpoint, the fact of an opening may come before that of the close before.
func TestOpenedBeforeTheCloseBefore(t *testing.T) {
	tr := tracking(0)
	exactly(tr, 1, 1, 80, 10)
	expect(t, exactly(tr, 3, 2, 80, 20))
	expect(t, ends(tr, 2, 1), "2 closed web:80 [10 20] ebpf since 1", "3 opened web:80 [20] ebpf")
	// A snapshot had the next one before its fact.
	expect(t, dumpSince(tr, ns1, 3.8, 3.9, seen{2, 80, web, nil}, seen{3, 80, web, nil}))
	expect(t, exactly(tr, 3.7, 3, 80, 30))
	expect(t, ends(tr, 3.6, 2), "3.6 closed web:80 [20 30] ebpf since 3", "3.7 opened web:80 [30] ebpf")
}
