package expect

import (
	"testing"
	"time"

	"portwatcher/internal/model"
)

const shop = `version: 1
expect:
  - {target: shop/web, port: 80/tcp, exposure: published, process: "nginx, /usr/sbin/nginx-debug"}
  - {target: shop/db, port: 5432/tcp, exposure: network, required: true, for: 30s}
`

const onlyWeb = "version: 1\nexpect:\n  - {target: shop/web, port: 80/tcp, exposure: published}\n"

func TestVerdicts(t *testing.T) {
	outside, inside := true, false
	web := (&model.Container{ID: "w", Name: "shop-web-1", Labels: map[string]string{model.LabelProject: "shop", model.LabelService: "web", Label: "9000/tcp@network,80/tcp@loopback"}}).Ref()
	file := parsed(t, `version: 1
expect:
  - {target: web, port: 80/tcp, exposure: network, process: nginx}
  - {target: shop/web, port: "80/tcp,81", exposure: published, process: nginx, outside: false}
  - {target: shop/web, port: 82/tcp, exposure: loopback, until: 2026-11-29}
`)
	with := func(port uint16, x model.Exposure, is *bool, processes ...model.Process) model.Listener {
		return model.Listener{Container: web, Protocol: model.TCP, Port: port, Exposure: x, Outside: is, Processes: processes}
	}
	nginx, other := model.Process{PID: 1, Name: "nginx"}, model.Process{PID: 2, Name: "sh", Executable: "/bin/sh"}
	for name, test := range map[string]struct {
		l        model.Listener
		drift    model.Drift
		expected string
	}{
		"expected":                       {with(80, model.Network, &inside, nginx), "", ""},
		"less than at most":              {with(80, model.Loopback, &inside, nginx), "", ""},
		"by the second entry":            {with(80, model.Published, &inside, nginx), "", ""},
		"from outside":                   {with(80, model.Published, &outside, nginx), model.DriftWider, "at most network, or at most published, from inside only"},
		"another program":                {with(80, model.Network, &inside, other), model.DriftProcess, "process nginx"},
		"one of two":                     {with(80, model.Network, &inside, nginx, other), model.DriftProcess, "process nginx"},
		"no process known":               {with(80, model.Network, &inside), "", ""},
		"a process without a name":       {with(80, model.Network, &inside, model.Process{PID: 3}), "", ""},
		"by the executable":              {with(80, model.Network, &inside, model.Process{PID: 3, Name: "master", Executable: "/usr/sbin/nginx"}), "", ""},
		"an unknown exposure":            {with(80, "", nil, nginx), "", ""},
		"another port":                   {with(8080, model.Loopback, &inside), model.DriftUnexpected, ""},
		"an expired entry":               {with(82, model.Loopback, &inside), model.DriftUnexpected, ""},
		"by the label":                   {with(9000, model.Network, &inside), "", ""},
		"wider than the label":           {with(9000, model.Host, &outside), model.DriftWider, "at most network"},
		"the file wins over the label":   {with(80, model.Network, &inside, nginx), "", ""},
		"any protocol":                   {model.Listener{Container: web, Protocol: model.UDP, Port: 81, Exposure: model.Network, Processes: []model.Process{nginx}}, "", ""},
		"another protocol is unexpected": {model.Listener{Container: web, Protocol: model.UDP, Port: 80, Exposure: model.Loopback}, model.DriftUnexpected, ""},
	} {
		c := file.coverOf(web, func(string) bool { return false })
		if v := c.verdict(&test.l, began); v.Drift != test.drift || name != "one of two" && v.Drift != model.DriftProcess && v.Expected != test.expected {
			t.Errorf("%s: %+v; want %q, %q", name, v, test.drift, test.expected)
		}
	}
}

