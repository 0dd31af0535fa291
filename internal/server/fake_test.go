package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/journal"
	"portwatcher/internal/metrics"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// fakeCapture has the state that a test sets.
type fakeCapture struct {
	mutex      sync.Mutex
	open       []model.Open
	containers []model.ContainerState
	status     model.CaptureStatus
	counters   model.Counters
	notReady   error
	drifts     []model.OpenDrift

	version uint64
	view    *model.View // nil after a change
}

// View returns the same view until set changes something.
func (f *fakeCapture) View() *model.View {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.view == nil {
		f.version++
		f.view = &model.View{
			Version: f.version, Time: time.Now().UTC(), Open: slices.Clone(f.open), Containers: f.containers,
			Status: f.status, Counters: f.counters, Drifts: f.drifts, Expecting: len(f.drifts) > 0,
		}
	}
	return f.view
}

func (f *fakeCapture) Ready() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.notReady
}

func (f *fakeCapture) set(change func(*fakeCapture)) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	change(f)
	f.view = nil
}

// fakeHistory is a journal in a slice.
type fakeHistory struct {
	mutex     sync.Mutex
	events    []*model.Event
	last      uint64
	committed chan struct{}
	failure   error // of reading and writing
	queries   int
	past      []model.Open
	watching  bool
	drifts    []model.DriftPeriod
}

func newFakeHistory() *fakeHistory { return &fakeHistory{committed: make(chan struct{})} }

// record takes events as one commit, and gives those without an id the next.
func (f *fakeHistory) record(events ...*model.Event) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, e := range events {
		if e.ID == 0 {
			e.ID = f.last + 1
		}
		f.last = e.ID
	}
	f.events = append(f.events, events...)
	close(f.committed)
	f.committed = make(chan struct{})
}

// forget removes events up to an id, as retention does.
func (f *fakeHistory) forget(upTo uint64) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.events = slices.DeleteFunc(slices.Clone(f.events), func(e *model.Event) bool { return e.ID <= upTo })
}

func (f *fakeHistory) fail(err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.failure = err
}

