package expect

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

func composed(project, service string) *model.ContainerRef {
	return (&model.Container{ID: service, Name: project + "-" + service + "-1", Labels: map[string]string{model.LabelProject: project, model.LabelService: service}}).Ref()
}

// Each entry that is offered makes its drift none, whatever the names are.
func TestEntriesAreValid(t *testing.T) {
	published := listener(composed("shop", "web"), 80, model.Published, "nginx")
	published.SetReach(model.Published, []string{"127.0.0.1:8080"})
	evil := listener(&model.ContainerRef{ID: "e", Name: "no"}, 1, "", "")
	evil.Processes = []model.Process{{PID: 1, Name: "a\n  - x: \u202e"}, {PID: 2, Name: "", Executable: "/bin/true"}, {PID: 3, Name: "MainThread", Executable: "/usr/bin/python3.11"}}
	numeric := listener(&model.ContainerRef{ID: "n", Name: "2026"}, 65535, model.Host, "0x10")
	for _, l := range []model.Listener{published, evil, numeric, listener(composed("true", "y"), 53, model.Lan, "a b")} {
		for _, kind := range []model.Drift{model.DriftUnexpected, model.DriftWider, model.DriftProcess} {
			e := &model.Event{Drift: kind, Listener: l}
			text := EntryForEvent(e)
			f := parsed(t, "version: 1\nexpect:\n"+text)
			state := State{Time: began, Open: []model.Open{{Listener: l}}, Containers: []*model.ContainerRef{l.Container}}
			if drifts := Compare(f, state); len(drifts) > 0 && !strings.ContainsAny(l.Processes[0].Name, "\n ") {
				t.Errorf("with\n%s it drifts: %+v", text, drifts)
			}
		}
	}
	if text := EntryForEvent(&model.Event{Drift: model.DriftUnexpected, Listener: published}); text != "  - target: shop/web\n    port: 80/tcp\n    exposure: published\n    outside: false\n    process: nginx\n" {
		t.Errorf("the entry is\n%s", text)
	}
	for _, none := range []*model.Event{{}, {Drift: model.DriftMissing, Listener: published}, {Drift: model.DriftUncovered, Listener: published}, {Drift: model.DriftUnexpected, Listener: model.Listener{Container: composed("a", "b")}}} {
		if text := EntryForEvent(none); text != "" {
			t.Errorf("%+v has the entry\n%s", none, text)
		}
	}
	several := EntriesFor("shop/web", []model.Open{
		{Listener: listener(composed("shop", "web"), 81, model.Network, "b")}, {Listener: published}, {Listener: listener(composed("shop", "db"), 1, model.Host, "")},
		{Listener: listener(composed("shop", "web"), 81, model.Published, "a")},
	})
	if f := parsed(t, "version: 1\nexpect:\n"+several); len(f.Entries) != 2 || f.Entries[1].Exposure != model.Published || !slices.Equal(f.Entries[1].Processes, []string{"a", "b"}) {
		t.Errorf("the entries of a target are\n%s", several)
	}
}

func TestApprove(t *testing.T) {
	e := &model.Event{ID: 42, Listener: listener(composed("shop", "web"), 8080, model.Network, "node")}
	const entry = "target: shop/web\n    port: 8080/tcp\n    exposure: network\n    process: node\n    reason: \"the 'admin' (approved 2026-11-30, event 42)\"\n"
	for name, test := range map[string]struct{ before, after string }{
		"empty list":      {"version: 1\nexpect: []\n", "version: 1\nexpect:\n  - " + entry},
		"an empty file":   {"# the shop\nversion: 1\nexpect: [] \n# end\n", "# the shop\nversion: 1\nexpect:\n  - " + entry + "# end\n"},
		"behind the last": {onlyWeb, onlyWeb + "  - " + entry},
		"no line feed":    {strings.TrimSuffix(onlyWeb, "\n"), onlyWeb + "  - " + entry},
		"without indent":  {"version: 1\nexpect:\n- target: a\n  port: 1\n  exposure: lan\n", "version: 1\nexpect:\n- target: a\n  port: 1\n  exposure: lan\n- " + strings.ReplaceAll(entry, "\n    ", "\n  ")},
		"version at the end": {
			"expect:\n  # the site\n  - target: a # it\n    port: 1\n    exposure: lan\n    # its end\n\n# the version\nversion: 1\n",
			"expect:\n  # the site\n  - target: a # it\n    port: 1\n    exposure: lan\n    # its end\n  - " + entry + "\n# the version\nversion: 1\n",
		},
	} {
		got, err := Approve("f.yaml", []byte(test.before), e, "the 'admin'", began)
		if err != nil || string(got) != test.after {
			t.Errorf("%s: error %v\n%s\nwant\n%s", name, err, got, test.after)
		}
	}
	for content, want := range map[string]string{
		"version: 1\nexpect: [{target: a, port: 1, exposure: lan}]\n": "add it below expect:\n  - target: shop/web",
		"version: 2\n": "allowed is 1",
	} {
		if got, err := Approve("f.yaml", []byte(content), e, "x", began); err == nil || got != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, error %v", content, got, err)
		}
	}
	if _, err := Approve("f.yaml", []byte(onlyWeb), &model.Event{ID: 1, Type: model.Gap}, "x", began); err == nil || !strings.Contains(err.Error(), "event 1") {
		t.Errorf("a gap: error %v", err)
	}
}

