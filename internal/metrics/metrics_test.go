package metrics

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/alert"
	"portwatcher/internal/alert/notify"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

var update = flag.Bool("update", false, "write the golden file")

// fakeState is the state that a test sets.
type fakeState struct {
	view      model.View
	published []Published
	notReady  error
}

func (f *fakeState) sources() Sources {
	return Sources{
		View:      func() *model.View { return &f.view },
		Published: func(*model.View) []Published { return f.published },
		Ready:     func() error { return f.notReady },
		Journal:   func() Journal { return Journal{Writable: true, LagSeconds: 0.25, SizeBytes: 4096, Written: 12} },
		Streams:   func() (open int, cutOff uint64) { return 2, 1 },
		Alerts: func() *alert.Status {
			return &alert.Status{
				Enabled:    true,
				Rules:      []alert.RuleStatus{{Rule: &alert.Rule{Name: "new"}, RuleCounts: alert.RuleCounts{Evaluated: 70, Matched: 3, Failed: 1}}},
				Receivers:  []alert.ReceiverStatus{{Name: "ops", ReceiverCounts: alert.ReceiverCounts{Pending: 2, Dead: 1, Delivered: 4, Failed: 5, GivenUp: 1}, Held: 6}},
				Conditions: []alert.Condition{{Alert: notify.Alert{Rule: "new"}}, {Alert: notify.Alert{Rule: "new"}, Waiting: true}},
				Dropped:    7,
			}
		},
	}
}

var web = &model.ContainerRef{ID: strings.Repeat("a", 64), Name: "shop_web_1", Image: "nginx:1.27", Project: "shop"}

func open(number uint16, exposure model.Exposure, process string) model.Open {
	o := model.Open{Listener: model.Listener{
		Container: web, Protocol: model.TCP, Address: netip.IPv6Unspecified(), Port: number,
		Processes: []model.Process{{PID: 1827, Name: process}, {PID: 1828, Name: "other"}},
	}}
	o.SetReach(exposure, nil)
	return o
}

func realistic() *fakeState {
	nameless := open(9000, model.Loopback, "")
	nameless.Processes = nil
	host := open(22, model.Host, "sshd")
	host.Container = nil
	return &fakeState{
		view: model.View{
			Version: 1,
			Open:    []model.Open{host, open(80, model.Published, "nginx"), open(443, model.Published, "nginx"), open(81, model.Network, "we\xffird \"name\"\\\n\u202e\u009b"), nameless},
			Drifts: []model.OpenDrift{
				{Drift: model.DriftUncovered, Target: "other", Listener: model.Listener{Container: &model.ContainerRef{Name: "other"}}},
				{Drift: model.DriftUnexpected, Target: "shop/web", Listener: open(81, model.Network, "").Listener, Endpoints: 2},
				{Drift: model.DriftUnexpected, Target: "shop/web", Listener: open(81, model.Loopback, "").Listener, Endpoints: 1},
				{Drift: model.DriftMissing, Target: "shop/db", Listener: model.Listener{Protocol: model.TCP, Port: 5432}},
			},
			Containers: []model.ContainerState{
				{Container: &model.Container{Name: "shop_web_1"}, Monitored: true}, {Container: &model.Container{Name: "other"}},
			},
			Status: model.CaptureStatus{
				Engine:   model.EngineStatus{Connected: true, Reconnects: 2},
				Watchers: []model.WatcherStatus{{}, {Stale: true}},
				Gaps:     1, Overruns: 2, Lost: 3,
				Queues: []model.QueueStatus{{Name: "journal", Capacity: 65536}, {Name: "output", Length: 1, Capacity: 131072, Dropped: 4}},
			},
			Counters: model.Counters{
				Events: map[model.EventKind]uint64{
					{Type: model.Opened, Source: model.SourceEBPF}: 3, {Type: model.Closed, Source: model.SourceEngine}: 1,
					{Type: model.Changed, Source: model.SourceSockDiag}: 1, {Type: model.Bursts, Source: model.SourceEBPF}: 2, {Type: model.Gap}: 1,
				},
				Detection: map[model.Source]model.Distribution{
					model.SourceEBPF:    {Counts: []uint64{0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, Sum: 0.0007},
					model.SourceDestroy: {Counts: []uint64{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, Sum: 12.003},
				},
				Pipeline: []model.Stage{
					{Name: "kernel", In: 100, Out: 90, Counted: 5, Held: 2, Lost: 3}, {Name: "tracker", In: 90, Out: 80, Dropped: 10},
				},
			},
		},
		published: []Published{
			{Container: "shop_web_1", Protocol: model.TCP, Port: 80, Listening: true},
			{Container: "shop_web_1", Protocol: model.TCP, Port: 8443},
		},
	}
}

func filled(t testing.TB, maxSeries int, state *fakeState) (*Metrics, *logtest.Hook) {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	m := New(Options{MaxSeries: maxSeries, Version: "1.2.3", Commit: "abc", Logger: logger})
	m.Watch(state.sources())
	m.ObserveScan(model.SourceSockDiag, 40*time.Millisecond)
	return m, hook
}

func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	return scrapeAs(t, m, "")
}

// scrapeAs scrapes as a client that accepts a format.
func scrapeAs(t testing.TB, m *Metrics, accept string) string {
	t.Helper()
	var text bytes.Buffer
	if err := m.Write(&text, Negotiate(http.Header{"Accept": {accept}})); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// changing matches what differs from machine to machine.
var changing = regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?(go|process)_.*\n|,go_version="[^"]*"`)

func TestGolden(t *testing.T) {
	m, hook := filled(t, 5000, realistic())
	got := changing.ReplaceAllString(scrape(t, m), "")
	golden := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as in %s (-update writes it):\n%s", golden, got)
	}
	if entries := hook.AllEntries(); len(entries) > 0 {
		t.Errorf("logged: %+v", entries[0])
	}
}

