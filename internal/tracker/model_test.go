package tracker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// reference is the tracker's specification, written for clearness alone: it keeps
// the sockets of the last snapshot of each namespace, and finds the changes of an
// endpoint by comparing the sets of its sockets before and after.
type reference struct {
	grace float64
	world map[socketKey]seen
	// open has what was last reported of each endpoint; pending the moment
	// from which on an endpoint of it has no socket.
	open    map[string]reported
	pending map[string]pendingClose
}

type socketKey struct {
	ns     model.Namespace
	cookie uint64
}

type reported struct {
	since    float64
	pids     []int // that hold it, as far as is known
	reported []int // by the last change, or the first known
}

type pendingClose struct {
	second float64
	source model.Source
}

func (s seen) endpoint() string { return fmt.Sprintf("%s:%d", s.container.ID, s.port) }

// endpoints groups a world's sockets that are of interest.
func endpoints(world map[socketKey]seen) map[string]map[socketKey]seen {
	all := map[string]map[socketKey]seen{}
	for key, s := range world {
		if s.container == nil {
			continue
		}
		if all[s.endpoint()] == nil {
			all[s.endpoint()] = map[socketKey]seen{}
		}
		all[s.endpoint()][key] = s
	}
	return all
}

func pidsOf(sockets map[socketKey]seen) []int {
	var pids []int
	for _, s := range sockets {
		pids = append(pids, s.pids...)
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// allKnown reports that somebody is known to hold each of the sockets.
func allKnown(sockets map[socketKey]seen) bool {
	for _, s := range sockets {
		if len(s.pids) == 0 {
			return false
		}
	}
	return true
}

func overlap[T comparable](a, b []T) bool {
	return slices.ContainsFunc(a, func(x T) bool { return slices.Contains(b, x) })
}

// left reports that one of a group of sockets has gone, and another stayed.
func left(old, now map[socketKey]seen) bool {
	gone, stayed := false, false
	for key := range old {
		_, stays := now[key]
		gone, stayed = gone || !stays, stayed || stays
	}
	return gone && stayed
}

func (m *reference) dump(ns model.Namespace, second float64, sockets []seen) []string {
	next := maps.Clone(m.world)
	maps.DeleteFunc(next, func(k socketKey, _ seen) bool { return k.ns == ns })
	for _, s := range sockets {
		key := socketKey{ns, s.cookie}
		if known, ok := m.world[key]; ok {
			s.pids = known.pids // asked for once
		}
		next[key] = s
	}
	return m.move(next, second, model.SourceSockDiag)
}

// ask looks up who holds the sockets now. Where none is found, the last known
// stay.
func (m *reference) ask(ns model.Namespace, second float64, sockets []seen) []string {
	next := maps.Clone(m.world)
	for _, s := range sockets {
		key := socketKey{ns, s.cookie}
		if known, ok := next[key]; ok && len(s.pids) > 0 {
			known.pids = s.pids
			next[key] = known
		}
	}
	return m.move(next, second, model.SourceProc)
}

// closes takes the exact close of a socket.
func (m *reference) closes(ns model.Namespace, second float64, cookie uint64) []string {
	next := maps.Clone(m.world)
	delete(next, socketKey{ns, cookie})
	return m.move(next, second, model.SourceDestroy)
}

func (m *reference) end(id string, second float64) []string {
	next := maps.Clone(m.world)
	maps.DeleteFunc(next, func(_ socketKey, s seen) bool { return s.container != nil && s.container.ID == id })
	return m.move(next, second, model.SourceEngine)
}

// move takes the world to its next state.
func (m *reference) move(next map[socketKey]seen, second float64, source model.Source) []string {
	var lines []string
	before, after := endpoints(m.world), endpoints(next)
	keys := map[string]bool{}
	for key := range before {
		keys[key] = true
	}
	for key := range after {
		keys[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		old, now := before[key], after[key]
		if maps.EqualFunc(old, now, func(a, b seen) bool { return slices.Equal(a.pids, b.pids) }) {
			continue
		}
		last, isOpen := m.open[key]
		_, isPending := m.pending[key]
		pids := pidsOf(now)
		closed := fmt.Sprintf("%v closed %s %v %s since %v", second, key, last.pids, source, last.since)
		opened := fmt.Sprintf("%v opened %s %v %s", second, key, pids, source)
		kept := overlap(slices.Collect(maps.Keys(old)), slices.Collect(maps.Keys(now)))
		switch {
		case len(now) == 0 && m.grace > 0 && isOpen && !isPending:
			m.pending[key] = pendingClose{second, source}
		case len(now) == 0 && isOpen && !isPending:
			lines = append(lines, closed)
			delete(m.open, key)
		case len(now) == 0:
		case !isOpen:
			lines = append(lines, opened)
			m.open[key] = reported{second, pids, pids}
		case m.grace == 0 && !kept:
			lines = append(lines, closed, opened)
			m.open[key] = reported{second, pids, pids}
		default:
			delete(m.pending, key)
			if len(pids) > 0 {
				last.pids = pids
			}
			switch {
			case len(last.reported) == 0, left(old, now): // another of the group stayed
				last.reported = last.pids
			case allKnown(now) && !overlap(pids, last.reported):
				lines = append(lines, fmt.Sprintf("%v changed %s %v %s", second, key, pids, source))
				last.reported = pids
			}
			m.open[key] = last
		}
	}
	m.world = next
	return lines
}

func (m *reference) expire(second float64) []string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(m.pending)) {
		waiting, last := m.pending[key], m.open[key]
		if second-waiting.second >= m.grace {
			lines = append(lines, fmt.Sprintf("%v closed %s %v %s since %v", waiting.second, key, last.pids, waiting.source, last.since))
			delete(m.pending, key)
			delete(m.open, key)
		}
	}
	return lines
}

// TestAgainstModel does the same random things to the tracker and the model.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		for _, grace := range []float64{0, 3} {
			if !against(t, seed, grace) {
				t.Fatalf("seed %d, grace %v", seed, grace)
			}
		}
	}
}

