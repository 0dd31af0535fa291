package capture

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/expect"
	"portwatcher/internal/model"
)

func expectations(t *testing.T, entries ...string) *expect.File {
	t.Helper()
	text := "version: 1\nexpect:\n"
	if len(entries) == 0 {
		text = "version: 1\nexpect: []\n"
	}
	for _, entry := range entries {
		text += "  - " + entry + "\n"
	}
	f, err := expect.Parse("expected.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// drifts describes the events with a drift.
func (r *rig) drifts() (all []string) {
	r.judge()
	for _, e := range r.out.events() {
		if e.Drift == "" {
			continue
		}
		text := fmt.Sprintf("%s %s %s %d", e.Type, e.Drift, e.Container.Name, e.Port)
		if e.Ended {
			text += " ended: " + e.Reason
		}
		all = append(all, text)
	}
	return all
}

func (r *rig) wantDrifts(want ...string) {
	r.t.Helper()
	if got := r.drifts(); !slices.Equal(got, want) {
		r.t.Fatalf("drifts\n  got  %s\n  want %s", strings.Join(got, "\n       "), strings.Join(want, "\n       "))
	}
}

// The drift of an event and the periods go to the sinks together, and the view has what lasts.
func TestDrift(t *testing.T) {
	r, journal := newKeeping(t, func(o *Options) {
		o.Expect = expectations(t, "{target: web, port: 80/tcp, exposure: loopback}", "{target: db, port: 5432/tcp, exposure: network, required: true, for: 1h}")
	})
	web := r.run("web", 1)
	first, second := r.socket(80), r.socket(8080)
	r.scan(1, web, first, second)
	r.synced()
	r.wantDrifts("opened unexpected web 8080")
	r.buildView()
	view := r.views.latest.Load()
	if len(view.Drifts) != 1 || view.Drifts[0].Port != 8080 || view.Drifts[0].Host != "node1" || !view.Expecting || !strings.Contains(view.Drifts[0].Entry, "8080/tcp") {
		t.Fatalf("the view has %+v", view.Drifts)
	}
	for _, o := range view.Open {
		if drifts := o.Port == 8080; (o.Drift == model.DriftUnexpected) != drifts || o.DriftSince.IsZero() == drifts {
			t.Errorf("the view has %+v", o)
		}
	}
	for _, record := range journal.all() {
		if record.Event != nil && (record.Event.Drift != "") != (len(record.Drifts) == 1) {
			t.Errorf("the journal takes %+v with the periods %+v", record.Event, record.Drifts)
		}
	}

	// A reload is compared with what is open.
	r.replaceFile(expectations(t, "{target: web, port: '80/tcp,8080/tcp', exposure: loopback, process: nginx}"))
	want := []string{
		"opened unexpected web 8080", "drift process web 80", "drift unexpected web 8080 ended: the expectations have changed", "drift process web 8080",
	}
	got := r.drifts()
	if slices.Sort(got[1:]); len(got) != len(want) {
		t.Fatalf("after the reload: %q", got)
	}
	slices.Sort(want[1:])
	if !slices.Equal(got, want) {
		t.Fatalf("after the reload: %q, want %q", got, want)
	}
	count := len(got)
	r.change(engine.Stopped, web, 1)
	if got := r.drifts()[count:]; len(got) != 2 || !strings.HasPrefix(got[0], "closed process web") {
		t.Errorf("after the end: %q", got)
	}
	r.replaceFile(nil)
	r.judge()
	r.buildView()
	if view := r.views.latest.Load(); len(view.Drifts) != 0 || view.Expecting {
		t.Errorf("without a file the view has %+v", view.Drifts)
	}
}

// A redeploy that differs in -p alone.
func TestDriftWider(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Expect = expectations(t, "{target: web, port: 80/tcp, exposure: network}") })
	web := container("web")
	web.Addresses = []netip.Addr{netip.MustParseAddr("172.18.0.2")}
	r.change(engine.Started, web, 1)
	r.open(1)
	r.synced()
	r.scan(1, web, r.socket(80))
	r.wantDrifts()
	published := *web
	published.Ports = []model.PublishedPort{{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort("0.0.0.0:8080")}}
	r.change(engine.Updated, &published, 1)
	r.wantDrifts("changed wider web 80")
	r.change(engine.Updated, web, 1)
	r.wantDrifts("changed wider web 80")
	if last := r.out.events()[len(r.out.events())-1]; last.Type != model.Changed || last.Drift != "" {
		t.Errorf("the last event is %+v", last)
	}
}

// What is burst over is judged when it is reported.
func TestDriftOfBursts(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Expect, o.Tuning.BurstLimit = expectations(t, "{target: web, port: 80/tcp, exposure: loopback}"), 2
	})
	web := r.run("web", 1)
	r.synced()
	r.scan(1, web, r.socket(1), r.socket(2), r.socket(3), r.socket(4))
	r.judge()
	r.replaceFile(expectations(t, "{target: web, port: 1-3/tcp, exposure: loopback}"))
	r.judge() // waits for the events that are held
	r.flushBursts()
	want := map[string]int{"opened unexpected web 4": 1, "drift unexpected web 1 ended: the expectations have changed": 1, "drift unexpected web 2 ended: the expectations have changed": 1}
	got := map[string]int{}
	for _, line := range r.drifts() {
		got[line]++
	}
	for line, n := range want {
		if got[line] != n {
			t.Errorf("drifts %v, want %q", got, line)
		}
	}
	if got["opened unexpected web 3"] != 0 {
		t.Errorf("drifts %v: port 3 is expected since before its event", got)
	}
}

