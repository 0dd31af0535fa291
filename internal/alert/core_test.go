package alert

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

const driftRules = `
group_wait: 10s
repeat: 24h
rules:
  - {name: drift, when: 'drift != ""', to: ops}
`

// A drift is notified when it begins and when it ends, whatever containers and processes do in
// between.
func TestDriftLasts(t *testing.T) {
	unexpected := drift(model.DriftUnexpected)
	for name, test := range map[string]struct {
		script func(*rig)
		want   []string
	}{
		"closed": {func(r *rig) {
			r.event("opened shop/web/1 80 published", unexpected)
			r.wait(time.Minute)
			r.event("closed shop/web/1 80 published", unexpected)
			r.wait(2 * time.Minute)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "20:02:10 ops: drift shop/web/80/tcp resolved"}},
		"a redeploy as it should be ends it at once": {func(r *rig) {
			r.event("opened shop/db/1 5432 published", drift(model.DriftWider))
			r.wait(time.Minute)
			r.event("closed shop/db/1 5432 published", drift(model.DriftWider), by(model.SourceEngine))
			r.wait(2 * time.Second)
			r.event("opened shop/db/2 5432 network")
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/db/5432/tcp", "20:01:12 ops: drift shop/db/5432/tcp resolved"}},
		"restarts and a recreated container continue it": {func(r *rig) {
			for i := range 20 {
				r.event(fmt.Sprintf("opened shop/web/%d 80 published", i/5), unexpected)
				r.wait(20 * time.Second)
				r.event(fmt.Sprintf("closed shop/web/%d 80 published", i/5), unexpected, by(model.SourceEngine))
				r.wait(50 * time.Second)
			}
			r.wait(time.Hour)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "20:23:40 ops: drift shop/web/80/tcp resolved"}},
		"a drift that one event names for several endpoints lasts while the view has it": {func(r *rig) {
			lasting := true
			r.core.ask.drifting = func(*model.Event) bool { return lasting }
			r.event("drift shop/web/1 80 published", unexpected)
			r.wait(time.Minute)
			r.event("closed shop/web/1 80 published", unexpected)
			r.wait(30 * time.Hour)
			lasting = false
			r.event("closed shop/web/2 80 published", unexpected)
			r.wait(time.Hour)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "+1d 20:00:10 ops: drift shop/web/80/tcp", "+2d 02:02:10 ops: drift shop/web/80/tcp resolved"}},
		"another process changes nothing": {func(r *rig) {
			r.event("opened shop/web/1 80 published", unexpected)
			r.wait(time.Minute)
			r.event("changed shop/web/1 80 published", unexpected)
			r.wait(time.Hour)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp"}},
		"a change without drift ends it": {func(r *rig) {
			r.event("opened shop/web/1 80 published", drift(model.DriftProcess))
			r.wait(time.Minute)
			r.event("changed shop/web/1 80 published")
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "20:01:10 ops: drift shop/web/80/tcp resolved"}},
		"another exposure is another drift": {func(r *rig) {
			r.event("opened shop/web/1 80 network", unexpected)
			r.wait(time.Minute)
			r.event("changed shop/web/1 80 published", unexpected)
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "20:01:10 ops: drift shop/web/80/tcp resolved, drift shop/web/80/tcp"}},
		"it ends with the last replica": {func(r *rig) {
			for i := 1; i <= 3; i++ {
				r.event(fmt.Sprintf("opened shop/web/%d 80 network", i), unexpected)
				r.wait(time.Minute)
			}
			for i := 1; i <= 3; i++ {
				r.event(fmt.Sprintf("closed shop/web/%d 80 network", i), unexpected)
				r.wait(3 * time.Minute)
			}
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "20:10:10 ops: drift shop/web/80/tcp resolved"}},
		"within the time of the group it is one alert": {func(r *rig) {
			r.event("opened shop/web/1 80 published", unexpected)
			r.wait(3 * time.Second)
			r.event("changed shop/web/1 80 published")
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp resolved"}},
		"a burst and a moment are over at once": {func(r *rig) {
			r.event("burst shop/web/1 80 network", unexpected, func(e *model.Event) { e.Burst = &model.Burst{Opened: 9, Closed: 9} })
			r.event("opened shop/web/1 81 network", unexpected, transient)
			r.event("closed shop/web/1 81 network", unexpected, transient)
			r.wait(100 * time.Hour)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp, drift shop/web/81/tcp"}},
		"a reload ends it": {func(r *rig) {
			r.event("opened shop/web/1 80 published", unexpected)
			r.wait(time.Minute)
			r.event("drift shop/web/1 80 published", unexpected, ended)
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "20:01:10 ops: drift shop/web/80/tcp resolved"}},
		"missing ends with an opening": {func(r *rig) {
			r.event("drift shop/db/1 5432", drift(model.DriftMissing))
			r.wait(time.Minute)
			r.event("opened shop/db/2 5432 network")
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/db/5432/tcp", "20:01:10 ops: drift shop/db/5432/tcp resolved"}},
		"missing of a target that was not seen": {func(r *rig) {
			unseen := func(e *model.Event) { e.Container = &model.ContainerRef{Name: "shop/db"} }
			r.event("drift x 5432", drift(model.DriftMissing), unseen)
			r.wait(time.Minute)
			r.event("drift x 5432", drift(model.DriftMissing), unseen, ended)
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/db/5432/tcp", "20:01:10 ops: drift shop/db/5432/tcp resolved"}},
		"uncovered": {func(r *rig) {
			r.event("drift shop/new/1", drift(model.DriftUncovered))
			r.wait(time.Minute)
			r.event("opened shop/new/1 80 network")
			r.event("drift shop/new/1", drift(model.DriftUncovered), ended)
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/new", "20:01:10 ops: drift shop/new resolved"}},
		"it is repeated while it lasts": {func(r *rig) {
			r.event("opened shop/web/1 80 published", unexpected)
			r.wait(50 * time.Hour)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "+1d 20:00:10 ops: drift shop/web/80/tcp", "+2d 20:00:10 ops: drift shop/web/80/tcp"}},
		"what is not monitored any more ends it": {func(r *rig) {
			r.event("opened shop/web/1 80 published", unexpected)
			r.wait(time.Minute)
			none := func(model.DriftKey) bool { return false }
			first := r.core.reconcile(none, nil)
			r.wait(time.Minute)
			r.core.reconcile(none, first)
			r.wait(time.Minute)
		}, []string{"20:00:10 ops: drift shop/web/80/tcp", "20:02:10 ops: drift shop/web/80/tcp resolved"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, parse(t, driftRules+receivers))
			test.script(r)
			r.want("at once", test.want...)
		})
	}
}

// A drift that lasts is not notified again after a restart.
func TestRestartRepeatsNothing(t *testing.T) {
	r := newRig(t, parse(t, driftRules+receivers))
	r.event("opened shop/web/1 80 published", drift(model.DriftUnexpected))
	r.wait(5 * time.Second)
	r.restart()
	r.wait(5 * time.Second)
	r.want("after a restart within the time of the group", "20:00:10 ops: drift shop/web/80/tcp")
	r.restart()
	r.event("opened shop/web/1 80 published", drift(model.DriftUnexpected), by(model.SourceRestart))
	r.wait(time.Hour)
	r.want("after a restart while it lasts")
	r.restart()
	r.event("closed shop/web/1 80 published", drift(model.DriftUnexpected))
	r.restart()
	r.wait(2 * time.Minute)
	r.want("its end", "21:01:20 ops: drift shop/web/80/tcp resolved")
}

// With for, an endpoint has to stay as it was.
func TestFor(t *testing.T) {
	const rules = `
group_wait: 0s
rules:
  - {name: stays, when: 'type == "opened" && outside', for: 30s, to: ops}
  - {name: gone, when: 'type == "closed" && exposure == "published" && running', for: 1m, to: ops}
`
	r := newRig(t, parse(t, rules+receivers))
	r.event("opened shop/web/1 80 published")
	r.wait(29 * time.Second)
	r.event("closed shop/web/1 80 published")
	r.wait(20 * time.Second)
	r.event("opened shop/web/2 80 published") // the other one is back
	r.wait(29 * time.Second)
	r.event("changed shop/web/2 80 published") // by another process: it stays
	r.wait(time.Second)
	r.want("opened", "20:01:19 ops: stays shop/web/80/tcp")
	r.event("changed shop/web/2 80 network")
	r.wait(time.Second)
	r.want("another exposure ends it", "20:01:19 ops: stays shop/web/80/tcp resolved")

	r.event("opened shop/api/1 90 published")
	r.wait(time.Second)
	r.event("closed shop/api/1 90 published")
	r.wait(time.Minute)
	r.want("gone", "20:02:21 ops: gone shop/api/90/tcp")
	r.event("opened shop/api/1 90 published")
	r.wait(time.Second)
	r.want("and back", "20:02:21 ops: gone shop/api/90/tcp resolved")
	r.event("closed shop/api/1 90 published")
	r.wait(10 * time.Second)
	r.stopped["shop/api/1"] = true
	r.wait(10 * time.Minute)
	r.want("its container has stopped meanwhile")
}

// The ports of the host's own processes have no container.
func TestForOfTheHost(t *testing.T) {
	r := newRig(t, parse(t, "group_wait: 0s\nrules: [{name: stays, when: 'type == \"opened\" && container_name == \"\"', for: 30s, to: ops}]"+receivers))
	host := func(e *model.Event) { e.Container = nil }
	r.event("opened x 22 host", host)
	r.wait(time.Minute)
	r.event("closed x 22 host", host)
	r.wait(2 * time.Minute)
	r.want("a port of the host", "20:00:30 ops: stays /22/tcp", "20:02:00 ops: stays /22/tcp resolved")
}

// Events that are moments are notified one time each, without an end.
func TestMoments(t *testing.T) {
	const rules = `
rules:
  - {name: blind, when: 'type == "gap"', for: 1h, to: ops}
  - {name: new, when: 'type == "opened"', to: [ops, am]}
`
	r := newRig(t, parse(t, rules+receivers))
	r.event("gap")
	r.event("opened shop/web/1 80 network")
	r.event("opened shop/web/1 80 network")
	r.wait(100 * time.Hour)
	r.want("all", "20:00:10 am: new shop/web/80/tcp, new shop/web/80/tcp",
		"20:00:10 ops: blind", "20:00:10 ops: new shop/web/80/tcp, new shop/web/80/tcp")
	ids := map[string]bool{}
	for _, n := range r.sent {
		ids[n.ID] = true
		if !strings.HasPrefix(n.ID, "node1/") {
			t.Errorf("the id %s: want host and event", n.ID)
		}
	}
	if len(ids) != len(r.sent) {
		t.Errorf("%d messages have %d ids", len(r.sent), len(ids))
	}
}

// What happens together is one message, for each host and project.
func TestGroups(t *testing.T) {
	r := newRig(t, parse(t, "rules: [{name: new, when: 'type == \"opened\"', to: ops}]"+receivers))
	for i := range 5 {
		r.event(fmt.Sprintf("opened shop/web/1 %d network", 80+i))
		r.event(fmt.Sprintf("opened blog/web/1 %d network", 80+i))
		r.wait(2 * time.Second)
	}
	r.event("opened shop/web/1 90 network")
	r.wait(time.Minute)
	var lines []string
	for _, project := range []string{"blog", "shop"} {
		line := "20:00:10 ops: "
		for i := range 5 {
			line += fmt.Sprintf("new %s/web/%d/tcp, ", project, 80+i)
		}
		lines = append(lines, strings.TrimSuffix(line, ", "))
	}
	r.want("groups", append(lines, "20:00:20 ops: new shop/web/90/tcp")...)
	for i := range maxAlerts + 1 {
		r.event(fmt.Sprintf("opened shop/web/1 %d network", 1000+i))
	}
	r.wait(time.Minute)
	if len(r.sent) != 5 || len(r.sent[3].Alerts) != maxAlerts || len(r.sent[4].Alerts) != 1 {
		t.Errorf("%d messages, want 2 more for %d alerts", len(r.sent), maxAlerts+1)
	}
}

// Quiet hours hold back all but what is excepted, and then send one digest.
func TestQuietHours(t *testing.T) {
	const rules = `
quiet: [{from: "22:00", to: "07:00", zone: Europe/Berlin, except: critical}]
rules:
  - {name: new, when: 'type == "opened"', to: [ops, am]}
  - {name: blind, when: 'type == "gap"', severity: critical, to: ops}
  - {name: drift, when: 'drift != ""', to: ops}
`
	r := newRig(t, parse(t, rules+receivers))
	r.event("opened shop/web/1 80 network")
	r.wait(2 * time.Hour) // 22:00 in UTC is 23:00 in Berlin
	r.want("before", "20:00:10 am: new shop/web/80/tcp", "20:00:10 ops: new shop/web/80/tcp")
	r.event("opened shop/web/1 81 network")
	r.event("opened blog/web/1 82 network")
	r.event("changed blog/web/1 83 network", drift(model.DriftProcess))
	r.event("gap")
	r.wait(time.Hour)
	r.event("changed blog/web/1 83 network")
	r.restart()
	r.wait(12 * time.Hour)
	r.want("the night", "22:00:10 am: new blog/web/82/tcp", "22:00:10 am: new shop/web/81/tcp", "22:00:10 ops: blind",
		"+1d 06:00:00 ops: digest [new shop/web/81/tcp, new blog/web/82/tcp, drift blog/web/83/tcp resolved]")
	if last := r.sent[len(r.sent)-1]; !last.Digest || last.Project != "" || last.Host != "node1" {
		t.Errorf("the digest is %+v, want one of no project", last)
	}
}

// The rate of each receiver is bounded; what is beyond comes as one digest.
func TestMaxPerHour(t *testing.T) {
	const rules = `
group_wait: 0s
max_per_hour: 3
rules: [{name: new, when: 'type == "opened"', to: [ops, am]}]
`
	r := newRig(t, parse(t, rules+receivers))
	for i := range 20 {
		r.event(fmt.Sprintf("opened shop/web/1 %d network", i+1))
		r.wait(time.Minute)
	}
	r.restart()
	r.wait(2 * time.Hour)
	var ops, am []string
	for _, line := range r.log {
		if strings.Contains(line, " am: ") {
			am = append(am, line)
		} else {
			ops = append(ops, line)
		}
	}
	if len(am) != 20 {
		t.Errorf("the Alertmanager was sent %d, want all 20: it bounds by itself", len(am))
	}
	if len(ops) != 4 || !strings.HasPrefix(ops[3], "21:00:00 ops: digest [new shop/web/4/tcp, ") || strings.Count(ops[3], ",") != 16 {
		t.Errorf("sent\n%s\nwant 3, and a digest of 17 after an hour", strings.Join(ops, "\n"))
	}
}

// What waits is bounded, and what is beyond is counted.
func TestBounds(t *testing.T) {
	const rules = `
quiet: [{from: "00:00", to: "23:59"}]
rules:
  - {name: new, when: 'type == "opened" && drift == ""', to: [ops]}
  - {name: drift, when: 'drift != ""', to: [ops], for: 1h}
`
	r := newRig(t, parse(t, rules+receivers))
	for i := range maxWaiting + 7 {
		r.event(fmt.Sprintf("opened c%d 80 network", i))
	}
	if r.core.dropped != 7 || r.core.receivers["ops"].waiting() != maxWaiting {
		t.Errorf("%d dropped, %d wait, want 7 and %d", r.core.dropped, r.core.receivers["ops"].waiting(), maxWaiting)
	}
	for i := range maxConditions + 3 {
		r.event(fmt.Sprintf("opened c%d 80 network", i), drift(model.DriftUnexpected))
	}
	if r.core.dropped != 10 || len(r.core.conditions) != maxConditions {
		t.Errorf("%d dropped, %d conditions, want 10 and %d", r.core.dropped, len(r.core.conditions), maxConditions)
	}
}

// The settings change while conditions last.
func TestConfigure(t *testing.T) {
	r := newRig(t, parse(t, driftRules+receivers))
	r.event("opened shop/web/1 80 published", drift(model.DriftUnexpected))
	r.wait(time.Minute)
	r.want("at first", "20:00:10 ops: drift shop/web/80/tcp")
	r.core.configure(parse(t, "repeat: 1h\nrules: [{name: drift, when: 'drift == \"unexpected\"', to: am}]"+receivers))
	r.wait(2 * time.Hour)
	r.want("another rule of the name goes on", "21:00:10 am: drift shop/web/80/tcp", "22:00:10 am: drift shop/web/80/tcp")
	r.core.configure(parse(t, "rules: [{name: other, when: 'drift == \"unexpected\"'}]"+receivers))
	r.event("closed shop/web/1 80 published", drift(model.DriftUnexpected))
	r.wait(time.Hour)
	r.want("without the rule there is no condition")
	var reported []string
	r.core.ask.report = func(err error) { reported = append(reported, err.Error()) }
	r.event("opened shop/web/1 81 published", drift(model.DriftUnexpected))
	state, err := r.core.whole()
	if err != nil {
		t.Fatal(err)
	}
	fewer := parse(t, "rules: [{name: none, when: 'false'}]\nreceivers: [{name: am, alertmanager: {url: 'http://localhost'}}]")
	newCore(fewer, r.core.ask).load(state)
	r.core.configure(fewer)
	for _, text := range reported {
		if text != "1 alerts that waited for the receiver ops are dropped: the settings have it no more" {
			t.Errorf("reported %q", text)
		}
	}
	if len(reported) != 2 {
		t.Errorf("reported %q, want what is dropped at a start and at a reload", reported)
	}
	if len(r.core.conditions) != 0 || len(r.core.spots) != 0 {
		t.Errorf("%d conditions are left", len(r.core.conditions))
	}
}

// An alert has what a person needs.
func TestEnrich(t *testing.T) {
	c := parse(t, driftRules+receivers)
	c.PublicURL = "https://watch.example.org"
	r := newRig(t, c)
	r.core.ask.entry = func(e *model.Event) string { return "- target: " + e.Container.Target() }
	r.event("opened shop/db/1 5432 network")
	r.wait(time.Hour)
	r.event("closed shop/db/1 5432 network", by(model.SourceEngine))
	r.wait(time.Hour)
	image := func(e *model.Event) { e.Container.Image = "shop:2" }
	r.event("opened shop/db/2 5432 published", drift(model.DriftWider), image)
	r.restart()
	r.wait(time.Minute)
	a := r.sent[0].Alerts[0]
	if a.LastSeen == nil || !a.LastSeen.Equal(monday.Add(time.Hour)) {
		t.Errorf("last seen %v, want an hour before", a.LastSeen)
	}
	if c := a.LastChange; c == nil || !c.At.Equal(monday.Add(2*time.Hour)) || c.Image != "shop:2" || c.PreviousImage != "shop:1" {
		t.Errorf("last change %+v, want from shop:1 to shop:2", c)
	}
	if want := "https://watch.example.org/?container=shop-db-2&port=5432/tcp"; a.URL != want {
		t.Errorf("link %s, want %s", a.URL, want)
	}
	if a.Expectation != "- target: shop/db" {
		t.Errorf("expectation %q", a.Expectation)
	}
}
