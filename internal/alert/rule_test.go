package alert

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// Each variable has the value of an event, under the event's JSON name where it has one.
func TestVariables(t *testing.T) {
	uid := uint32(33)
	seconds := 12.5
	e := &model.Event{ID: 1, Time: monday, Type: model.Closed, OpenSeconds: &seconds, Drift: model.DriftWider, Change: model.ChangeExposure, PreviousExposure: model.Network, Lost: 3, Reason: "why"}
	r := newRig(t, parse(t, receivers))
	e.Container = r.container("shop/web/1")
	e.Container.Labels = map[string]string{"team": "core"}
	e.Host, e.Protocol, e.Port, e.Source = "node1", model.UDP, 53, model.SourceEBPF
	e.Processes = []model.Process{{PID: 7, ContainerPID: 1, Name: "nginx", Executable: "/usr/sbin/nginx", Arguments: "-g", UID: &uid}, {PID: 8, Name: "nc"}}
	e.SetReach(model.Published, []string{"0.0.0.0:53"})
	r.core.begin(e)
	for _, when := range []string{
		`type == "closed"`, `drift == "wider"`, `!ended`, `host == "node1"`, `container_name == "shop-web-1"`, `container.name == "shop-web-1"`,
		`project == "shop"`, `service == "web"`, `container.project + "/" + container.service == target`, `image startsWith "shop:"`,
		`container.labels["team"] == "core"`, `container.labels["none"] == ""`, `container_age == 0`, `running`, `protocol == "udp"`, `port == 53`, `port in 50..60`,
		`exposure == "published"`, `outside`, `"0.0.0.0:53" in published`, `process == "nginx"`, `executable matches "^/usr/s?bin/"`,
		`any(processes, .name == "nc")`, `processes[0].uid == 33 && processes[1].uid == -1`, `processes[0].arguments == "-g"`, `source == "ebpf"`, `!transient`,
		`change == "exposure"`, `previous_exposure == "network"`, `open_seconds == 12.5`, `reason == "why"`, `lost == 3`, `time.Hour() == 20`,
		`opened == 0 && closed == 0 && port_count == 0`, `address == "" && namespace == ""`, `!widened()`, `!seen_before()`,
	} {
		rule := &Rule{Name: "x"}
		if err := rule.compile(when); err != nil {
			t.Errorf("%s: %v", when, err)
			continue
		}
		if matches, err := r.core.machine.matches(rule, &r.core.facts); err != nil || !matches {
			t.Errorf("%s: %t, %v", when, matches, err)
		}
	}
	for _, v := range Variables() {
		if v.About == "" || v.Name == "" || v.Type == "" {
			t.Errorf("the variable %+v is not described", v)
		}
	}
	if of := reflect.TypeFor[facts](); len(Variables()) != of.NumField() {
		t.Errorf("%d variables of %d fields", len(Variables()), of.NumField())
	}
}

// A rule that fails does not match, is counted, and is reported.
func TestRuleThatFails(t *testing.T) {
	c := parse(t, "rules: [{name: a, when: 'processes[0].name == \"x\"', to: ops}, {name: b, when: 'type == \"gap\"', to: ops}]"+receivers)
	r := newRig(t, c)
	var reported []error
	r.core.ask.report = func(err error) { reported = append(reported, err) }
	r.event("gap")
	r.wait(time.Minute)
	r.want("the other rule", "20:00:10 ops: b")
	if counts := *r.core.rules["a"]; counts != (RuleCounts{Evaluated: 1, Failed: 1}) {
		t.Errorf("counts %+v", counts)
	}
	if len(reported) != 1 || !strings.Contains(reported[0].Error(), "rule a: ") || strings.Contains(reported[0].Error(), "\n") {
		t.Errorf("reported %v", reported)
	}
}