func TestPromtoolLikesIt(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		kernel.Skip(t, "promtool is not installed (Debian: prometheus)")
	}
	m, _ := filled(t, 5000, realistic())
	command := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	command.Stdin = strings.NewReader(scrape(t, m))
	if output, err := command.CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("%v: %s", err, output)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	state := realistic()
	for i := range 20 {
		state.view.Open = append([]model.Open{open(uint16(2000+i), model.Loopback, "x")}, state.view.Open...)
		state.published = append(state.published, Published{Container: "shop_web_1", Protocol: model.TCP, Port: uint16(3000 + i)})
	}
	m, hook := filled(t, 5, state)
	text := scrape(t, m)
	for metric, excess := range map[string]int{"portwatcher_port_info": 20, "portwatcher_published_port_listening": 17, "portwatcher_listening_ports": 0} {
		if !strings.Contains(text, fmt.Sprintf("portwatcher_series_left_out{metric=%q} %d\n", metric, excess)) {
			t.Errorf("%s: %d are not reported as left out:\n%s", metric, excess, text)
		}
		if count := strings.Count(text, "\n"+metric+"{"); count > 5 {
			t.Errorf("%s has %d series", metric, count)
		}
	}
	if strings.Count(text, `exposure="published"`) != 3 { // two endpoints, one count
		t.Errorf("what is published is left out first:\n%s", text)
	}
	scrape(t, m)
	if got := len(hook.AllEntries()); got != 1 {
		t.Errorf("logged %d times", got)
	}
}

// No label has the namespace in which a container listens: there is no series twice.
func TestSeriesOfInnerNamespaces(t *testing.T) {
	own, inner := open(80, model.Loopback, "nginx"), open(80, model.Loopback, "nginx")
	inner.Namespace = "net:[4026532281]"
	linked := inner
	linked.Exposure = model.Network
	m, _ := filled(t, 100, &fakeState{view: model.View{Open: []model.Open{own, inner, linked}}})
	text := scrape(t, m)
	if count := strings.Count(text, "\nportwatcher_port_info{"); count != 2 {
		t.Errorf("%d series, want one of each exposure:\n%s", count, text)
	}
}

