package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/alert"
	"portwatcher/internal/alert/notify"
	"portwatcher/internal/explain"
	"portwatcher/internal/journal"
	"portwatcher/internal/metrics"
	"portwatcher/internal/model"
	"portwatcher/internal/server"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

// capture has one container with all its properties.
type capture struct{ blind atomic.Bool }

var (
	when = time.Now().Add(-time.Minute).UTC()
	web  = &model.Container{
		ID: strings.Repeat("a", 64), Name: "web", Image: "nginx:1.27", NetworkMode: "shop_default",
		Labels:    map[string]string{model.LabelProject: "shop", model.LabelService: "web"},
		Addresses: []netip.Addr{netip.MustParseAddr("172.18.0.2")},
		Ports:     []model.PublishedPort{{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort("0.0.0.0:8080")}},
		Exposed:   []model.ExposedPort{{Protocol: model.UDP, Port: 53}},
	}
	uid      = uint32(0)
	listener = model.Listener{
		Host: "node1", Container: web.Ref(), Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: 80,
		Processes: []model.Process{{PID: 1827, ContainerPID: 1, Name: "nginx", Executable: "/usr/sbin/nginx", UID: &uid}},
		Exposure:  model.Published, Published: []string{"0.0.0.0:8080"}, Outside: new(true), Source: model.SourceEBPF,
	}
)

var drift = model.OpenDrift{
	Drift: model.DriftWider, Since: when, Target: "shop/web", Listener: listener, Endpoints: 1, Expected: "at most network", Entry: "  - target: shop/web\n",
}

func (*capture) View() *model.View {
	other := listener
	other.Port = 9000
	other.SetReach(model.Network, nil)
	return &model.View{
		Version: 1, Time: time.Now().UTC(),
		Open:      []model.Open{{Time: time.Now().UTC(), Listener: listener, OpenedAt: when, Drift: model.DriftWider, DriftSince: when}, {Time: time.Now().UTC(), Listener: other, OpenedAt: when}},
		Expecting: true, Drifts: []model.OpenDrift{drift, {Drift: model.DriftMissing, Since: when, Target: "shop/db", Listener: model.Listener{
			Container: &model.ContainerRef{Name: "shop/db"}, Protocol: model.TCP, Port: 5432,
		}}},
		Containers: []model.ContainerState{
			{Container: web, Monitored: true, Namespace: model.Namespace{Device: 4, Inode: 4026532201}, Source: model.SourceEBPF, LastScan: when},
		},
		Status: model.CaptureStatus{
			Host: "node1", StartedAt: when,
			Engine:   model.EngineStatus{Since: when, Address: "unix:///var/run/docker.sock", Name: "node1", Version: "20.10.24", Error: "refused"},
			Source:   model.SourceStatus{Wanted: "auto", EBPF: true},
			Watchers: []model.WatcherStatus{{Name: "net:[4026532201]", Source: model.SourceEBPF, LastScan: when, Containers: []string{"web"}}},
			Queues:   []model.QueueStatus{{Name: "output", Capacity: 1}},
		},
	}
}

func (c *capture) Ready() error {
	if c.blind.Load() {
		return errors.New("the Docker Engine is gone")
	}
	return nil
}

// alerts have one of everything.
type alerts struct{}

func (alerts) Status() *alert.Status {
	e := &model.Event{ID: 7, Time: when, Type: model.Opened, Listener: listener}
	return &alert.Status{
		Enabled: true, GroupWait: time.Second, Repeat: time.Hour, MaxPerHour: 60, Cursor: 7,
		Quiet:      []alert.Quiet{{From: 22 * 60, To: 7 * 60, Zone: time.UTC, Except: notify.Critical}},
		Rules:      []alert.RuleStatus{{Rule: &alert.Rule{Name: "new", When: "true", For: time.Second, Severity: notify.Warning, To: []string{"ops"}}}},
		Receivers:  []alert.ReceiverStatus{{Name: "ops", Kind: notify.KindWebhook, ReceiverCounts: alert.ReceiverCounts{Pending: 1, Dead: 2, LastTry: when, LastDelivered: when, Problem: "no"}, Held: 3}},
		Conditions: []alert.Condition{{Alert: notify.Alert{Key: "rule=new", Rule: "new", Severity: notify.Warning, Since: when, Event: e}, To: []string{"ops"}}},
	}
}

