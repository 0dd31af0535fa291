package integration

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/truth"
)

// scrape reads /metrics by the name of the metric.
func (i *instance) scrape(t *testing.T) (all map[string][]truth.Series, text []byte) {
	t.Helper()
	a := i.mustAsk(t, "/metrics")
	if a.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s %s", a.Status, a.text)
	}
	all, err := truth.ReadMetrics(string(a.text))
	if err != nil {
		t.Fatal(err)
	}
	return all, a.text
}

// The metrics agree with what listens and with the events, and no label has values that grow
// without a bound.
func TestWebMetrics(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 4, []string{"--publish", "80", "--publish", "81"}, "--tcp", "0.0.0.0:80,127.0.0.1:82,0.0.0.0:83", "--udp", "0.0.0.0:53")
	db := start(t, "db", 1, nil, "--tcp", "0.0.0.0:5432")
	i := serve(t, serving{})
	i.WaitOpen(t, listening(t, web, 4), listening(t, db, 1))
	i.Marker(t, web, 1000)
	agrees(t, i, slices.Concat(listening(t, web, 4), listening(t, db, 1)))
	db.Exec(t, "listen", "--udp", "127.0.0.1:53")
	db.Do(t, "pause")
	i.WaitOpen(t, listening(t, web, 4), listening(t, db, 2))
	db.Do(t, "unpause")
	web.Do(t, "stop")
	i.WaitOpen(t, listening(t, db, 2))
	agrees(t, i, listening(t, db, 2))
	all, text := i.scrape(t)
	for metric, samples := range all {
		allowed := []string{"source", "type", "stage", "what", "state", "queue", "metric", "le", "container_name", "protocol", "exposure", "outside", "version", "commit", "go_version"}
		switch {
		case metric == "portwatcher_port_info":
			allowed = append(allowed, "container_id", "image", "address", "port", "process")
		case metric == "portwatcher_published_port_listening":
			allowed = append(allowed, "port")
		case !strings.HasPrefix(metric, "portwatcher_"):
			continue // of Go and of the process
		}
		for _, one := range samples {
			for name := range one.Labels {
				if !slices.Contains(allowed, name) {
					t.Errorf("%s has the label %s: %v", metric, name, one.Labels)
				}
			}
		}
	}
	t.Run("promtool", func(t *testing.T) {
		promtool, err := exec.LookPath("promtool")
		if err != nil {
			harness.Unavailable(t, "needs the command promtool (Debian's package prometheus)")
		}
		check := exec.Command(promtool, "check", "metrics")
		check.Stdin = bytes.NewReader(text)
		if output, err := check.CombinedOutput(); err != nil || len(output) != 0 {
			t.Errorf("promtool check metrics: %v\n%s", err, output)
		}
	})
}

// agrees compares the metrics with what is open, and with the events so far.
func agrees(t *testing.T, i *instance, open []harness.Listener) {
	t.Helper()
	count := func(keys ...string) string { return strings.Join(keys, " ") }
	ports, infos := map[string]float64{}, map[string]float64{}
	for _, l := range open {
		ports[count(l.Container, l.Protocol, l.Exposure)]++
		infos[count(l.Container, l.Protocol, l.Exposure, l.Address, strconv.Itoa(l.Port), l.Processes[0].Name)]++
	}
	events, states := map[string]float64{}, map[string]float64{"listening": 0, "closed": 0}
	for _, line := range i.Lines() {
		event := harness.ParseEvent(t, line)
		events[count(string(event.Type), string(event.Source))]++
		switch event.Type {
		case "opened":
			states["listening"]++
		case "closed":
			states["closed"]++
		}
	}
	all := map[string][]truth.Series{}
	gather := func(metric string, labels ...string) map[string]float64 {
		got := map[string]float64{}
		for _, one := range all[metric] {
			var values []string
			for _, name := range labels {
				values = append(values, one.Labels[name])
			}
			got[count(values...)] += one.Value
		}
		return got
	}
	// What is printed is counted later.
	harness.Eventually(t, "the metrics agree with what happened", func() string {
		all, _ = i.scrape(t)
		for metric, test := range map[string]struct {
			labels []string
			want   map[string]float64
		}{
			"portwatcher_listening_ports": {[]string{"container_name", "protocol", "exposure"}, ports},
			"portwatcher_port_info":       {[]string{"container_name", "protocol", "exposure", "address", "port", "process"}, infos},
			"portwatcher_events_total":    {[]string{"type", "source"}, events},
			"portwatcher_ports_total":     {[]string{"state"}, states},
		} {
			if got := gather(metric, test.labels...); !maps.Equal(got, test.want) {
				return fmt.Sprintf("%s: %v, want %v", metric, got, test.want)
			}
		}
		return ""
	})
}