func TestWidened(t *testing.T) {
	changed := func(from model.Exposure, published ...string) func(*model.Event) {
		return func(e *model.Event) {
			e.Change, e.PreviousExposure, e.PreviousPublished = model.ChangeExposure, from, published
		}
	}
	loopback := func(e *model.Event) { e.SetReach(model.Published, []string{"127.0.0.1:80"}) }
	for _, test := range []struct {
		before, after string
		change        []func(*model.Event)
		want          bool
	}{
		{"", "opened shop/web/1 80 published", nil, false}, // never seen
		{"opened shop/web/0 80 network", "opened shop/web/1 80 published", nil, true},
		{"closed shop/web/0 80 loopback", "opened shop/web/1 80 network", nil, true},
		{"opened shop/web/0 80 published", "opened shop/web/1 80 published", nil, false},
		{"opened shop/web/0 80 published", "opened shop/web/1 80 network", nil, false},
		{"opened shop/web/0 80 published; closed shop/web/0 80 network", "opened shop/web/1 80 published", nil, false},
		{"opened shop/web/1 80 network", "opened shop/web/1 80 published", nil, false}, // its other address
		{"opened shop/web/8 80 published; opened shop/web/0 80 network", "opened shop/web/1 80 published", nil, true},
		{"", "changed shop/web/1 80 published", []func(*model.Event){changed(model.Network)}, true},
		{"", "changed shop/web/1 80 network", []func(*model.Event){changed(model.Published, "0.0.0.0:1")}, false},
		{"", "changed shop/web/1 80 published", []func(*model.Event){changed(model.Published, "127.0.0.1:80")}, true},
		{"", "changed shop/web/1 80 network", []func(*model.Event){changed(model.Published, "127.0.0.1:80"), loopback}, false},
		{"", "changed shop/web/1 80 published", nil, false}, // of the process
		{"opened shop/web/0 80 network", "closed shop/web/1 80 published", nil, false},
	} {
		r := newRig(t, parse(t, receivers))
		for script := range strings.SplitSeq(test.before, "; ") {
			if script != "" {
				r.event(script)
			}
		}
		r.event(test.after, test.change...)
		if got := r.core.widened(); got != test.want {
			t.Errorf("%q, then %q: %t, want %t", test.before, test.after, got, test.want)
		}
	}
}

func TestContainerAge(t *testing.T) {
	r := newRig(t, parse(t, receivers))
	r.started["old"] = monday.Add(-time.Hour)
	age := func(script string, change ...func(*model.Event)) float64 {
		r.event(script, change...)
		return r.core.facts.ContainerAge
	}
	if got := age("opened old 80 network"); got != 0 {
		t.Errorf("when alerts begin an old container is %v s old, want 0", got)
	}
	r.wait(time.Minute)
	if got := age("opened old 81 network"); got != 60 {
		t.Errorf("a minute later it is %v s old, want 60", got)
	}
	if got := age("opened new 81 network"); got != 0 {
		t.Errorf("a new one is %v s old, want 0", got)
	}
	if got := age("gap"); got != -1 {
		t.Errorf("without a container it is %v, want -1", got)
	}
	unknown := func(e *model.Event) { e.Container.StartedAt = time.Time{} }
	if got := age("opened old 82 network", unknown); got != -1 {
		t.Errorf("without a start it is %v, want -1", got)
	}
	r.wait(time.Hour)
	r.started["away"] = r.now.Add(-10 * time.Minute)
	if got := age("opened away 80 network", by(model.SourceRestart)); got != 0 {
		t.Errorf("one that started while portwatcher did not run is %v s old, want 0", got)
	}
}

// What the journal cannot answer does not match, and is reported.
func TestHistoryThatFails(t *testing.T) {
	r := newRig(t, parse(t, receivers))
	reported := 0
	r.core.ask.report = func(error) { reported++ }
	r.core.ask.before = func(*model.Event) (*previous, error) { return nil, errors.New("no") }
	r.event("opened shop/web/1 80 published")
	if r.core.seenBefore() || r.core.widened() || reported == 0 {
		t.Errorf("seen or widened, %d reports", reported)
	}
}

// A rule can name each word of what an event reports.
func TestWordsOfRules(t *testing.T) {
	for variable, words := range map[string][]string{
		"type": texts(model.Types), "drift": texts(model.Drifts), "change": texts(model.Changes), "exposure": texts(model.Exposures),
	} {
		for _, word := range words {
			rule := &Rule{Name: "x"}
			if err := rule.compile(variable + ` == "` + word + `"`); err != nil {
				t.Error(err)
			}
		}
	}
}