func TestNothingIsJudgedWithoutExpectations(t *testing.T) {
	r := newRig(t, "")
	r.Start(r.now(), r.wall())
	web := r.start("web")
	if d := r.opens(web, 80, model.Published); d != "" {
		t.Errorf("drift %q", d)
	}
	labelled := r.start("labelled", "80/tcp@network")
	if a, b, c := r.opens(labelled, 80, model.Network), r.opens(labelled, 81, model.Network), r.event(model.Changed, listener(labelled, 80, model.Published, "")); a != "" || b != model.DriftUnexpected || c != model.DriftWider {
		t.Errorf("drifts %q, %q, %q", a, b, c)
	}
	r.wantDrifts("wider labelled 80/tcp published", "unexpected labelled 81/tcp network")
	r.wantLines() // no container is uncovered without a file
}

// An opening, a change and a closing carry the drift; nothing else reports it.
func TestEventsCarryDrift(t *testing.T) {
	r := newRig(t, shop)
	r.Start(r.now(), r.wall())
	r.start("shop/db/1")
	web := r.start("shop/web/1")
	if d := r.event(model.Opened, listener(web, 80, model.Network, "nginx")); d != "" {
		t.Errorf("expected: drift %q", d)
	}
	if d := r.event(model.Changed, listener(web, 80, model.Network, "sh")); d != model.DriftProcess {
		t.Errorf("another program: drift %q", d)
	}
	if d := r.event(model.Changed, listener(web, 80, model.Network, "nginx")); d != "" {
		t.Errorf("the program again: drift %q", d)
	}
	if a, b := r.opens(web, 8080, model.Loopback), r.close(web, 8080); a != model.DriftUnexpected || b != a {
		t.Errorf("unexpected: drifts %q and %q", a, b)
	}
	r.wantDrifts()
	r.wantLines()
	if len(r.periods) != 2 {
		t.Errorf("periods %+v; want two that have ended", r.periods)
	}
	for _, p := range r.periods {
		if p.Ended.IsZero() {
			t.Errorf("a period lasts: %+v", p)
		}
	}
}

// A port of 50 ms is drift that began and ended, also where only its close is known.
func TestTransients(t *testing.T) {
	r := newRig(t, shop)
	r.Start(r.now(), r.wall())
	web := r.start("shop/web/1")
	for _, kind := range []model.Type{model.Opened, model.Closed} {
		e := &model.Event{Type: kind, Time: r.wall(), Transient: true, Listener: listener(web, 4444, model.Network, "")}
		if r.Apply(e, r.now()); e.Drift != model.DriftUnexpected {
			t.Errorf("%s: drift %q", kind, e.Drift)
		}
	}
	r.take()
	r.wantDrifts()
	if len(r.periods) != 1 {
		t.Errorf("periods %+v; want one", r.periods)
	}
}

// A restart, another container and more replicas continue a drift.
func TestSilentChanges(t *testing.T) {
	r := newRig(t, onlyWeb)
	r.Start(r.now(), r.wall())
	first := r.start("shop/web/1")
	r.opens(first, 8080, model.Network)
	since := r.Open()[0].Since
	r.pass(30)
	second, third := r.start("shop/web/2"), r.start("shop/web/3")
	r.opens(second, 8080, model.Network)
	r.opens(third, 8080, model.Network)
	if open := r.Open(); len(open) != 1 || open[0].Endpoints != 3 {
		t.Fatalf("three replicas: %+v", open)
	}
	for _, ref := range []*model.ContainerRef{first, second, third} {
		r.stop(ref)
	}
	r.wantDrifts()
	r.pass(20)
	again := r.start("shop/web/1")
	r.opens(again, 8080, model.Network)
	open := r.Open()
	if len(open) != 1 || !open[0].Since.Equal(since) || len(r.periods) != 1 {
		t.Fatalf("recreated: %+v, periods %+v; want one since %s", open, r.periods, since)
	}
	if d, at := r.Of(r.openEndpoint()); d != model.DriftUnexpected || !at.Equal(since) {
		t.Errorf("the endpoint has drift %q since %s", d, at)
	}
	// Later than that it is another drift.
	r.close(again, 8080)
	r.pass(90)
	r.opens(again, 8080, model.Network)
	if open := r.Open(); len(open) != 1 || open[0].Since.Equal(since) {
		t.Errorf("after a while: %+v", open)
	}
}

