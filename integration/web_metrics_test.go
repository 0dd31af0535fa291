package integration

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
)

var (
	sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	label  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// series is one sample of /metrics.
type series struct {
	labels map[string]string
	value  float64
}

// readMetrics reads the text of /metrics, by the name of the metric.
func readMetrics(text string) (map[string][]series, error) {
	all := map[string][]series{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := sample.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if fields == nil {
			return nil, fmt.Errorf("/metrics: no sample: %q", line)
		}
		one := series{labels: map[string]string{}}
		for _, pair := range label.FindAllStringSubmatch(fields[2], -1) {
			one.labels[pair[1]] = pair[2]
		}
		var err error
		if one.value, err = strconv.ParseFloat(fields[3], 64); err != nil {
			return nil, fmt.Errorf("/metrics: %q: %w", line, err)
		}
		all[fields[1]] = append(all[fields[1]], one)
	}
	return all, nil
}

// scrape reads /metrics by the name of the metric.
func (i *instance) scrape(t *testing.T) (all map[string][]series, text []byte) {
	t.Helper()
	a := i.mustAsk(t, "/metrics")
	if a.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s %s", a.Status, a.text)
	}
	all, err := readMetrics(string(a.text))
	if err != nil {
		t.Fatal(err)
	}
	return all, a.text
}

// The metrics agree with what listens and with what was told, and no label
// holds what grows without a bound.
func TestWebMetrics(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 4, []string{"--publish", "80", "--publish", "81"}, "--tcp", "0.0.0.0:80,127.0.0.1:82,0.0.0.0:83", "--udp", "0.0.0.0:53")
	db := start(t, "db", 1, nil, "--tcp", "0.0.0.0:5432")
	i := serve(t, serving{})
	i.WaitOpen(t, truth(t, web, 4), truth(t, db, 1))
	i.Marker(t, web, 1000)
	agrees(t, i, slices.Concat(truth(t, web, 4), truth(t, db, 1)))
	db.Exec(t, "listen", "--udp", "127.0.0.1:53")
	db.Do(t, "pause")
	i.WaitOpen(t, truth(t, web, 4), truth(t, db, 2))
	db.Do(t, "unpause")
	web.Do(t, "stop")
	i.WaitOpen(t, truth(t, db, 2))
	agrees(t, i, truth(t, db, 2))
	all, text := i.scrape(t)
	for metric, samples := range all {
		allowed := []string{"source", "type", "stage", "what", "state", "queue", "metric", "le", "container_name", "protocol", "exposure", "version", "commit", "go_version"}
		switch {
		case metric == "portwatcher_port_info":
			allowed = append(allowed, "container_id", "image", "address", "port", "process")
		case metric == "portwatcher_published_port_listening":
			allowed = append(allowed, "port")
		case !strings.HasPrefix(metric, "portwatcher_"):
			continue // of Go and of the process
		}
		for _, one := range samples {
			for name := range one.labels {
				if !slices.Contains(allowed, name) {
					t.Errorf("%s has the label %s: %v", metric, name, one.labels)
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

// agrees holds the metrics against what is open, and against the events so far.
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
		events[count(event.Type, event.Source)]++
		switch event.Type {
		case "opened":
			states["listening"]++
		case "closed":
			states["closed"]++
		}
	}
	all := map[string][]series{}
	gather := func(metric string, labels ...string) map[string]float64 {
		got := map[string]float64{}
		for _, one := range all[metric] {
			var values []string
			for _, name := range labels {
				values = append(values, one.labels[name])
			}
			got[count(values...)] += one.value
		}
		return got
	}
	// What is counted runs behind what is printed.
	harness.Eventually(t, "the metrics agree with the truth", func() string {
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
