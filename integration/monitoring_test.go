package integration

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
)

// A real Prometheus scrapes a real portwatcher: each query of the dashboard has
// an answer, with classic histograms and with native ones; each rule can be
// evaluated; and the alerts on ports and on portwatcher fire, each when it has to.
func TestMonitoring(t *testing.T) {
	harness.Require(t)
	requireEBPF(t) // without it there is no detection latency
	t.Parallel()
	web := idle(t, "web", "--publish", "80", "--publish", "443")
	service := web.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	target, token := loopback(9888), filepath.Join(t.TempDir(), "token")
	write(t, token, "a-token\n")
	watch := harness.StartWatch(t, harness.WatchSpec{Arguments: []string{"--listen", target, "--token-file", token}})
	watch.WaitOpen(t, listening(t, web, 1))
	watch.Marker(t, web, 1000) // a port that opened and closed

	classic := startPrometheus(t, target, token)
	native := startPrometheus(t, target, token, "--enable-feature=native-histograms")
	for _, p := range []*prometheus{classic, native} {
		p.waitFor(t, `up{job="portwatcher"} == 1`)
	}
	native.waitFor(t, `histogram_count(portwatcher_scan_duration_seconds)`)
	for _, p := range []*prometheus{classic, native} { // it has classic buckets alone
		p.waitFor(t, `portwatcher_detection_latency_seconds_bucket`)
	}

	expressions := dashboardQueries(t)
	for _, p := range []*prometheus{classic, native} {
		for _, expression := range expressions {
			p.waitFor(t, expression)
		}
	}
	expectMetrics(t, classic, append(expressions, ruleQueries(t, classic)...))
	t.Run("alerts", func(t *testing.T) { alerts(t, classic, watch, web, service) })
}

func alerts(t *testing.T, p *prometheus, watch *harness.Watch, web *harness.Container, service *harness.Exec) {
	// What a container opens from now on is no part of its start.
	p.waitFor(t, `count_over_time(portwatcher_listening_ports[18s] offset 12s)`)
	if unexpected := p.alerts(t); len(unexpected) != 0 {
		t.Errorf("nothing has happened, but there are alerts: %v", unexpected)
	}

	web.Exec(t, "listen", "--tcp", "0.0.0.0:4444")
	p.expectAlert(t, map[string]string{
		"alertname": "PortwatcherNewPortOnAllAddresses", "container_name": web.Name, "port": "4444", "protocol": "tcp", "exposure": "network",
	}, web.Name, "4444/tcp")

	service.Stop(t)
	p.expectAlert(t, map[string]string{
		"alertname": "PortwatcherPublishedPortClosed", "container_name": web.Name, "port": "80", "protocol": "tcp",
	}, web.Name, "80/tcp", "docker logs "+web.Name)
	web.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	harness.Eventually(t, "the alert ends with its reason", func() string {
		for _, a := range p.alerts(t) {
			if a.Labels["alertname"] == "PortwatcherPublishedPortClosed" {
				return "it is there"
			}
		}
		return ""
	})

	watch.Stop(t, syscall.SIGTERM)
	p.expectAlert(t, map[string]string{"alertname": "PortwatcherBlind", "reason": "down"}, "127.")
}

// expectAlert waits for an alert, and searches its description for texts.
func (p *prometheus) expectAlert(t *testing.T, labels map[string]string, texts ...string) {
	t.Helper()
	a := p.waitAlert(t, labels)
	for _, text := range texts {
		if !strings.Contains(a.Annotations["description"], text) {
			t.Errorf("%s: want %q in its description: %s", labels["alertname"], text, a.Annotations["description"])
		}
	}
	if a.Labels["severity"] == "" || a.Annotations["summary"] == "" {
		t.Errorf("%s: want a severity and a summary: %v %v", labels["alertname"], a.Labels, a.Annotations)
	}
}

// dashboard is what the tests read of Grafana's JSON.
type dashboard struct {
	UID    string
	Panels []struct {
		ID          int
		Type, Title string
		Targets     []struct {
			Expr       string
			Datasource struct{ UID string }
		}
	}
	Templating struct {
		List []struct {
			Name, Type string
			Query      json.RawMessage
		}
	}
}