func (alerts) Deliveries(context.Context, journal.DeliveryQuery) ([]journal.Delivery, error) {
	d := journal.Delivery{
		Seq: 1, ID: "node1/7/1", Receiver: "ops", State: journal.DeliveryPending, Made: when, Due: when, Alerts: 1, Title: "[warning] node1: x", Severity: "warning", Digest: true, Tried: 1,
		Tries: []journal.Try{{Time: when, Status: 500, Response: "oops", Error: "status 500"}},
	}
	done := d
	done.State, done.Finished = journal.DeliveryDead, when
	return []journal.Delivery{d, done}, nil
}

// begin serves until the test ends, with one event of each type recorded.
func begin(t *testing.T) (address string, state *capture) {
	t.Helper()
	log, _ := logtest.NewNullLogger()
	state = &capture{}
	record, err := journal.Open(journal.Options{Logger: log, BootID: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	written := make(chan error, 1)
	go func() { written <- record.Run(ctx) }()
	address, served := serve(ctx, t, state, record, log)
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-served, <-written, record.Close()); err != nil {
			t.Error(err)
		}
	})
	seconds := 1.5
	for i, e := range []*model.Event{
		{Type: model.Opened, Listener: listener}, {Type: model.Changed, Listener: listener, Change: model.ChangeProcess},
		{Type: model.Changed, Listener: listener, Change: model.ChangeExposure, PreviousExposure: model.Lan, PreviousPublished: []string{"127.0.0.1:8080"}},
		{Type: model.Closed, Listener: listener, OpenedAt: when, OpenSeconds: &seconds, Transient: true},
		{Type: model.Bursts, Listener: listener, Burst: &model.Burst{Opened: 5, Closed: 4, First: when, Last: when, Ports: []uint16{80, 81}, PortCount: 900}},
		{Type: model.Gap, Listener: model.Listener{Host: "node1"}, Reason: "an overrun", Lost: 128},
		{Type: model.Drifted, Listener: listener, Drift: model.DriftWider, Ended: true, Expected: "at most network", Reason: "the expectations have changed"},
	} {
		e.ID, e.Time = record.NextID()+uint64(i), time.Now().UTC()
		if !record.Offer(journal.Record{Event: e, Drifts: []model.DriftPeriod{{OpenDrift: drift, Ended: when.Add(time.Second)}}}) {
			t.Fatal("the journal refuses an event")
		}
	}
	kernel.Eventually(t, "the events are recorded", func() bool { return record.LastID() == record.NextID()+6 })
	return address, state
}