func (r *rig) openEndpoint() (one model.Endpoint) {
	for endpoint := range r.open {
		one = endpoint
	}
	return one
}

func TestWiderByARedeploy(t *testing.T) {
	r := newRig(t, shop)
	r.Start(r.now(), r.wall())
	db := r.start("shop/db/1")
	if d := r.opens(db, 5432, model.Network); d != "" {
		t.Errorf("drift %q", d)
	}
	r.stop(db)
	r.pass(2)
	if d := r.opens(r.start("shop/db/1"), 5432, model.Published); d != model.DriftWider {
		t.Errorf("published: drift %q", d)
	}
	r.wantDrifts("wider shop/db 5432/tcp published")
	if open := r.Open(); open[0].Expected != "at most network" {
		t.Errorf("%+v", open[0])
	}
}

func TestUncoveredOnce(t *testing.T) {
	r := newRig(t, onlyWeb)
	r.Start(r.now(), r.wall())
	cache := r.start("shop/cache/1")
	for port := uint16(1000); port < 1100; port++ {
		if d := r.opens(cache, port, model.Network); d != "" {
			t.Fatalf("port %d: drift %q", port, d)
		}
	}
	r.opens(r.start("shop/cache/2"), 1000, model.Network)
	r.wantLines("0: uncovered began shop/cache")
	r.stop(cache)
	for _, ref := range r.refs {
		r.stop(ref)
	}
	r.pass(10)
	cache = r.start("shop/cache/1")
	r.opens(cache, 1000, model.Network)
	r.wantLines("0: uncovered began shop/cache")
	r.wantDrifts("uncovered shop/cache")
	r.stop(cache)
	r.pass(61)
	r.wantLines("0: uncovered began shop/cache", "70: uncovered ended shop/cache")
	for _, p := range r.periods {
		if want := began.Add(10 * time.Second); !p.Ended.Equal(want) {
			t.Errorf("the period ended at %s, want %s", p.Ended, want)
		}
	}
}

func TestMissing(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(r *rig)
		want []string
	}{
		{"never opened", func(r *rig) { r.start("shop/db/1"); r.pass(60) }, []string{"30: missing began shop/db 5432/tcp"}},
		{"its container does not run", func(r *rig) { r.pass(60) }, []string{"30: missing began shop/db 5432/tcp"}},
		{"opened in time", func(r *rig) { db := r.start("shop/db/1"); r.pass(29); r.opens(db, 5432, model.Network); r.pass(60) }, nil},
		{"closed", func(r *rig) {
			db := r.start("shop/db/1")
			r.opens(db, 5432, model.Network)
			r.pass(10)
			r.close(db, 5432)
			r.pass(60)
			r.opens(db, 5432, model.Network)
		}, []string{"40: missing began shop/db 5432/tcp", "70: missing ended shop/db 5432/tcp"}},
		{"a restart", func(r *rig) {
			db := r.start("shop/db/1")
			r.opens(db, 5432, model.Network)
			r.pass(60)
			r.stop(db)
			r.pass(20)
			db = r.start("shop/db/1")
			r.pass(25)
			r.opens(db, 5432, model.Network)
			r.pass(60)
		}, nil},
		{"a container that starts again and again", func(r *rig) {
			for range 20 {
				db := r.start("shop/db/1")
				r.pass(4)
				r.stop(db)
				r.pass(1)
			}
		}, []string{"30: missing began shop/db 5432/tcp"}},
		{"one of two replicas is enough", func(r *rig) {
			one, two := r.start("shop/db/1"), r.start("shop/db/2")
			r.opens(one, 5432, model.Network)
			r.opens(two, 5432, model.Network)
			r.close(one, 5432)
			r.pass(90)
		}, nil},
		{"not required any more", func(r *rig) {
			r.pass(40)
			r.SetFile(parsed(r.t, "version: 1\nexpect: []\n"), r.wall())
			r.reconcile("the expectations have changed")
		}, []string{"30: missing began shop/db 5432/tcp", "40: missing ended shop/db 5432/tcp"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, shop)
			r.Start(r.now(), r.wall())
			test.do(r)
			r.wantLines(test.want...)
		})
	}
}

