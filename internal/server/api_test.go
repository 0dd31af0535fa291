package server

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

func TestPorts(t *testing.T) {
	s := start(t, nil)
	for _, test := range []struct {
		query string
		want  string // container:port of each
	}{
		{"", "shop_web_1:80 shop_web_1:80 shop_web_1:9000 db:5432 db:5353"},
		{"container=db", "db:5432 db:5353"},
		{"container=shop*", "shop_web_1:80 shop_web_1:80 shop_web_1:9000"},
		{"container=shop/w*&port=80", "shop_web_1:80 shop_web_1:80"},
		{"container=" + web.ID[:12], "shop_web_1:80 shop_web_1:80 shop_web_1:9000"},
		{"container=" + web.ID[:11], ""},
		{"container=db,shop/web&port=5432,9000", "shop_web_1:9000 db:5432"},
		{"container=db&container=shop/web&port=80", "shop_web_1:80 shop_web_1:80"},
		{"project=shop", "shop_web_1:80 shop_web_1:80 shop_web_1:9000"},
		{"project=nothing", ""},
		{"protocol=udp", "db:5353"},
		{"port=5000-6000/tcp", "db:5432"},
		{"port=5353/tcp", ""},
		{"exposure=loopback,published", "shop_web_1:80 shop_web_1:80 shop_web_1:9000"},
		{"outside=true", "shop_web_1:80 shop_web_1:80"},
		{"outside=false", "shop_web_1:9000 db:5432 db:5353"},
		{"outside=false&exposure=network,lan", "db:5432 db:5353"},
		{"container=&port=", "shop_web_1:80 shop_web_1:80 shop_web_1:9000 db:5432 db:5353"},
	} {
		answer := decode[api.Ports](t, s, "/api/v1/ports?"+test.query)
		var got []string
		for _, o := range answer.Ports {
			got = append(got, o.Container.Name+":"+strconv.Itoa(int(o.Port)))
		}
		if joined := strings.Join(got, " "); joined != test.want {
			t.Errorf("%s: %s, want %s", test.query, joined, test.want)
		}
		if answer.Watching != nil || time.Since(answer.Time) > time.Minute || answer.Ports == nil {
			t.Errorf("%s: %+v", test.query, answer)
		}
	}
	if got := decode[api.Ports](t, s, "/api/v1/ports").Ports; !reflect.DeepEqual(got, s.capture.open) {
		t.Errorf("%+v, want %+v", got, s.capture.open)
	}
}

func TestPortsAtATime(t *testing.T) {
	s := start(t, nil)
	s.history.past = []model.Open{openPort(db, model.TCP, "0.0.0.0", 5432, model.Network), openPort(web, model.TCP, "0.0.0.0", 80, model.Published)}
	answer := decode[api.Ports](t, s, "/api/v1/ports?at=2026-01-02T03:04:05%2B01:00&container=db")
	if len(answer.Ports) != 1 || answer.Watching == nil || *answer.Watching || !answer.Time.Equal(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)) {
		t.Errorf("%+v", answer)
	}
	s.history.watching = true
	// A plus that is not escaped is a blank.
	if answer := decode[api.Ports](t, s, "/api/v1/ports?at=2026-01-02T03:04:05+01:00"); !*answer.Watching || answer.Time.Hour() != 2 {
		t.Errorf("%+v", answer)
	}
	if answer := decode[api.Ports](t, s, "/api/v1/ports?at=-2h"); time.Since(answer.Time) < 2*time.Hour || time.Since(answer.Time) > 3*time.Hour {
		t.Errorf("two hours ago is %s", answer.Time)
	}
	s.problem(t, http.StatusNotFound, "/api/v1/ports?at=2999-01-01T00:00:00Z")
}