func serve(ctx context.Context, t *testing.T, state *capture, record *journal.Journal, log logrus.FieldLogger) (string, <-chan error) {
	t.Helper()
	measures := metrics.New(metrics.Options{MaxSeries: 100, Logger: log})
	s, err := server.New(server.Options{
		Listen: "127.0.0.1:0", Capture: state, History: server.FromJournal(record), Logger: log, Version: "1.2.3",
		Metrics: measures, Alerts: alerts{},
		Explain: func(_ context.Context, target, from string) (any, error) {
			return &explain.Explanation{
				Target: target, From: from, Container: &model.ContainerRef{ID: strings.Repeat("a", 64), Name: "web", Image: "nginx"},
				Diagnosis: explain.LoopbackOnly, Links: []explain.Link{{OK: true, Text: "it runs"}, {Text: "loopback only"}}, Remedy: "Listen on 0.0.0.0.",
			}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	measures.Watch(metrics.Sources{
		View: state.View, Ready: state.Ready, Published: server.PublishedPorts, Streams: s.Streams,
		Journal: func() metrics.Journal { return metrics.Journal{} },
	})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	return "http://" + s.Addr().String(), served
}

// ask returns a request, and its answer with a body that can be read again.
func ask(t *testing.T, address string) (*http.Request, *http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return request, response, body
}

var objects = regexp.MustCompile(`(?m)^( *)type: object$`)

// description is the description that the server serves. Strict allows no property
// that it does not name: clients have to, but the handlers must not need it.
func description(t *testing.T, address string, strict bool) libopenapi.Document {
	t.Helper()
	_, _, text := ask(t, address+server.PathOpenAPI)
	if strict {
		if len(objects.FindAll(text, -1)) < 10 {
			t.Fatal("the strict description would not be strict")
		}
		text = objects.ReplaceAll(text, []byte("${1}type: object\n${1}additionalProperties: false"))
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

func newValidator(t *testing.T, document libopenapi.Document) validator.Validator {
	t.Helper()
	v, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return v
}

func TestDescriptionIsValid(t *testing.T) {
	address, _ := begin(t)
	if valid, problems := newValidator(t, description(t, address, false)).ValidateDocument(); !valid {
		for _, p := range problems {
			t.Error(p)
		}
	}
}

// TestParameters compares the parameters that are described with those that an
// answer about an unknown one lists as allowed.
func TestParameters(t *testing.T) {
	address, _ := begin(t)
	model, err := description(t, address, false).BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		if item.Get == nil || item.GetOperations().Len() != 1 {
			t.Errorf("%s: allowed is get alone", path)
		}
		if !strings.HasPrefix(path, "/api/") {
			continue
		}
		_, _, body := ask(t, address+path+"?nothing=1")
		var p api.Problem
		if err := json.Unmarshal(body, &p); err != nil {
			t.Fatalf("%s: %v: %s", path, err, body)
		}
		slices.Sort(p.Allowed)
		if described := queryParameters(item.Get); !reflect.DeepEqual(described, p.Allowed) {
			t.Errorf("%s: described: %v, allowed: %v", path, described, p.Allowed)
		}
	}
}

func queryParameters(operation *v3.Operation) []string {
	var names []string
	for _, p := range operation.Parameters {
		if p.In == "query" {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// TestAnswers asks for everything, and validates request and answer.
func TestAnswers(t *testing.T) {
	address, state := begin(t)
	v := newValidator(t, description(t, address, true))
	for path, status := range map[string]int{
		api.PathStatus: 200, api.PathContainers: 200, api.PathPorts: 200, api.PathEvents: 200,
		api.PathContainers + "?container=w*&project=shop":                                                       200,
		api.PathPorts + "?container=db,shop/web&protocol=tcp&port=80,1-9000&exposure=network,lan&outside=false": 200,
		api.PathPorts + "?at=0s":                   200,
		api.PathPorts + "?port=80/tcp&wait=1s":     200,
		api.PathPorts + "?port=1&wait=0s":          408,
		api.PathPorts + "?at=2999-01-01T00:00:00Z": 404,
		api.PathEvents + "?limit=2&type=opened,gap,closed,drift&drift=wider&transient=false&outside=true": 200,
		api.PathEvents + "?after=1&since=2020-01-01T00:00:00Z&until=0s":                                   200,
		api.PathExplain + "?target=web:80":                                                                200,
		api.PathDrift:                                                                                     200, api.PathDrift + "?since=1h&drift=wider,missing&port=80": 200,
		api.PathAlerts: 200, api.PathAlerts + "?limit=3&receiver=ops&state=dead": 200,
		"/healthz": 200, "/readyz": 200,
	} {
		request, response, body := ask(t, address+path)
		if response.StatusCode != status {
			t.Errorf("%s: %s: %s", path, response.Status, body)
		}
		if valid, problems := v.ValidateHttpRequestResponse(request, response); !valid {
			for _, p := range problems {
				t.Errorf("%s: %v: %v\n%s", path, p, p.SchemaValidationErrors, body)
			}
		}
	}
	// Here the request is wrong, and the answer has to be right.
	state.blind.Store(true)
	for path, status := range map[string]int{
		api.PathPorts + "?port=x": 400, api.PathEvents + "?nothing=1": 400, api.PathStatus + "?x=1": 400, api.PathAlerts + "?state=lost": 400, "/readyz": 503, api.PathStatus: 200,
	} {
		request, response, body := ask(t, address+path)
		if valid, problems := v.ValidateHttpResponse(request, response); !valid || response.StatusCode != status {
			t.Errorf("%s: %s: %v: %s", path, response.Status, problems, body)
		}
	}
}

// TestTheValidatorSeesMistakes keeps the others from passing whatever comes.
func TestTheValidatorSeesMistakes(t *testing.T) {
	address, _ := begin(t)
	v := newValidator(t, description(t, address, true))
	for _, wrong := range []string{`{}`, `{"ports":[],"time":"2026-01-01T00:00:00Z","more":1}`, `{"ports":[{"time":1}],"time":"2026-01-01T00:00:00Z"}`} {
		request, response, _ := ask(t, address+api.PathPorts)
		response.Body = io.NopCloser(strings.NewReader(wrong))
		if valid, _ := v.ValidateHttpResponse(request, response); valid {
			t.Errorf("%s is taken for valid", wrong)
		}
	}
}