// What is not known is not missing: before all containers are known, before the first scan, and
// where the port is not reported.
func TestMissingWaits(t *testing.T) {
	r := newRig(t, shop)
	r.pass(100)
	ref := (&model.Container{ID: "d", Name: "shop-db-1", Labels: map[string]string{model.LabelProject: "shop", model.LabelService: "db"}}).Ref()
	r.Running(ref, true, r.now(), r.wall())
	r.Start(r.now(), r.wall())
	r.pass(100)
	r.wantLines()
	r.Scanned("d")
	r.pass(1)
	r.wantLines("201: missing began shop/db 5432/tcp")

	r = newRig(t, shop)
	r.Running(ref, false, r.now(), r.wall()) // not monitored
	r.Start(r.now(), r.wall())
	r.pass(500)
	r.wantLines()
}

func TestReload(t *testing.T) {
	r := newRig(t, shop)
	r.Start(r.now(), r.wall())
	web, db := r.start("shop/web/1"), r.start("shop/db/1")
	r.opens(web, 80, model.Published)
	r.opens(web, 8080, model.Network)
	r.opens(db, 5432, model.Network)
	load := func(file string) {
		r.second++
		r.SetFile(parsed(t, file), r.wall())
		r.reconcile("the expectations have changed")
	}
	load("version: 1\nexpect:\n  - {target: 'shop/*', port: '80,8080,5432', exposure: network}\n")
	r.wantLines("1: wider began shop/web 80/tcp", "1: unexpected ended shop/web 8080/tcp")
	r.wantDrifts("wider shop/web 80/tcp published")
	load("version: 1\nexpect:\n  - {target: 'shop/*', port: '80,8080', exposure: network}\n")
	load("version: 1\nexpect: []\n")
	r.lines = r.lines[2:]
	r.wantDrifts("uncovered shop/db", "uncovered shop/web")
	load("version: 1\nexpect:\n  - {target: '*', port: 1-65535, exposure: published}\n")
	r.wantDrifts()
	for key, p := range r.periods {
		if p.Ended.IsZero() {
			t.Errorf("a period lasts: %s", key)
		}
	}
}

func TestExpiry(t *testing.T) {
	r := newRig(t, "version: 1\nexpect:\n  - {target: web, port: 80, exposure: host, until: 2026-11-30}\n  - {target: web, port: 81, exposure: host}\n")
	r.second = 12*3600 - 5
	r.Start(r.now(), r.wall())
	web := r.start("web")
	if d := r.opens(web, 80, model.Host); d != "" {
		t.Fatalf("drift %q", d)
	}
	r.pass(10)
	r.wantLines("43200: unexpected began web 80/tcp")
	if all := r.file.Expiring(began, 7*24*time.Hour); len(all) != 1 || all[0].Line != 3 {
		t.Errorf("expiring: %+v", all)
	}
}