func TestWaitAnswersWhenThePortOpens(t *testing.T) {
	s := start(t, nil)
	if got := decode[api.Ports](t, s, "/api/v1/ports?port=5432&wait=10s"); len(got.Ports) != 1 {
		t.Errorf("what is open already: %+v", got)
	}
	answers := make(chan api.Ports, 1)
	go func() { answers <- decode[api.Ports](t, s, "/api/v1/ports?container=web&port=81/tcp&wait=15s") }()
	kernel.Eventually(t, "the request waits", func() bool { return len(s.waits) == 1 })
	late := &model.ContainerRef{ID: strings.Repeat("c", 64), Name: "web"}
	opened := openPort(late, model.TCP, "0.0.0.0", 81, model.Network)
	// Another port does not end it, nor does the event without the port.
	s.Event(event(model.Opened, openPort(db, model.TCP, "0.0.0.0", 1, model.Network)))
	s.Event(event(model.Opened, opened))
	s.capture.set(func(c *fakeCapture) { c.open = append(c.open, opened) })
	s.Event(event(model.Opened, opened))
	if got := <-answers; len(got.Ports) != 1 || got.Ports[0].Port != 81 {
		t.Errorf("%+v", got)
	}
	kernel.Eventually(t, "nobody waits", func() bool { return len(s.waits) == 0 && s.waiters.count() == 0 })
}

func TestWaitEndsAfterItsTime(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) { l.waits = 1 })
	s.problem(t, http.StatusRequestTimeout, "/api/v1/ports?port=1&wait=0")
	s.problem(t, http.StatusRequestTimeout, "/api/v1/ports?port=1&wait=20ms")
	// One more than can wait is turned away; a stop ends the one that waits.
	type result struct {
		response *http.Response
		body     string
	}
	waiting := make(chan result, 1)
	go func() {
		response, body := s.get(t, "/api/v1/ports?port=1&wait=10m")
		waiting <- result{response, body}
	}()
	kernel.Eventually(t, "the request waits", func() bool { return len(s.waits) == 1 })
	response, body := s.get(t, "/api/v1/ports?port=1&wait=1s")
	asProblem(t, http.StatusServiceUnavailable, response, body)
	if response.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	one := <-waiting
	asProblem(t, http.StatusServiceUnavailable, one.response, one.body)
}

func TestWaitEndsWithItsClient(t *testing.T) {
	s := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/v1/ports?port=1&wait=10m", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		kernel.Eventually(t, "the request waits", func() bool { return len(s.waits) == 1 })
		cancel()
	}()
	if response, err := s.client.Do(request); err == nil {
		response.Body.Close()
		t.Errorf("answered with %s", response.Status)
	}
	kernel.Eventually(t, "nobody waits", func() bool { return len(s.waits) == 0 })
}

func TestContainers(t *testing.T) {
	s := start(t, nil)
	all := decode[api.Containers](t, s, "/api/v1/containers").Containers
	if len(all) != 2 || all[0].Name != "db" || all[1].Name != "shop_web_1" {
		t.Fatalf("%+v", all)
	}
	wantDeclared := []api.Declared{
		{Protocol: model.TCP, Port: 80, Published: []string{"0.0.0.0:8080", "[::]:8080"}, Exposed: true, Listening: true},
		{Protocol: model.TCP, Port: 443, Published: []string{"0.0.0.0:8443"}},
		{Protocol: model.UDP, Port: 443, Published: []string{}, Exposed: true},
	}
	if !reflect.DeepEqual(all[1].Declared, wantDeclared) {
		t.Errorf("%+v", all[1].Declared)
	}
	if u := all[1].Undeclared; len(u) != 1 || u[0].Port != 9000 || len(u[0].Addresses) != 1 {
		t.Errorf("%+v", u)
	}
	if len(all[0].Undeclared) != 2 || all[0].Declared == nil {
		t.Errorf("%+v", all[0])
	}
	for _, query := range []string{"container=d*", "name=db", "container=" + db.ID[:20]} {
		if got := decode[api.Containers](t, s, "/api/v1/containers?"+query).Containers; len(got) != 1 || got[0].Name != "db" {
			t.Errorf("%s: %+v", query, got)
		}
	}
}

