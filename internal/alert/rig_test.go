package alert

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/model"
)

// parse returns the settings of a section of YAML.
func parse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := tryParse(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryParse(t testing.TB, text string) (*Config, error) {
	t.Helper()
	c, err := parseText(text)
	if c == nil && err == nil {
		t.Fatalf("no YAML: %s", text)
	}
	return c, err
}

// parseText returns neither settings nor an error where the text is no YAML.
func parseText(text string) (*Config, error) {
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return nil, nil
	}
	s := Settings{File: "config.yaml"}
	if len(document.Content) > 0 {
		s.Node = document.Content[0]
	}
	return Parse(s)
}

// receivers are two of them.
const receivers = `
receivers:
  - {name: ops, webhook: {url: "http://localhost/ops"}}
  - {name: am, alertmanager: {url: "http://localhost:9093"}}
`

// rig drives a core by a script of events, on a clock of its own.
type rig struct {
	t       testing.TB
	core    *core
	now     time.Time
	id      uint64
	history []*model.Event
	started map[string]time.Time // of containers, by their ids
	stopped map[string]bool
	sent    []*notify.Notification
	log     []string // a line for each message
}

// monday is when scripts begin.
var monday = time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)

func newRig(t testing.TB, c *Config) *rig {
	r := &rig{t: t, now: monday, started: map[string]time.Time{}, stopped: map[string]bool{}}
	r.core = newCore(c, surroundings{
		before: r.before,
		running: func(id string, since time.Time) (bool, bool) {
			return !r.stopped[id] && !r.started[id].After(since), true
		},
		report: func(err error) { t.Errorf("reported: %v", err) },
	})
	r.core.start(r.now)
	r.core.now = r.now
	return r
}

func (r *rig) before(e *model.Event) (*previous, error) {
	var events []*model.Event
	for _, one := range r.history {
		if one.ID < e.ID && one.Container != nil && one.Container.Target() == e.Container.Target() && one.Port == e.Port && one.Protocol == e.Protocol &&
			slices.Contains([]model.Type{model.Opened, model.Closed, model.Changed}, one.Type) {
			events = append(events, one)
		}
	}
	return foldBefore(events, e), nil
}

// wait lets time pass.
func (r *rig) wait(d time.Duration) {
	r.now = r.now.Add(d)
	r.core.advance(r.now)
	r.collect()
}

// container is project/service and a replica: "shop/web/1".
func (r *rig) container(name string) *model.ContainerRef {
	parts := strings.Split(name, "/")
	c := &model.ContainerRef{ID: name, Name: strings.Join(parts, "-"), Image: parts[0] + ":1"}
	if len(parts) == 3 {
		c.Project, c.Service = parts[0], parts[1]
	}
	if r.started[name].IsZero() {
		r.started[name] = r.now
	}
	c.StartedAt = r.started[name]
	return c
}

// event sends an event: "opened shop/web/1 80 published", with changes to it.
func (r *rig) event(script string, change ...func(*model.Event)) *model.Event {
	r.t.Helper()
	r.id++
	fields := strings.Fields(script)
	e := &model.Event{ID: r.id, Time: r.now, Type: model.Type(fields[0])}
	e.Host, e.Source = "node1", model.SourceEBPF
	if len(fields) > 1 {
		e.Container = r.container(fields[1])
	}
	if len(fields) > 2 {
		e.Protocol, e.Address = model.TCP, netip.IPv4Unspecified()
		if _, err := fmt.Sscan(fields[2], &e.Port); err != nil {
			r.t.Fatal(err)
		}
	}
	if len(fields) > 3 {
		e.SetReach(model.Exposure(fields[3]), nil)
		if e.Exposure == model.Published {
			e.SetReach(e.Exposure, []string{fmt.Sprintf("0.0.0.0:%d", e.Port)})
		}
	}
	for _, f := range change {
		f(e)
	}
	r.core.event(e)
	r.history = append(r.history, e)
	r.collect()
	return e
}

func drift(d model.Drift) func(*model.Event) { return func(e *model.Event) { e.Drift = d } }
func ended(e *model.Event)                   { e.Ended = true }
func by(s model.Source) func(*model.Event)   { return func(e *model.Event) { e.Source = s } }
func transient(e *model.Event)               { e.Transient = true }

// collect takes what was written, and makes a line of each message.
func (r *rig) collect() {
	r.t.Helper()
	_, deliveries, err := r.core.take()
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range deliveries {
		n := &notify.Notification{}
		if err := json.Unmarshal(deliveries[i].Notification, n); err != nil {
			r.t.Fatal(err)
		}
		r.sent = append(r.sent, n)
		r.log = append(r.log, fmt.Sprintf("%s %s: %s", clockOf(deliveries[i].Made), deliveries[i].Receiver, describe(n)))
	}
}

func clockOf(t time.Time) string {
	day := ""
	if days := int(t.Truncate(24*time.Hour).Sub(monday.Truncate(24*time.Hour)).Hours() / 24); days > 0 {
		day = fmt.Sprintf("+%dd ", days)
	}
	return day + t.Format("15:04:05")
}

func describe(n *notify.Notification) string {
	var parts []string
	for i := range n.Alerts {
		a := &n.Alerts[i]
		text := a.Rule
		if spot := spotOf(a.Event); spot != "" {
			text += " " + spot
		}
		if a.Status == notify.Resolved {
			text += " resolved"
		}
		parts = append(parts, text)
	}
	if n.Digest {
		return "digest [" + strings.Join(parts, ", ") + "]"
	}
	return strings.Join(parts, ", ")
}

// want compares the messages so far.
func (r *rig) want(what string, lines ...string) {
	r.t.Helper()
	if !slices.Equal(r.log, lines) {
		r.t.Errorf("%s: sent\n  %s\nwant\n  %s", what, strings.Join(r.log, "\n  "), strings.Join(lines, "\n  "))
	}
	r.log = nil
}

// restart makes a new core of what the old one wrote.
func (r *rig) restart() {
	r.t.Helper()
	state, err := r.core.whole()
	if err != nil {
		r.t.Fatal(err)
	}
	old := r.core
	r.core = newCore(old.config, old.ask)
	r.core.load(state)
	r.core.now = r.now
	again, err := r.core.whole()
	if err != nil {
		r.t.Fatal(err)
	}
	if len(state) != len(again) {
		r.t.Fatalf("after a restart there are %d values, want %d", len(again), len(state))
	}
	for key, value := range state {
		if string(again[key]) != string(value) {
			r.t.Fatalf("after a restart %v is\n%s\nwant\n%s", key, again[key], value)
		}
	}
}