// After a restart nothing is repeated, and drifts keep their beginning.
func TestRestart(t *testing.T) {
	before := newRig(t, shop)
	before.Start(before.now(), before.wall())
	web, cache := before.start("shop/web/1"), before.start("shop/cache/1")
	before.opens(web, 8080, model.Network)
	before.opens(cache, 1, model.Network)
	before.pass(40)
	var periods []model.DriftPeriod
	for _, p := range before.periods {
		periods = append(periods, p)
	}
	var states []model.Open
	for endpoint, o := range before.set.All() {
		if d, since := before.Of(endpoint); o.Drift != d || !o.DriftSince.Equal(since) {
			t.Errorf("the events give drift %q since %s, the judge %q since %s", o.Drift, o.DriftSince, d, since)
		}
		states = append(states, *o)
	}
	want := before.drifts()
	if len(want) != 3 {
		t.Fatalf("drifts before: %q", want)
	}

	after := newRig(t, shop, periods...)
	after.second = 100
	for _, ref := range []*model.ContainerRef{web, cache} {
		after.refs[ref.ID] = ref
		after.Running(ref, true, after.now(), after.wall())
		after.Scanned(ref.ID)
	}
	for i := range states {
		after.open[states[i].Endpoint()] = states[i]
		after.Restored(&states[i], after.wall())
	}
	after.Start(after.now(), after.wall())
	after.reconcile("")
	after.pass(120)
	after.wantLines()
	after.wantDrifts(want...)
	for _, d := range after.Open() {
		if d.Since.After(began.Add(40 * time.Second)) {
			t.Errorf("%s is since %s", describedDrift(&d), d.Since)
		}
	}
	// What ended meanwhile ends.
	gone := newRig(t, "version: 1\nexpect:\n  - {target: 'shop/*', port: 1-65535, exposure: host}\n", periods...)
	gone.Start(gone.now(), gone.wall())
	gone.pass(70)
	gone.wantDrifts()
	for _, p := range gone.periods {
		if p.Ended.IsZero() {
			t.Errorf("a period lasts: %+v", p)
		}
	}
}

func TestBursts(t *testing.T) {
	r := newRig(t, shop)
	r.Start(r.now(), r.wall())
	web := r.start("shop/web/1")
	burst := func(l model.Listener, ports ...uint16) model.Drift {
		e := &model.Event{Type: model.Bursts, Time: r.wall(), Listener: l, Burst: &model.Burst{First: r.wall(), Last: r.wall(), Ports: ports, PortCount: len(ports)}}
		r.Apply(e, r.now())
		r.take()
		return e.Drift
	}
	if d := burst(model.Listener{Container: web, Protocol: model.TCP, Port: 80}, 80); d != "" {
		t.Errorf("an expected port: drift %q", d)
	}
	if d := burst(model.Listener{Container: web}, 80); d != "" {
		t.Errorf("an expected port of both protocols: drift %q", d)
	}
	if d := burst(model.Listener{Container: web, Protocol: model.TCP}, 80, 4444); d != model.DriftUnexpected {
		t.Errorf("one of two ports is unexpected: drift %q", d)
	}
	if d := burst(model.Listener{Container: web}); d != "" {
		t.Errorf("unknown ports: drift %q", d)
	}
	r.wantDrifts()
	if len(r.periods) != 1 {
		t.Errorf("periods %+v", r.periods)
	}
}

// A program that opens one port after another does not fill the memory.
func TestDriftsOfATargetAreBounded(t *testing.T) {
	r := newRig(t, shop)
	r.Start(r.now(), r.wall())
	web := r.start("shop/web/1")
	for port := uint16(20000); port < 21000; port++ {
		if a, b := r.opens(web, port, model.Network), r.close(web, port); a != model.DriftUnexpected || b != a {
			t.Fatalf("port %d: drifts %q and %q", port, a, b)
		}
	}
	if len(r.Judge.periods) != MaxPeriods {
		t.Errorf("%d drifts are kept, want %d", len(r.Judge.periods), MaxPeriods)
	}
	if over := r.Crowded(); len(over) != 1 || over[0] != "shop/web" {
		t.Errorf("crowded are %q", over)
	}
	// What lasts is kept as soon as there is room.
	r.opens(web, 40000, model.Network)
	r.reconcile("")
	r.wantDrifts()
	r.pass(61)
	r.reconcile("")
	r.wantDrifts("missing shop/db 5432/tcp", "unexpected shop/web 40000/tcp network")
	if over := r.Crowded(); len(over) != 0 {
		t.Errorf("crowded are %q", over)
	}
	r.close(web, 40000)
	r.pass(61)
	if len(r.Judge.periods)+len(r.perTarget)+len(r.endpoints) != 2 { // shop/db is missing
		t.Errorf("%d drifts, %d targets and %d endpoints are left", len(r.Judge.periods), len(r.perTarget), len(r.endpoints))
	}
}
