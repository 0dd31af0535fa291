package expect

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"portwatcher/internal/model"
)

var randomFiles = []string{
	"",
	"version: 1\nexpect: []\n",
	onlyWeb,
	shop,
	"version: 1\nexpect:\n  - {target: 'shop/*', port: 80-90, exposure: network, process: nginx}\n  - {target: web, port: 80/tcp, exposure: published, required: true, for: 10s}\n",
	"version: 1\nexpect:\n  - {target: web, port: '80,81', exposure: host}\n  - {target: 'shop/db,solo', port: '80/tcp,81/tcp', exposure: network, required: true, for: 5s}\n",
	"version: 1\nexpect:\n  - {target: '!solo', port: 1-65535, exposure: network, process: sh}\n",
}

// TestRandom compares a judge after each of many random steps with [Compare], which has no
// state, and what its events leave in their consumers with its own state.
func TestRandom(t *testing.T) {
	names := []string{"shop/web/1", "shop/web/2", "shop/db/1", "web", "solo"}
	exposures := []model.Exposure{model.Loopback, model.Network, model.Published, model.Host, ""}
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1))
		pick := func(n int) int { return random.IntN(n) }
		r := newRig(t, randomFiles[pick(len(randomFiles))])
		r.Start(r.now(), r.wall())
		running := map[string]*model.ContainerRef{}
		ports := []uint16{80, 81, 85, 5432, 9999}
		for step := range 400 {
			name := names[pick(len(names))]
			ref := running[name]
			port := ports[pick(len(ports))]
			l := model.Listener{}
			if ref != nil {
				l = listener(ref, port, exposures[pick(len(exposures))], []string{"", "nginx", "sh"}[pick(3)])
			}
			_, open := r.open[l.Endpoint()]
			switch action := pick(20); {
			case action == 0:
				file := randomFiles[pick(len(randomFiles))]
				if file == "" {
					r.SetFile(nil, r.wall())
				} else {
					r.SetFile(parsed(t, file), r.wall())
				}
				r.reconcile("the expectations have changed")
			case action == 1:
				r.pass(1 + pick(40))
			case ref == nil && action < 6:
				if name == "solo" && pick(2) == 0 {
					running[name] = r.start(name, "80/tcp@published,85@network")
				} else {
					running[name] = r.start(name)
				}
			case ref == nil:
			case action == 6:
				r.stop(ref)
				delete(running, name)
			case !open:
				r.event(model.Opened, l)
			case action < 14:
				r.event(model.Changed, l)
			default:
				r.close(ref, port)
			}
			if failure := r.compare(); failure != "" {
				t.Fatalf("seed %d, step %d: %s", seed, step, failure)
			}
			r.second++
		}
	}
}

// compare returns how the judge differs from what it should be.
func (r *rig) compare() string {
	state := State{Time: r.wall()}
	for _, o := range r.open {
		state.Open = append(state.Open, o)
	}
	for _, ref := range r.refs {
		state.Containers = append(state.Containers, ref)
	}
	var want, missing []string
	uncovered := map[string]bool{}
	for _, d := range Compare(r.file, state) {
		switch d.Drift {
		case model.DriftMissing:
			missing = append(missing, describedDrift(&d))
		case model.DriftUncovered:
			uncovered[d.Target] = true
		default:
			want = append(want, fmt.Sprint(describedDrift(&d), " ", d.Endpoints))
		}
	}
	var got []string
	for _, d := range r.Open() {
		switch d.Drift {
		case model.DriftMissing:
			// Where no container runs, the judge has the target that ran last, Compare the entry's text.
			if r.runs(d.Target) && !slices.Contains(missing, describedDrift(&d)) || len(missing) == 0 {
				return fmt.Sprintf("%s, but it is not required, or open", describedDrift(&d))
			}
		case model.DriftUncovered:
			delete(uncovered, d.Target)
			if !r.runs(d.Target) || !r.file.coverOf(d.Container, r.named).uncovered(r.wall()) {
				return d.Target + " is uncovered, but it does not run or is covered"
			}
		default:
			got = append(got, fmt.Sprint(describedDrift(&d), " ", d.Endpoints))
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Sprintf("drifts\n  got  %q\n  want %q", got, want)
	}
	if len(uncovered) > 0 {
		return fmt.Sprintf("these targets are uncovered, and are not reported: %v", uncovered)
	}
	for endpoint, o := range r.set.All() {
		if d, _ := r.Of(endpoint); o.Drift != d {
			return fmt.Sprintf("the events leave %v with drift %q, the judge has %q", endpoint, o.Drift, d)
		}
	}
	lasting := 0
	for _, p := range r.periods {
		if p.Ended.IsZero() {
			lasting++
		}
	}
	lingering := 0
	for key, p := range r.Judge.periods {
		if len(p.open) > 0 || key.Drift == model.DriftUncovered {
			lingering++
		}
	}
	if lasting != lingering {
		return fmt.Sprintf("%d periods last in the record, %d in the judge: %+v", lasting, lingering, r.periods)
	}
	return ""
}

// TestRandomMissing: a required port that is absent for long enough is missing, whatever happened
// before.
func TestRandomMissing(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 2))
		r := newRig(t, shop)
		r.Start(r.now(), r.wall())
		var db *model.ContainerRef
		for range 100 {
			switch action := random.IntN(6); {
			case db == nil && action < 3:
				db = r.start("shop/db/1")
			case db == nil:
			case action == 0:
				r.stop(db)
				db = nil
			case action < 3 && len(r.open) == 0:
				r.opens(db, 5432, model.Network)
			case action < 4 && len(r.open) > 0:
				r.close(db, 5432)
			}
			r.pass(random.IntN(50))
			if missing := len(r.Open()) > 0; missing && len(r.open) > 0 {
				t.Fatalf("seed %d: it is open and missing", seed)
			}
		}
		r.pass(61)
		if missing := len(r.Open()) > 0; missing == (len(r.open) > 0) {
			t.Fatalf("seed %d: open %v, missing %v", seed, len(r.open) > 0, missing)
		}
	}
}