func (f *fakeHistory) Events(ctx context.Context, q journal.Query) iter.Seq2[*model.Event, error] {
	return func(yield func(*model.Event, error) bool) {
		f.mutex.Lock()
		f.queries++
		events, err := f.events, f.failure
		f.mutex.Unlock()
		if err = errors.Join(err, ctx.Err()); err != nil {
			yield(nil, err)
			return
		}
		filter := q.Matcher(func(string) bool { return false })
		first, _ := slices.BinarySearchFunc(events, q.AfterID+1, func(e *model.Event, id uint64) int { return int(int64(e.ID) - int64(id)) })
		var wanted []*model.Event
		for _, e := range events[first:] {
			if (q.BeforeID == 0 || e.ID < q.BeforeID) && !e.Time.Before(q.Since) && (q.Until.IsZero() || e.Time.Before(q.Until)) && filter.Event(e) {
				wanted = append(wanted, e)
				if q.FromStart && len(wanted) == q.Limit {
					break
				}
			}
		}
		if q.Limit > 0 && len(wanted) > q.Limit {
			wanted = wanted[len(wanted)-q.Limit:]
		}
		for _, e := range wanted {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (f *fakeHistory) At(_ context.Context, t time.Time, filter model.Filter) ([]model.Open, bool, error) {
	if t.After(time.Now()) {
		return nil, false, newProblem(http.StatusNotFound, "the future")
	}
	var refs []*model.ContainerRef
	for _, o := range f.past {
		refs = append(refs, o.Container)
	}
	matcher := filter.Matcher(model.NamesOf(refs))
	return slices.DeleteFunc(slices.Clone(f.past), func(o model.Open) bool { return !matcher.Open(&o) }), f.watching, nil
}

func (f *fakeHistory) Drifts(_ context.Context, q journal.DriftQuery) ([]model.DriftPeriod, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	matcher := q.Filter.Matcher(func(string) bool { return false })
	all := []model.DriftPeriod{}
	for i := range f.drifts {
		if p := &f.drifts[i]; matcher.Drift(&p.OpenDrift) && (p.Ended.IsZero() || !p.Ended.Before(q.Since)) && (q.Limit == 0 || len(all) < q.Limit) {
			all = append(all, *p)
		}
	}
	return all, f.failure
}

func (f *fakeHistory) FirstID(context.Context) (uint64, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if len(f.events) == 0 {
		return 0, f.failure
	}
	return f.events[0].ID, f.failure
}

func (f *fakeHistory) LastID() uint64 {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.last
}

func (f *fakeHistory) Committed() <-chan struct{} {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.committed
}

func (f *fakeHistory) Err() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.failure
}

func (f *fakeHistory) Stats() api.Journal {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return api.Journal{Path: "/state/journal.db", LastID: f.last, LagSeconds: 0.25, SizeBytes: 4096, Queued: 3, Capacity: 65536, Written: uint64(len(f.events)), Dropped: 1}
}

// The words of the tests.
var (
	web = &model.ContainerRef{ID: strings.Repeat("a", 64), Name: "shop_web_1", Image: "nginx:1.27", Project: "shop", Service: "web"}
	db  = &model.ContainerRef{ID: strings.Repeat("b", 64), Name: "db", Image: "postgres:17"}
)

var testTime = time.Date(2026, 11, 22, 18, 36, 28, 123456789, time.UTC)

func openPort(c *model.ContainerRef, protocol model.Protocol, address string, number uint16, exposure model.Exposure) model.Open {
	uid := uint32(0)
	o := model.Open{Time: testTime.Add(time.Minute), OpenedAt: testTime, Listener: model.Listener{
		Host: "node1", Container: c, Protocol: protocol, Address: netip.MustParseAddr(address), Port: number,
		Processes: []model.Process{{PID: 1827, ContainerPID: 1, Name: "nginx", Executable: "/usr/sbin/nginx", UID: &uid}},
		Source:    model.SourceEBPF,
	}}
	var published []string
	if exposure == model.Published {
		published = []string{"0.0.0.0:8080", "[::]:8080"}
	}
	o.SetReach(exposure, published)
	return o
}

func event(kind model.Type, o model.Open) *model.Event {
	e := &model.Event{Time: o.OpenedAt, Type: kind, Listener: o.Listener}
	if kind == model.Closed {
		seconds := 1.5
		e.OpenedAt, e.OpenSeconds = o.OpenedAt, &seconds
	}
	return e
}

func gap() *model.Event {
	return &model.Event{Time: testTime, Type: model.Gap, Listener: model.Listener{Host: "node1"}, Reason: "the kernel dropped messages that were not read in time"}
}

// manyPorts are open endpoints of containers of 15 each.
func manyPorts(count int) []model.Open {
	var open []model.Open
	for i := range count {
		name := fmt.Sprintf("shop_web_%d", i/15)
		c := &model.ContainerRef{ID: fmt.Sprintf("%064x", i/15), Name: name, Image: "nginx:1.27", Project: "shop", Service: "web"}
		open = append(open, openPort(c, model.TCP, "0.0.0.0", uint16(1000+i%15), model.Network))
	}
	return open
}

func realisticCapture() *fakeCapture {
	state := func(ref *model.ContainerRef) model.ContainerState {
		labels := map[string]string{}
		if ref.Project != "" {
			labels[model.LabelProject], labels[model.LabelService] = ref.Project, ref.Service
		}
		return model.ContainerState{
			Container: &model.Container{ID: ref.ID, Name: ref.Name, Image: ref.Image, Labels: labels, NetworkMode: "bridge",
				Addresses: []netip.Addr{netip.MustParseAddr("172.18.0.2")}},
			Monitored: true, Namespace: model.Namespace{Device: 4, Inode: 4026532201}, Source: model.SourceEBPF, LastScan: testTime,
		}
	}
	first, second := state(web), state(db)
	second.Namespace.Inode++
	first.Ports = []model.PublishedPort{
		{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort("0.0.0.0:8080")},
		{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort("[::]:8080")},
		{Protocol: model.TCP, Port: 443, Host: netip.MustParseAddrPort("0.0.0.0:8443")},
	}
	first.Exposed = []model.ExposedPort{{Protocol: model.TCP, Port: 80}, {Protocol: model.UDP, Port: 443}}
	return &fakeCapture{
		open: []model.Open{
			openPort(web, model.TCP, "0.0.0.0", 80, model.Published), openPort(web, model.TCP, "::", 80, model.Published),
			openPort(web, model.TCP, "127.0.0.1", 9000, model.Loopback), openPort(db, model.TCP, "0.0.0.0", 5432, model.Network),
			openPort(db, model.UDP, "0.0.0.0", 5353, model.Network),
		},
		containers: []model.ContainerState{first, second},
		status: model.CaptureStatus{
			Host: "node1", StartedAt: testTime,
			Engine:   model.EngineStatus{Connected: true, Since: testTime, Address: "unix:///var/run/docker.sock", Name: "node1", Version: "20.10.24", Reconnects: 2},
			Source:   model.SourceStatus{Wanted: "auto", EBPF: true},
			Watchers: []model.WatcherStatus{{Name: "net:[4026532201]", Source: model.SourceEBPF, LastScan: testTime, Containers: []string{"shop_web_1"}}, {Name: "net:[4026532202]", Source: model.SourceEBPF, Stale: true, Containers: []string{"db"}}},
			Gaps:     1, Overruns: 2, Lost: 3,
			Queues: []model.QueueStatus{{Name: "output", Length: 1, Capacity: 131072, Dropped: 4}},
		},
	}
}

// running is a server that serves for as long as the test runs.
type running struct {
	*Server
	capture *fakeCapture
	history *fakeHistory
	logs    *logtest.Hook
	url     string
	client  *http.Client
	stop    func() error
}

func quietLogger() (*logrus.Logger, *logtest.Hook) {
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	return logger, hook
}

// fakeExplain knows one answer.
func fakeExplain(_ context.Context, target, from string) (any, error) {
	switch target {
	case "web:80":
		return map[string]string{"target": target, "from": from}, nil
	case "busy:80":
		return nil, fmt.Errorf("%w: one a second", ErrTooMany)
	}
	return nil, &InputError{Parameter: "target", Value: target, Err: errors.New("allowed is web:80")}
}

// start serves with options and limits that change may alter.
func start(t testing.TB, change func(*Options, *limits)) *running {
	t.Helper()
	logger, hook := quietLogger()
	run := &running{capture: realisticCapture(), history: newFakeHistory(), logs: hook}
	o := Options{Listen: "127.0.0.1:0", Capture: run.capture, History: run.history, Logger: logger, Version: "1.2.3", Explain: fakeExplain,
		Metrics: metrics.New(metrics.Options{MaxSeries: 5000, Version: "1.2.3", Commit: "abc", Logger: logger})}
	l := defaultLimits
	if change != nil {
		change(&o, &l)
	}
	var err error
	if run.Server, err = newServer(o, l); err != nil {
		t.Fatal(err)
	}
	o.Metrics.Watch(metrics.Sources{
		View: o.Capture.View, Ready: o.Capture.Ready, Published: PublishedPorts, Streams: run.Streams,
		Journal: func() metrics.Journal { return metrics.Journal{} },
	})
	if err := run.Listen(); err != nil {
		t.Fatal(err)
	}
	run.url = "http://" + run.Addr().String()
	if run.pair != nil {
		run.url = "https://" + run.Addr().String()
	}
	run.client = &http.Client{Transport: &http.Transport{}}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- run.Serve(ctx) }()
	run.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-served:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("the server does not stop")
		}
	})
	t.Cleanup(func() {
		run.client.CloseIdleConnections()
		if err := run.stop(); err != nil {
			t.Error(err)
		}
	})
	return run
}

// get asks for a path and returns the whole answer.
func (r *running) get(t testing.TB, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	return r.request(t, http.MethodGet, path, nil, headers...)
}

func (r *running) request(t testing.TB, method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, r.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			request.Host = headers[i+1]
			continue
		}
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := r.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return response, string(content)
}

// decode asks for a path that answers with 200.
func decode[T any](t testing.TB, r *running, path string, headers ...string) T {
	t.Helper()
	response, body := r.get(t, path, headers...)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", path, response.Status, body)
	}
	var value T
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: %v: %s", path, err, body)
	}
	return value
}

// problem asks for a path that answers with a problem of this status.
func (r *running) problem(t testing.TB, status int, path string, headers ...string) api.Problem {
	t.Helper()
	response, body := r.get(t, path, headers...)
	return asProblem(t, status, response, body)
}

func asProblem(t testing.TB, status int, response *http.Response, body string) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%s: %v: %q", response.Status, err, body)
	}
	if got := response.Header.Get("Content-Type"); got != api.MediaTypeProblem || response.StatusCode != status || p.Status != status || p.Title == "" || p.Detail == "" {
		t.Fatalf("status %d, type %s, want %d: %s", response.StatusCode, got, status, body)
	}
	return p
}