func FuzzAgainstModel(f *testing.F) {
	f.Add(uint64(1), true)
	f.Add(uint64(2), false)
	f.Fuzz(func(t *testing.T, seed uint64, graceful bool) {
		grace := 0.0
		if graceful {
			grace = 3
		}
		against(t, seed, grace)
	})
}

func against(t *testing.T, seed uint64, grace float64) bool {
	random := rand.New(rand.NewPCG(seed, 1))
	tr := tracking(time.Duration(grace * float64(time.Second)))
	m := &reference{grace: grace, world: map[socketKey]seen{}, open: map[string]reported{}, pending: map[string]pendingClose{}}
	live := map[model.Namespace][]seen{} // what the kernel has
	cookie := uint64(0)
	for second := 1.0; second < 120; second++ {
		ns := []model.Namespace{ns1, ns2}[random.IntN(2)]
		var got, want []string
		var did string
		switch action := random.IntN(14); {
		case action < 3:
			cookie++
			s := seen{cookie, uint16(80 + random.IntN(3)), []*model.Container{web, db, nil}[random.IntN(3)], pick(random)}
			live[ns] = append(live[ns], s)
			continue
		case action < 5:
			if n := len(live[ns]); n > 0 {
				i := random.IntN(n)
				live[ns] = slices.Delete(live[ns], i, i+1)
			}
			continue
		case action < 6: // a snapshot that fails changes nothing
			did = "failed dump"
			tr.Failed(ns)
		case action < 7:
			did = "container web ends"
			for _, one := range []model.Namespace{ns1, ns2} {
				live[one] = slices.DeleteFunc(live[one], func(s seen) bool { return s.container == web })
			}
			got, want = describe(tr.CloseContainer(nil, "web", at(second), model.SourceEngine)), m.end("web", second)
		case action < 8:
			did = "expire"
			got, want = describe(tr.Expire(nil, at(second))), m.expire(second)
		case action < 9: // workers come and go, or another process holds the endpoint
			if n := len(live[ns]); n > 0 {
				live[ns][random.IntN(n)].pids = pick(random)
			}
			continue
		case action < 11:
			asked := slices.DeleteFunc(slices.Clone(live[ns]), func(seen) bool { return random.IntN(4) == 0 })
			did = fmt.Sprintf("ask who holds %v in %v", asked, ns)
			got, want = held(tr, ns, second, asked...), m.ask(ns, second, asked)
		case action < 12:
			n := len(live[ns])
			if n == 0 {
				continue
			}
			i := random.IntN(n)
			closed := live[ns][i]
			live[ns] = slices.Delete(live[ns], i, i+1)
			did = fmt.Sprintf("%v closes in %v", closed, ns)
			changes, _ := tr.Closed(nil, ns, closed.cookie, at(second), model.SourceDestroy)
			got, want = describe(changes), m.closes(ns, second, closed.cookie)
		default:
			did = fmt.Sprintf("dump of %v: %v", ns, live[ns])
			got, want = dump(tr, ns, second, live[ns]...), m.dump(ns, second, live[ns])
		}
		if !slices.Equal(got, want) {
			t.Errorf("second %v, %s:\n  tracker %q\n  model   %q", second, did, got, want)
			return false
		}
		inside := slices.DeleteFunc(tr.Open(), func(c Change) bool { return c.Namespace != ns })
		if got, want := describe(tr.OpenIn(ns)), describe(inside); !slices.Equal(got, want) {
			t.Errorf("second %v, open in %v: %q, of all %q", second, ns, got, want)
			return false
		}
	}
	return true
}

// pick returns the pids of none, one or two of a few processes.
func pick(random *rand.Rand) []int {
	var pids []int
	for pid := 1; pid < 4; pid++ {
		if random.IntN(3) == 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}