// The engine forwards nothing to a namespace that a container made itself.
func TestDeclaredPortInAnotherNamespace(t *testing.T) {
	capture := realisticCapture()
	inner := openPort(web, model.TCP, "0.0.0.0", 443, model.Network)
	inner.Namespace = "net:[4026532281]"
	for _, d := range inventory(capture.containers, append(capture.open, inner))[1].Declared {
		if d.Port == 443 && d.Listening {
			t.Errorf("443 is reported as served: %+v", d)
		}
	}
}

func TestWhatOneContainerPublishesAnotherMayServe(t *testing.T) {
	capture := realisticCapture()
	// web publishes 443, and db, which shares its network namespace, listens there.
	capture.containers[1].Namespace = capture.containers[0].Namespace
	capture.open = append(capture.open, openPort(db, model.TCP, "0.0.0.0", 443, model.Published))
	all := inventory(capture.containers, capture.open)
	if !all[1].Declared[1].Listening {
		t.Errorf("443 is reported as not served: %+v", all[1].Declared)
	}
	for _, u := range all[0].Undeclared {
		if u.Port == 443 {
			t.Error("443 is reported as undeclared")
		}
	}
}

func TestStatus(t *testing.T) {
	s := start(t, nil)
	s.history.record(event(model.Opened, s.capture.open[0]), gap())
	status := decode[api.Status](t, s, "/api/v1/status")
	if !status.Ready || status.Version != "1.2.3" || status.Namespaces != 2 || status.Containers != 2 || status.Ports != 5 ||
		status.Journal.FirstID != 1 || status.Journal.LastID != 2 || status.Engine.Version != "20.10.24" || status.Streams.Most != 1000 {
		t.Errorf("%+v", status)
	}
	s.capture.set(func(c *fakeCapture) { c.notReady = context.DeadlineExceeded })
	s.history.fail(context.Canceled)
	status = decode[api.Status](t, s, "/api/v1/status")
	if status.Ready || !strings.Contains(status.NotReady, "deadline") || !strings.Contains(status.NotReady, "canceled") || status.Journal.Error == "" {
		t.Errorf("%+v", status)
	}
}

func TestHealth(t *testing.T) {
	s := start(t, nil)
	decode[map[string]string](t, s, "/healthz")
	decode[map[string]string](t, s, "/readyz")
	s.capture.set(func(c *fakeCapture) { c.notReady = context.DeadlineExceeded })
	if p := s.problem(t, http.StatusServiceUnavailable, "/readyz"); !strings.Contains(p.Detail, "deadline") {
		t.Errorf("%+v", p)
	}
	decode[map[string]string](t, s, "/healthz")
}

func TestEventPages(t *testing.T) {
	s := start(t, nil)
	if got := decode[api.Events](t, s, "/api/v1/events"); got.Events == nil || len(got.Events) != 0 || got.Next != "" {
		t.Errorf("an empty journal: %+v", got)
	}
	for i := range 25 {
		o := openPort([]*model.ContainerRef{web, db}[i%2], model.TCP, "0.0.0.0", uint16(i+1), model.Network)
		s.history.record(event(model.Opened, o))
	}
	for _, test := range []struct {
		query       string
		first, last uint64 // of each page, in turn
		count       int
	}{
		{"limit=10", 1, 25, 25},
		{"limit=5", 1, 25, 25},
		{"limit=25", 1, 25, 25},
		{"limit=10&after=0", 1, 25, 25},
		{"limit=7&after=3", 4, 25, 22},
		{"limit=4&before=11", 1, 10, 10},
		{"limit=2&container=db", 2, 24, 12},
		{"before=1", 0, 0, 0},
		{"before=0", 0, 0, 0},
		{"after=25", 0, 0, 0},
		{"port=5-9&limit=2", 5, 9, 5},
		{"transient=true", 0, 0, 0},
		{"type=closed,gap", 0, 0, 0},
	} {
		seen := map[uint64]bool{}
		next := "/api/v1/events?" + test.query
		for pages := 0; next != ""; pages++ {
			page := decode[api.Events](t, s, next)
			if page.FirstID != 1 || page.LastID != 25 || pages > 20 {
				t.Fatalf("%s: %+v", next, page)
			}
			for i, e := range page.Events {
				if seen[e.ID] || i > 0 && e.ID <= page.Events[i-1].ID {
					t.Errorf("%s: event %d is out of order", next, e.ID)
				}
				seen[e.ID] = true
			}
			next = nextPage(t, next, &page)
		}
		if len(seen) != test.count || test.count > 0 && (!seen[test.first] || !seen[test.last]) {
			t.Errorf("%s: %d events, want %d: %v", test.query, len(seen), test.count, seen)
		}
	}
}

