package alert

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// randomRules have every kind of rule, and every way to hold back.
const randomRules = `
group_wait: 5s
repeat: 1h
max_per_hour: 20
quiet: [{from: "21:00", to: "22:30", except: critical}]
rules:
  - {name: drift, when: 'drift != ""', severity: critical, to: [ops, am]}
  - {name: slow-drift, when: 'drift == "unexpected"', for: 20s, to: [ops]}
  - {name: stays, when: 'type == "opened" && outside', for: 30s, to: [ops]}
  - {name: gone, when: 'type == "closed" && exposure == "published" && running', for: 15s, to: [ops]}
  - {name: moment, when: 'type == "gap" || transient', severity: info, to: [ops]}
  - {name: widened, when: 'widened()', severity: critical, to: [ops]}
`

// randomScript does something, the same for equal seeds.
func randomScript(r *rig, random *rand.Rand) {
	container := fmt.Sprintf("%s/web/%d", []string{"shop", "blog"}[random.IntN(2)], random.IntN(3))
	port := 80 + random.IntN(3)
	exposure := []string{"network", "published", "host"}[random.IntN(3)]
	drifted := func(e *model.Event) {
		e.Drift = []model.Drift{"", "", model.DriftUnexpected, model.DriftWider}[random.IntN(4)]
	}
	switch random.IntN(8) {
	case 0, 1:
		r.event(fmt.Sprintf("opened %s %d %s", container, port, exposure), drifted)
	case 2, 3:
		r.event(fmt.Sprintf("closed %s %d %s", container, port, exposure), drifted)
	case 4:
		r.event(fmt.Sprintf("changed %s %d %s", container, port, exposure), drifted, func(e *model.Event) {
			e.Change, e.PreviousExposure = model.ChangeExposure, model.Network
		})
	case 5:
		r.event(fmt.Sprintf("drift %s %d %s", container, port, exposure), drift(model.DriftUnexpected), func(e *model.Event) { e.Ended = random.IntN(2) == 0 })
	case 6:
		r.event("gap")
	case 7:
		r.event(fmt.Sprintf("opened %s %d %s", container, port, exposure), transient)
	}
	r.wait(time.Duration(random.IntN(40)) * time.Second)
}

// TestRandom: what is sent does not depend on restarts, and what is sent in one go is what a
// receiver may be sent: bounded in an hour, nothing but critical in quiet hours, an end only after
// a beginning.
func TestRandom(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		seed := uint64(time.Now().UnixNano())
		plain, restarted := newRig(t, parse(t, randomRules+receivers)), newRig(t, parse(t, randomRules+receivers))
		a, b := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 1))
		restarts := rand.New(rand.NewPCG(seed, 2))
		for range 600 {
			randomScript(plain, a)
			randomScript(restarted, b)
			if restarts.IntN(5) == 0 {
				restarted.restart()
			}
		}
		for _, r := range []*rig{plain, restarted} {
			once := *r.core.config
			once.Repeat = 0 // nothing comes any more
			r.core.configure(&once)
			r.wait(3 * time.Hour)
		}
		if !slices.Equal(plain.log, restarted.log) {
			t.Fatalf("seed %d: with restarts it sent\n  %s\nwithout\n  %s", seed, strings.Join(restarted.log, "\n  "), strings.Join(plain.log, "\n  "))
		}
		checkSent(t, seed, plain)
	}
}

// checkSent checks the invariants of what was sent.
func checkSent(t *testing.T, seed uint64, r *rig) {
	t.Helper()
	if len(r.sent) < 50 {
		t.Errorf("seed %d: only %d messages", seed, len(r.sent))
	}
	ids := map[string]bool{}
	var times []time.Time
	begun := map[string]bool{}
	for i, n := range r.sent {
		if ids[n.ID] || len(n.Alerts) == 0 {
			t.Errorf("seed %d: the id %s is not new, or without alerts", seed, n.ID)
		}
		ids[n.ID] = true
		ops := strings.Contains(r.log[i], " ops: ")
		for j := range n.Alerts {
			a := &n.Alerts[j]
			begin := fmt.Sprint(ops, a.Key, a.Since)
			if a.Status == "resolved" && a.Until.Before(a.Since) {
				t.Errorf("seed %d: %s ends before it begins", seed, a.Key)
			}
			if a.Status == "resolved" && begun[begin+"ended"] {
				t.Errorf("seed %d: %s ends twice", seed, a.Key)
			}
			begun[begin+strings.TrimPrefix(string(a.Status), "resolv")] = true
			if ops && r.core.config.quietly(n.Time, a.Severity) {
				t.Errorf("seed %d: %s was sent in quiet hours: %s", seed, a.Key, r.log[i])
			}
		}
		if !ops {
			continue
		}
		times = append(times, n.Time)
		if first := len(times) - 1 - r.core.config.MaxPerHour; first >= 0 && n.Time.Sub(times[first]) < time.Hour {
			t.Errorf("seed %d: %d messages within %s", seed, r.core.config.MaxPerHour+1, n.Time.Sub(times[first]))
		}
	}
	if waiting := r.core.receivers["ops"].waiting(); waiting > 0 {
		t.Errorf("seed %d: %d alerts wait after everything is over", seed, waiting)
	}
}