func TestHistograms(t *testing.T) {
	m, _ := filled(t, 5000, realistic())
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	h := histogramOf(families, "portwatcher_scan_duration_seconds")
	if h == nil || h.Schema == nil || len(h.PositiveSpan) == 0 || len(h.Bucket) != len(model.DetectionBounds) {
		t.Errorf("%v", h)
	}
}

func histogramOf(families []*dto.MetricFamily, name string) *dto.Histogram {
	for _, family := range families {
		if family.GetName() == name {
			return family.Metric[0].Histogram
		}
	}
	return nil
}

func TestNobodyCounts(*testing.T) {
	var m *Metrics
	m.ObserveScan(model.SourceEBPF, time.Second)
}

// TestPortsAreValid has the library check the metrics that are built without it.
func TestPortsAreValid(t *testing.T) {
	for name, state := range map[string]*fakeState{"realistic": realistic(), "nothing": {}} {
		for _, accept := range []string{"", "application/openmetrics-text;version=1.0.0", "text/plain;version=0.0.4;escaping=underscores"} {
			m, _ := filled(t, 4, state)
			families, err := prometheus.Gatherers{m.registry, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
				return m.ports.families(&state.view), nil
			})}.Gather()
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			encoder := expfmt.NewEncoder(&text, Negotiate(http.Header{"Accept": {accept}}))
			for _, family := range families {
				if err := encoder.Encode(family); err != nil {
					t.Fatal(err)
				}
			}
			if err := encoder.(expfmt.Closer).Close(); err != nil {
				t.Fatal(err)
			}
			got, want := comparable(scrapeAs(t, m, accept)), comparable(text.String())
			if !slices.Equal(got, want) {
				t.Errorf("%s, %q: %q, want %q", name, accept, got, want)
			}
		}
	}
}

// comparable returns the lines in order, without those that change.
func comparable(text string) []string {
	lines := slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(line string) bool {
		return strings.Contains(line, "go_") || strings.Contains(line, "process_")
	})
	slices.Sort(lines)
	return lines
}

func TestProtobuf(t *testing.T) {
	m, _ := filled(t, 5000, realistic())
	format := Negotiate(http.Header{"Accept": {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"}})
	var content bytes.Buffer
	if err := m.Write(&content, format); err != nil {
		t.Fatal(err)
	}
	decoder, found := expfmt.NewDecoder(&content, format), map[string]int{}
	for {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		found[family.GetName()] = len(family.Metric)
	}
	if found["portwatcher_port_info"] != 5 || found["portwatcher_events_total"] != 5 {
		t.Errorf("%v", found)
	}
}

// TestAnotherVersionIsWritten has a view that changes between two scrapes.
func TestAnotherVersionIsWritten(t *testing.T) {
	state := realistic()
	m, _ := filled(t, 5000, state)
	for _, accept := range []string{"", "application/openmetrics-text;version=1.0.0"} {
		before := scrapeAs(t, m, accept)
		state.view.Open, state.view.Version = state.view.Open[1:], state.view.Version+1
		after := scrapeAs(t, m, accept)
		if got, want := strings.Count(after, "portwatcher_port_info{"), strings.Count(before, "portwatcher_port_info{")-1; got != want {
			t.Errorf("%q: %d series, want %d", accept, got, want)
		}
	}
}

func TestNotReady(t *testing.T) {
	state := realistic()
	state.notReady = errors.New("blind")
	m, _ := filled(t, 5000, state)
	if text := scrape(t, m); !strings.Contains(text, "\nportwatcher_ready 0\n") {
		t.Error(text)
	}
}

func BenchmarkWrite(b *testing.B) {
	state := realistic()
	state.view.Open = nil
	for i := range 3000 {
		state.view.Open = append(state.view.Open, open(uint16(1000+i), model.Network, "nginx"))
	}
	for _, test := range []struct {
		name   string
		change uint64
	}{{"the same version", 0}, {"another version", 1}} {
		b.Run(test.name, func(b *testing.B) {
			m, _ := filled(b, 5000, state)
			var text bytes.Buffer
			b.ReportAllocs()
			for b.Loop() {
				state.view.Version += test.change
				text.Reset()
				if err := m.Write(&text, Negotiate(nil)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