// nextPage returns the path and query of the page after one; empty at the end.
func nextPage(t *testing.T, current string, page *api.Events) string {
	t.Helper()
	if page.Next == "" {
		return ""
	}
	base, err := url.Parse(current)
	if err != nil {
		t.Fatal(err)
	}
	next, err := base.Parse(page.Next)
	if err != nil || strings.HasPrefix(page.Next, "/") {
		t.Fatalf("next %q, error %v: want a relative address", page.Next, err)
	}
	return next.String()
}

func TestBadParametersAreNamed(t *testing.T) {
	s := start(t, nil)
	for query, parameter := range map[string]string{
		"ports?port=99999":                        "port",
		"ports?port=0":                            "port",
		"ports?port=90-80":                        "port",
		"ports?port=80/sctp":                      "port",
		"ports?protocol=TCP":                      "protocol",
		"ports?outside=maybe":                     "outside",
		"ports?exposure=public":                   "exposure",
		"ports?container=a:b":                     "container",
		"ports?container=a/b/c":                   "container",
		"ports?container=label:":                  "container",
		"ports?project=a*":                        "project",
		"ports?project=a&project=b":               "project",
		"ports?wait=11m":                          "wait",
		"ports?wait=-1s":                          "wait",
		"ports?wait=5":                            "wait",
		"ports?at=yesterday":                      "at",
		"ports?at=1h&wait=1s":                     "wait",
		"ports?limit=5":                           "limit",
		"ports?port=" + strings.Repeat("1,", 101): "port",
		"events?since=1h&until=2h":                "until",
		"events?after=1&before=5":                 "before",
		"events?after=-1":                         "after",
		"events?after=9223372036854775808":        "after",
		"events?limit=0":                          "limit",
		"events?limit=5001":                       "limit",
		"events?transient=yes":                    "transient",
		"events?type=open":                        "type",
		"events?at=1h":                            "at",
		"containers?port=80":                      "port",
		"status?x=1":                              "x",
		"status?%ff=1":                            "\uFFFD",
	} {
		p := s.problem(t, http.StatusBadRequest, "/api/v1/"+query)
		if p.Parameter != parameter || !strings.Contains(p.Detail, "allowed ") {
			t.Errorf("%s: %+v", query, p)
		}
	}
	if p := s.problem(t, http.StatusBadRequest, "/api/v1/containers?port=80"); !reflect.DeepEqual(p.Allowed, []string{"container", "name", "project"}) {
		t.Errorf("%+v", p)
	}
	s.problem(t, http.StatusBadRequest, "/api/v1/ports?a=%zz")
	s.problem(t, http.StatusBadRequest, "/api/v1/ports?a=1;b=2")
	if p := s.problem(t, http.StatusBadRequest, "/api/v1/ports?container="+url.QueryEscape(strings.Repeat("ü", 300))); len(p.Value) > 220 {
		t.Errorf("a long value is repeated: %+v", p)
	}
}

func TestAFailingJournalIsAnAnswer(t *testing.T) {
	s := start(t, nil)
	s.history.fail(net.ErrClosed)
	s.problem(t, http.StatusInternalServerError, "/api/v1/events")
	s.history.fail(context.DeadlineExceeded)
	s.problem(t, http.StatusServiceUnavailable, "/api/v1/events")
	s.history.fail(nil)
	decode[api.Events](t, s, "/api/v1/events")
}