var (
	labelValues = regexp.MustCompile(`^label_values\((.+), [a-z_]+\)$`)
	variable    = regexp.MustCompile(`\$(\w+)`)
)

// dashboardQueries returns the queries of the dashboard's panels and variables
// as Grafana would send them.
func dashboardQueries(t *testing.T) []string {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "../deploy/grafana/dashboards/portwatcher.json")), &d); err != nil {
		t.Fatalf("the dashboard: %v", err)
	}
	if d.UID != "portwatcher" {
		t.Errorf("the dashboard's uid is %q: links to it would break", d.UID)
	}
	variables := map[string]string{"__rate_interval": "5s", "__range": "1m"}
	var queries []string
	for _, v := range d.Templating.List {
		variables[v.Name] = ".*"
		if v.Type != "query" {
			continue
		}
		var query struct{ Query string }
		if err := json.Unmarshal(v.Query, &query); err != nil {
			t.Fatalf("variable %s: %v", v.Name, err)
		}
		selector := labelValues.FindStringSubmatch(query.Query)
		if selector == nil {
			t.Fatalf("variable %s: want label_values(SELECTOR, LABEL): %s", v.Name, query.Query)
		}
		queries = append(queries, selector[1])
	}
	ids := map[int]string{}
	for _, panel := range d.Panels {
		if other, twice := ids[panel.ID]; twice {
			t.Errorf("panels %q and %q have the same id", other, panel.Title)
		}
		ids[panel.ID] = panel.Title
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("panel %q has no query", panel.Title)
		}
		for _, target := range panel.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q asks %q, not the data source that was chosen", panel.Title, target.Datasource.UID)
			}
			queries = append(queries, target.Expr)
		}
	}
	if len(queries) < 20 {
		t.Fatalf("the dashboard has %d queries only", len(queries))
	}
	for i, query := range queries {
		queries[i] = variable.ReplaceAllStringFunc(query, func(name string) string {
			value, known := variables[name[1:]]
			if !known {
				t.Errorf("the dashboard has no variable %s: %s", name, query)
			}
			return value
		})
	}
	return queries
}

// ruleQueries returns the expressions of the rules once each has been evaluated
// without an error.
func ruleQueries(t *testing.T, p *prometheus) []string {
	t.Helper()
	var queries []string
	harness.Eventually(t, "each rule is evaluated", func() string {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Query, Health, LastError string }
			}
		}
		p.mustAsk(t, "rules", &data)
		queries = nil
		for _, group := range data.Groups {
			for _, rule := range group.Rules {
				if rule.Health != "ok" {
					return rule.Name + ": " + rule.Health + " " + rule.LastError
				}
				queries = append(queries, rule.Query)
			}
		}
		if len(queries) == 0 {
			return "no rules"
		}
		return ""
	})
	return queries
}

var (
	metricName = regexp.MustCompile(`\b(portwatcher|process)_[a-z0-9_]+\b`)
	labelValue = regexp.MustCompile(`=~?"[^"]*"`)
)

// expectMetrics fails the test where an expression names a metric that was not
// scraped: Prometheus takes that for no data.
func expectMetrics(t *testing.T, p *prometheus, expressions []string) {
	t.Helper()
	var names []string
	p.mustAsk(t, "label/__name__/values", &names)
	scraped := map[string]bool{}
	for _, name := range names {
		scraped[strings.TrimSuffix(name, "_bucket")] = true
	}
	needed := map[string]string{}
	for _, expression := range expressions {
		for _, name := range metricName.FindAllString(labelValue.ReplaceAllString(expression, ""), -1) {
			needed[strings.TrimSuffix(name, "_bucket")] = expression
		}
	}
	if len(needed) < 15 {
		t.Fatalf("only these metrics are asked for: %q", slices.Sorted(maps.Keys(needed)))
	}
	for name, expression := range needed {
		if !scraped[name] {
			t.Errorf("portwatcher has no metric %s:\n%s", name, expression)
		}
	}
}