// A required port is missing after its time, not before all is known; its opening ends that.
func TestDriftMissing(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Expect = expectations(t, "{target: web, port: 80/tcp, exposure: network, required: true, for: 0}", "{target: late, port: 81/tcp, exposure: network, required: true, for: 24h}")
	})
	web := r.run("web", 1)
	r.wantDrifts()
	r.synced()
	r.wantDrifts() // its first scan is to come
	r.scan(1, web)
	r.drift.judge.Scanned(web.ID)
	r.drift.judge.Expire(r.now.Add(time.Hour), r.wall.Time(r.now), r.reportedOf)
	r.sendDrifts()
	r.wantDrifts("drift missing web 80")
	r.scan(1, web, r.socket(80))
	r.wantDrifts("drift missing web 80", "drift missing web 80 ended: it is open")
}

// Where a port is not reported, or its container is not watched, it cannot be missing.
func TestDriftMissingIsKnown(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Expect = expectations(t, "{target: web, port: 80/tcp, exposure: network, required: true, for: 0}")
		o.Tuning.Reported = func(_ *model.Container, _ model.Protocol, port uint16) bool { return port != 80 }
	})
	web := r.run("web", 1)
	r.synced()
	r.scan(1, web)
	r.drift.judge.Expire(r.now.Add(time.Hour), r.wall.Time(r.now), r.reportedOf)
	r.sendDrifts()
	r.wantDrifts()
}

// After a restart nothing is repeated; what has changed meanwhile is.
func TestDriftAfterARestart(t *testing.T) {
	file := expectations(t, "{target: web, port: 80/tcp, exposure: loopback}")
	first, journal := newKeeping(t, func(o *Options) { o.Expect = file })
	web := first.run("web", 1)
	stays, closes := first.socket(8080), first.socket(8081)
	first.scan(1, web, stays, closes)
	cache := first.run("cache", 2)
	first.scan(2, cache, first.socket(6379))
	first.synced()
	first.judge()
	first.keepState()
	state, _ := journal.states()
	lasting := map[string]model.DriftPeriod{}
	for _, record := range journal.all() {
		for _, p := range record.Drifts {
			lasting[fmt.Sprint(p.Key())] = p
		}
	}
	if len(lasting) != 3 {
		t.Fatalf("the journal has %+v", lasting)
	}
	second, _ := again(t, state, func(r *Resume) {
		for _, p := range lasting {
			r.Drifts = append(r.Drifts, p)
		}
	})
	second.drift.judge.SetFile(file, time.Now())
	second.cookie = 100
	web = second.run("web", 1)
	second.run("cache", 2)
	second.scan(1, web, stays)
	second.synced()
	second.wantDrifts("closed unexpected web 8081")
	second.buildView()
	var got []string
	for _, d := range second.views.latest.Load().Drifts {
		got = append(got, fmt.Sprint(d.Drift, " ", d.Target, " ", d.Port, " ", d.Since.Equal(lasting[fmt.Sprint(d.Key())].Since)))
	}
	if want := []string{"uncovered cache 0 true", "unexpected web 8080 true"}; !slices.Equal(got, want) {
		t.Errorf("the view has %q, want %q", got, want)
	}
}

// compareDrifts compares the drifts of the capture with those of a comparison that has no state.
func (r *rig) compareDrifts() {
	r.t.Helper()
	state := expect.State{Time: r.wall.Time(r.now)}
	for _, s := range r.states() {
		state.Open = append(state.Open, s.Open)
	}
	for _, m := range r.containers {
		state.Containers = append(state.Containers, m.Ref())
	}
	describe := func(all []model.OpenDrift) (lines []string) {
		for _, d := range all {
			if d.Drift != model.DriftUncovered { // it lasts until the container ends
				lines = append(lines, fmt.Sprint(d.Drift, " ", d.Target, " ", d.Port, " ", d.Exposure, " ", d.Endpoints))
			}
		}
		return lines
	}
	if got, want := describe(r.openDrifts(state.Open)), describe(expect.Compare(r.drift.judge.File(), state)); !slices.Equal(got, want) {
		r.t.Errorf("drifts\n  got  %q\n  want %q", got, want)
	}
}

// The host's own ports are not judged, and the host is no target.
func TestHostIsNotJudged(t *testing.T) {
	r := hosted(t)
	r.replaceFile(expectations(t, "{target: '*', port: 1/tcp, exposure: loopback, required: true, for: 0}"))
	opened, _ := r.openedAndClosed(hostInode, 22)
	r.facts(opened)
	r.judge()
	r.drift.judge.Expire(r.now.Add(time.Hour), r.wall.Time(r.now), r.reportedOf)
	r.sendDrifts()
	for _, e := range r.out.events() {
		if e.Drift != "" && (e.Drift != model.DriftMissing || e.Container.Name != "*") {
			t.Errorf("%+v drifts: %s", e.Listener, e.Drift)
		}
	}
}