func TestDiff(t *testing.T) {
	before := parsed(t, "version: 1\nexpect:\n  - {target: a, port: 1, exposure: lan, reason: x}\n  - {target: b, port: 2/tcp, exposure: lan, required: true}\n  - {target: c, port: 3, exposure: host}\n")
	after := parsed(t, "version: 1\nexpect:\n  - {target: c, port: 3, exposure: network, outside: false, process: x}\n  - {target: d, port: 4, exposure: host, until: 2027-01-02}\n  - {target: a, port: 1, exposure: lan}\n")
	want := []string{"~ c 3: at most network, from inside only, process x (was at most host)", "+ d 4: at most host, until 2027-01-02", "- b 2/tcp: at most lan, required, for 30s"}
	if got := Diff(before, after); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestLearn(t *testing.T) {
	web, db := composed("shop", "web"), composed("shop", "db")
	at := func(hours float64) time.Time { return began.Add(time.Duration(hours * float64(time.Hour))) }
	l := NewLearner(began)
	l.Begin([]model.Open{{Listener: listener(db, 5432, model.Network, "postgres"), OpenedAt: began.Add(-time.Hour)}})
	event := func(kind model.Type, hours float64, it model.Listener) {
		l.Apply(&model.Event{Type: kind, Time: at(hours), Listener: it})
	}
	site := listener(web, 80, model.Published, "nginx")
	event(model.Opened, 1, site)
	event(model.Changed, 2, listener(web, 80, model.Network, "nginx-debug"))
	event(model.Opened, 3, listener(web, 4444, model.Network, "nc"))
	event(model.Closed, 3.001, listener(web, 4444, model.Network, "nc"))
	event(model.Opened, 5, listener(web, 9229, model.Network, "node"))
	event(model.Closed, 10, listener(web, 9229, model.Network, "node"))
	for port := uint16(30000); port < 30100; port++ {
		for _, kind := range []model.Type{model.Opened, model.Closed} {
			l.Apply(&model.Event{Type: kind, Time: at(6), Transient: true, Listener: listener(db, port, model.Loopback, "")})
		}
	}
	l.Apply(&model.Event{Type: model.Bursts, Time: at(7), Listener: model.Listener{Container: db}, Burst: &model.Burst{Opened: 5000, Closed: 5000}})
	text := l.File(at(100))
	f := parsed(t, text)
	if len(f.Entries) != 4+maxMarked {
		t.Errorf("%d entries, want %d", len(f.Entries), 4+maxMarked)
	}
	for _, want := range []string{
		"- target: shop/web\n    port: 80/tcp\n    exposure: published\n    process: nginx, nginx-debug\n",
		"expect:\n  - target: shop/db\n    port: 5432/tcp\n    exposure: network\n    process: postgres\n",
		"  # transient: opened once, last 2026-11-30T15:00:03Z, never open for longer than 3.6s\n  - target: shop/web\n    port: 4444/tcp",
		"  # rare: opened once, last 2026-11-30T22:00:00Z, open for 5h0m0s together\n  - target: shop/web\n    port: 9229/tcp",
		"  # shop/db: 68 more transient or rare ports, 30032 to 30099, are not listed",
		"  # shop/db: 5000 more openings were counted in bursts.",
		"from 2026-11-30T12:00:00Z to 2026-12-04T16:00:00Z",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
	if f := parsed(t, NewLearner(began).File(at(1))); len(f.Entries) != 0 {
		t.Errorf("nothing was open, and it has %d entries", len(f.Entries))
	}
	// What was learned is expected.
	state := State{Time: at(100), Open: []model.Open{{Listener: site}}, Containers: []*model.ContainerRef{web, db}}
	if drifts := Compare(f, state); len(drifts) > 0 {
		t.Errorf("drifts %+v", drifts)
	}
}

func TestHistory(t *testing.T) {
	web := composed("shop", "web")
	h := NewHistory(parsed(t, shop))
	h.Begin([]model.Open{{Time: began, Listener: listener(web, 80, model.Published, "nginx")}, {Time: began, Listener: listener(web, 81, model.Network, "")}})
	h.Apply(&model.Event{Type: model.Closed, Time: began.Add(time.Minute), Listener: listener(web, 81, model.Network, "")})
	h.Apply(&model.Event{Type: model.Opened, Time: began.Add(time.Hour), Listener: listener(composed("shop", "cache"), 6379, model.Network, "")})
	var got []string
	for _, p := range h.End(began.Add(2 * time.Hour)) {
		text := describedDrift(&p.OpenDrift)
		if !p.Ended.IsZero() {
			text += " ended"
		}
		got = append(got, text)
	}
	if want := []string{"uncovered shop/cache", "missing shop/db 5432/tcp", "unexpected shop/web 81/tcp network ended"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDisagreements(t *testing.T) {
	c := func(name, label string) *model.ContainerRef {
		return (&model.Container{ID: name, Name: name, Labels: map[string]string{Label: label}}).Ref()
	}
	f := parsed(t, "version: 1\nexpect:\n  - {target: web, port: 80-90/tcp, exposure: network}\n")
	all, invalid := Disagreements(f, []*model.ContainerRef{c("web", "80@published,85/tcp@network,85/udp@host,91@host"), c("db", "80@published"), c("bad", "x")}, began)
	if len(all) != 1 || all[0].String() != "container web: the label's 80@published does not agree with line 3 of the file, which allows at most network and wins" {
		t.Errorf("%+v", all)
	}
	if len(invalid) != 1 || !strings.HasPrefix(invalid[0], "container bad: label portwatcher.expect: entry \"x\": allowed are") {
		t.Errorf("%q", invalid)
	}
}

func TestReports(t *testing.T) {
	wider := listener(composed("shop", "db"), 5432, model.Published, "postgres")
	wider.Address, wider.Published = netip.IPv4Unspecified(), []string{"0.0.0.0:5432"}
	r := &Report{File: "ports.yaml", Time: began, Notes: []string{"a note"}, Targets: []string{"shop/web", "shop/db"}, Entries: parsed(t, shop)}
	r.Drifts = []model.DriftPeriod{
		{OpenDrift: model.OpenDrift{Drift: model.DriftWider, Target: "shop/db", Since: began, Listener: wider, Endpoints: 1, Expected: "at most network"}},
		{OpenDrift: model.OpenDrift{Drift: model.DriftMissing, Target: "shop/mail\x1b[2J", Since: began, Listener: model.Listener{Protocol: model.TCP, Port: 25}, Expected: "open"}, Ended: began.Add(time.Hour)},
	}
	write := func(format string) string {
		var b bytes.Buffer
		if err := r.Write(&b, format); err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		return b.String()
	}
	table := write("table")
	for _, want := range []string{"DRIFT", "wider    shop/db", "5432/tcp  published at 0.0.0.0:5432  1 postgres  at most network", "2026-11-30T13:00:00Z", "note: a note", "shop/mail?[2J"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	var parsedReport Report
	if err := json.Unmarshal([]byte(write("json")), &parsedReport); err != nil || len(parsedReport.Drifts) != 2 || parsedReport.Drifts[0].Port != 5432 || parsedReport.File != "ports.yaml" {
		t.Errorf("JSON: %+v, error %v", parsedReport, err)
	}
	var suites junitSuites
	if err := xml.Unmarshal([]byte(write("junit")), &suites); err != nil || suites.Tests != 3 || suites.Failures != 2 || suites.Suite.Cases[0].Failure == nil || suites.Suite.Cases[2].Failure != nil {
		t.Errorf("JUnit: %+v, error %v", suites, err)
	}
	var sarif sarifLog
	if err := json.Unmarshal([]byte(write("sarif")), &sarif); err != nil || len(sarif.Runs) != 1 || len(sarif.Runs[0].Results) != 2 || len(sarif.Runs[0].Tool.Driver.Rules) != len(model.Drifts) {
		t.Fatalf("SARIF: %+v, error %v", sarif, err)
	}
	first := sarif.Runs[0].Results[0]
	if place := first.Locations[0].PhysicalLocation; first.RuleID != "wider" || place.ArtifactLocation.URI != "ports.yaml" || place.Region.StartLine != 4 || !strings.Contains(first.Message.Text, "expected is at most network") {
		t.Errorf("the first result is %+v", first)
	}
	r.Drifts, r.Notes = []model.DriftPeriod{}, []string{}
	if table, sarif := write("table"), write("sarif"); table != "" || !strings.Contains(sarif, `"results": []`) {
		t.Errorf("without drift: %q, %s", table, sarif)
	}
}
