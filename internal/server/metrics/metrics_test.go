package metrics

import (
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/server/api"
)

var update = flag.Bool("update", false, "write the golden file")

// fakeState is what a test says is so.
type fakeState struct {
	open      []port.Open
	inventory []api.Container
	notReady  error
}

func (f *fakeState) Open() []port.Open          { return append([]port.Open(nil), f.open...) }
func (f *fakeState) Inventory() []api.Container { return f.inventory }
func (f *fakeState) Ready() error               { return f.notReady }
func (f *fakeState) Streams() api.Streams       { return api.Streams{Open: 2, Most: 1000, CutOff: 1} }

func (f *fakeState) Journal() api.Journal {
	return api.Journal{LagSeconds: 0.25, SizeBytes: 4096, Written: 12}
}

func (f *fakeState) Status() port.CaptureStatus {
	return port.CaptureStatus{
		Engine:   port.EngineStatus{Connected: true, Reconnects: 2},
		Watchers: []port.WatcherStatus{{}, {Stale: true}},
		Gaps:     1, Overruns: 2, Lost: 3,
		Queues: []port.QueueStatus{{Name: "journal", Capacity: 65536}, {Name: "output", Length: 1, Capacity: 131072, Dropped: 4}},
	}
}

var web = &port.ContainerRef{ID: strings.Repeat("a", 64), Name: "shop_web_1", Image: "nginx:1.27", Project: "shop"}

func open(number uint16, exposure port.Exposure, process string) port.Open {
	return port.Open{Listener: port.Listener{
		Container: web, Protocol: port.TCP, Address: netip.IPv6Unspecified(), Port: number, Exposure: exposure,
		Processes: []port.Process{{PID: 1827, Name: process}, {PID: 1828, Name: "other"}},
	}}
}

func realistic() *fakeState {
	nameless := open(9000, port.Loopback, "")
	nameless.Processes = nil
	host := open(22, port.Host, "sshd")
	host.Container = nil
	return &fakeState{
		open: []port.Open{host, open(80, port.Published, "nginx"), open(443, port.Published, "nginx"), open(81, port.Network, "we\xffird \"name\"\\\n"), nameless},
		inventory: []api.Container{
			{Name: "shop_web_1", Monitored: true, Declared: []api.Declared{
				{Protocol: port.TCP, Port: 80, Published: []string{"0.0.0.0:8080"}, Listening: true},
				{Protocol: port.TCP, Port: 8443, Published: []string{"0.0.0.0:8443"}},
				{Protocol: port.UDP, Port: 443, Exposed: true},
			}},
			{Name: "other", Declared: []api.Declared{{Protocol: port.TCP, Port: 1, Published: []string{"0.0.0.0:1"}}}},
		},
	}
}

func filled(t testing.TB, maxSeries int, state State) (*Metrics, *logtest.Hook) {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	m := New(Options{MaxSeries: maxSeries, Version: "1.2.3", Commit: "abc", Logger: logger})
	m.Watch(state)
	for range 3 {
		m.Event(&port.Event{Type: port.Opened, Listener: port.Listener{Source: port.SourceEBPF}})
	}
	m.Event(&port.Event{Type: port.Closed, Listener: port.Listener{Source: port.SourceEngine}})
	m.Event(&port.Event{Type: port.Changed, Listener: port.Listener{Source: port.SourceSockDiag}})
	m.Event(&port.Event{Type: port.Gap})
	m.ObserveDetection(port.SourceEBPF, 700*time.Microsecond)
	m.ObserveDetection(port.SourceDestroy, 3*time.Millisecond)
	m.ObserveScan(port.SourceSockDiag, 40*time.Millisecond)
	return m, hook
}

func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	m.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	if recorder.Code != 200 {
		t.Fatalf("%d: %s", recorder.Code, recorder.Body)
	}
	return recorder.Body.String()
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
		kerneltest.Skip(t, "promtool is not installed (Debian: prometheus)")
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
		state.open = append([]port.Open{open(uint16(2000+i), port.Loopback, "x")}, state.open...)
		state.inventory[0].Declared = append(state.inventory[0].Declared, api.Declared{Protocol: port.TCP, Port: uint16(3000 + i), Published: []string{"0.0.0.0:1"}})
	}
	m, hook := filled(t, 5, state)
	text := scrape(t, m)
	for metric, excess := range map[string]int{"portwatcher_port_info": 20, "portwatcher_published_port_listening": 17, "portwatcher_listening_ports": 0} {
		if !strings.Contains(text, fmt.Sprintf("portwatcher_series_left_out{metric=%q} %d\n", metric, excess)) {
			t.Errorf("%s: %d are not said to be left out:\n%s", metric, excess, text)
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

func TestNativeHistograms(t *testing.T) {
	m, _ := filled(t, 5000, realistic())
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"portwatcher_detection_latency_seconds", "portwatcher_scan_duration_seconds"} {
		h := histogramOf(families, name)
		if h == nil || h.Schema == nil || len(h.PositiveSpan) == 0 || len(h.Bucket) != len(latencyBuckets) {
			t.Errorf("%s: %v", name, h)
		}
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

func TestNobodyCounts(t *testing.T) {
	var m *Metrics
	m.Event(&port.Event{Type: port.Opened})
	m.ObserveDetection(port.SourceEBPF, time.Second)
	m.ObserveScan(port.SourceEBPF, time.Second)
}

func TestNotReady(t *testing.T) {
	state := realistic()
	state.notReady = errors.New("blind")
	m, _ := filled(t, 5000, state)
	if text := scrape(t, m); !strings.Contains(text, "\nportwatcher_ready 0\n") {
		t.Error(text)
	}
}

func BenchmarkEvent(b *testing.B) {
	m, _ := filled(b, 5000, realistic())
	e := &port.Event{Type: port.Opened, Listener: port.Listener{Source: port.SourceEBPF}}
	b.ReportAllocs()
	for b.Loop() {
		m.Event(e)
	}
}
