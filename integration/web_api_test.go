package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// The API answers with the ports, containers and events that there are, all of them and
// through each filter.
func TestWebAPI(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	project := harness.Name(t, "shop")
	web := start(t, "web", 3, []string{
		"--publish", "80", "--expose", "8443", "--label", "com.docker.compose.project=" + project, "--label", "com.docker.compose.service=front",
	}, "--tcp", "0.0.0.0:80,127.0.0.1:81", "--udp", "0.0.0.0:53")
	db := start(t, "db", 1, nil, "--tcp", "0.0.0.0:5432")
	ignored := start(t, "ignored", 1, []string{"--label", "portwatcher.enable=false"}, "--tcp", "0.0.0.0:80")
	i := serve(t, serving{})
	open := slices.Concat(listening(t, web, 3), listening(t, db, 1))
	i.WaitOpen(t, open)
	i.Marker(t, db, 1000)
	t.Run("ports", func(t *testing.T) { portsAnswer(t, i, open, web, db, project) })
	t.Run("containers", func(t *testing.T) { containersAnswer(t, i, web, db, ignored, project) })
	t.Run("events", func(t *testing.T) { eventsAnswer(t, i, db) })
	t.Run("status", func(t *testing.T) { statusAnswer(t, i, len(open)) })
	t.Run("wrong", func(t *testing.T) { wrongRequests(t, i) })
}

func portsAnswer(t *testing.T, i *instance, open []harness.Listener, web, db *harness.Container, project string) {
	for name, test := range map[string]struct {
		query   url.Values
		matches func(harness.Listener) bool
	}{
		"all":       {nil, func(harness.Listener) bool { return true }},
		"name":      {query("container", web.Name), func(l harness.Listener) bool { return l.Container == web.Name }},
		"names":     {query("container", web.Name, "container", db.Name), func(harness.Listener) bool { return true }},
		"pattern":   {query("container", harness.Name(t, "*")), func(harness.Listener) bool { return false }}, // this subtest's own
		"id":        {query("container", db.ID[:12]), func(l harness.Listener) bool { return l.Container == db.Name }},
		"service":   {query("container", project+"/fro*"), func(l harness.Listener) bool { return l.Container == web.Name }},
		"project":   {query("project", project), func(l harness.Listener) bool { return l.Container == web.Name }},
		"protocol":  {query("protocol", "udp"), func(l harness.Listener) bool { return l.Protocol == "udp" }},
		"port":      {query("port", "80-90/tcp,5432"), func(l harness.Listener) bool { return l.Protocol == "tcp" }},
		"exposure":  {query("exposure", "published,loopback"), func(l harness.Listener) bool { return l.Exposure != "network" }},
		"published": {query("exposure", "published"), func(l harness.Listener) bool { return len(l.Published) > 0 }},
	} {
		before := time.Now()
		var answer portList
		i.get(t, "ports", test.query, &answer)
		want := slices.DeleteFunc(slices.Clone(open), func(l harness.Listener) bool { return !test.matches(l) })
		if difference := harness.Difference(answer.listeners(), want); difference != "" {
			t.Errorf("%s: %s", name, difference)
		}
		if answer.Time.Before(before) || answer.Time.After(time.Now()) || answer.Watching != nil {
			t.Errorf("%s: it is of %v, watching %v", name, answer.Time, answer.Watching)
		}
		for _, one := range answer.Ports {
			if one.OpenedAt.IsZero() || one.OpenedAt.After(before) || one.ID != 0 || one.Type != "" {
				t.Errorf("%s: want opened_at, and neither id nor type: %+v", name, one)
			}
		}
	}
}

// containerAnswer is one container in the answer of /api/v1/containers.
type containerAnswer struct {
	ID, Name, Image, Project, Service, Namespace, Source string
	Monitored, Paused, Stale                             bool
	NetworkMode                                          string `json:"network_mode"`
	Addresses                                            []string
	Declared                                             []struct {
		Protocol           string
		Port               int
		Published          []string
		Exposed, Listening bool
	}
	Undeclared []struct {
		Protocol  string
		Port      int
		Addresses []string
	}
	LastScanAt time.Time `json:"last_scan_at"`
}

func containersAnswer(t *testing.T, i *instance, web, db, ignored *harness.Container, project string) {
	inspect := func(c *harness.Container, format string) string {
		return harness.Default.MustDocker(t, "inspect", "--format", format, c.ID)
	}
	for _, test := range []struct {
		container            *harness.Container
		monitored            bool
		declared, undeclared string
	}{
		{web, true, fmt.Sprintf("tcp 80 true true %v, tcp 8443 true false [], ", web.Published(t, "80/tcp")), "udp 53 [0.0.0.0], tcp 81 [127.0.0.1], "},
		{db, true, "", "tcp 5432 [0.0.0.0], "},
		{ignored, false, "", ""},
	} {
		var answer struct{ Containers []containerAnswer }
		i.get(t, "containers", query("container", test.container.Name), &answer)
		if len(answer.Containers) != 1 {
			t.Fatalf("%s: %d containers, want 1", test.container.Name, len(answer.Containers))
		}
		got := answer.Containers[0]
		declared, undeclared := "", ""
		for _, d := range got.Declared {
			slices.Sort(d.Published)
			declared += fmt.Sprintf("%s %d %v %v %v, ", d.Protocol, d.Port, d.Exposed, d.Listening, d.Published)
		}
		for _, u := range got.Undeclared {
			undeclared += fmt.Sprintf("%s %d %v, ", u.Protocol, u.Port, u.Addresses)
		}
		if declared != test.declared || undeclared != test.undeclared {
			t.Errorf("%s: declared %q and undeclared %q, want %q and %q", got.Name, declared, undeclared, test.declared, test.undeclared)
		}
		address := inspect(test.container, "{{.NetworkSettings.IPAddress}}")
		if got.ID != test.container.ID || got.Name != test.container.Name || got.Image != inspect(test.container, "{{.Config.Image}}") ||
			got.Monitored != test.monitored || got.Paused || got.Stale || !slices.Equal(got.Addresses, []string{address}) ||
			got.NetworkMode != "bridge" {
			t.Errorf("%+v, want what the engine reports", got)
		}
		namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", test.container.PID))
		if err != nil {
			t.Fatal(err)
		}
		if test.monitored && (got.Namespace != namespace || got.Source == "" || time.Since(got.LastScanAt) > harness.Patience) {
			t.Errorf("%+v, want the namespace %s, its source and a scan", got, namespace)
		}
		if of := test.container == web; of != (got.Project == project) || of != (got.Service == "front") {
			t.Errorf("%s: project %q, service %q", got.Name, got.Project, got.Service)
		}
	}
}

// eventsPage is one page of /api/v1/events.
type eventsPage struct {
	Events  []json.RawMessage
	FirstID uint64 `json:"first_id"`
	LastID  uint64 `json:"last_id"`
	Next    string
}

// eventsAnswer walks through the pages from either end.
func eventsAnswer(t *testing.T, i *instance, db *harness.Container) {
	all := i.Lines()
	if len(all) < 6 {
		t.Fatalf("%d events, want 6 at least", len(all))
	}
	first, last := harness.LineID(t, all[0]), harness.LineID(t, all[len(all)-1])
	harness.Eventually(t, "all is recorded", func() string {
		var page eventsPage
		if i.get(t, "events", query("limit", "1"), &page); page.LastID != last {
			return fmt.Sprintf("up to %d, of %d", page.LastID, last)
		}
		return ""
	})
	pages := func(values url.Values) (got [][]string) {
		t.Helper()
		for values.Set("limit", "2"); values != nil; {
			var page eventsPage
			i.get(t, "events", values, &page)
			if page.FirstID != first || page.LastID != last || len(page.Events) > 2 {
				t.Errorf("%v: %d events, of %d to %d; want 2 at most, of %d to %d", values, len(page.Events), page.FirstID, page.LastID, first, last)
			}
			var lines []string
			for _, event := range page.Events {
				lines = append(lines, string(event))
			}
			got = append(got, lines)
			values = nil
			if page.Next != "" {
				next, err := url.Parse(page.Next)
				if err != nil || next.Path != "events" { // relative to the request
					t.Fatalf("the next page is %q: %v", page.Next, err)
				}
				values = next.Query()
			}
		}
		return got
	}
	newer := pages(query("after", "0"))
	sameLines(t, "pages after 0", slices.Concat(newer...), all)
	older := pages(url.Values{})
	slices.Reverse(older)
	sameLines(t, "pages of the last ones", slices.Concat(older...), all)
	closed := pages(query("type", "closed", "container", db.Name, "after", "0"))
	var want []string
	for _, event := range i.Events(harness.Match{Type: "closed", Container: db.Name}) {
		want = append(want, event.Line)
	}
	sameLines(t, "closed in one container", slices.Concat(closed...), want)
}

func statusAnswer(t *testing.T, i *instance, ports int) {
	var status struct {
		Version                       string
		Ready                         bool
		NotReady                      string `json:"not_ready"`
		Namespaces, Containers, Ports int
		StartedAt                     time.Time `json:"started_at"`
		Engine                        struct {
			Connected     bool
			Name, Version string
		}
		Watchers []struct {
			Stale      bool
			Containers []string
		}
		Journal struct {
			Path    string
			LastID  uint64 `json:"last_id"`
			Dropped int
		}
	}
	i.get(t, "status", nil, &status)
	engine := strings.Fields(harness.Default.MustDocker(t, "info", "--format", "{{.Name}} {{.ServerVersion}}"))
	version := harness.Run(t, nil, "version").Stdout
	if !status.Ready || status.NotReady != "" || status.Containers != 2 || status.Namespaces != 2 || len(status.Watchers) != 2 || status.Ports != ports ||
		!status.Engine.Connected || status.Engine.Name != engine[0] || status.Engine.Version != engine[1] || !strings.Contains(version, status.Version) ||
		status.Journal.Path != i.state || status.Journal.LastID != i.LastID() || status.Journal.Dropped != 0 || time.Since(status.StartedAt) > time.Hour {
		t.Errorf("%+v; want 2 containers with %d ports, engine %q, version %s, the journal %s", status, ports, engine, version, i.state)
	}
}

func wrongRequests(t *testing.T, i *instance) {
	for path, parameter := range map[string]string{
		"ports?port=99999": "port", "ports?protocol=icmp": "protocol", "ports?exposure=public": "exposure", "ports?at=noon": "at",
		"ports?wait=11m": "wait", "ports?at=1h&wait=1s": "", "events?limit=0": "limit", "events?type=open": "type", "events?after=-1": "after",
		"events?since=1h&until=2h": "", "containers?container=web[": "container",
	} {
		p := problemOf(t, i.mustAsk(t, "/api/v1/"+path), http.StatusBadRequest)
		if parameter != "" && p.Parameter != parameter {
			t.Errorf("%s: %+v, want the parameter named", path, p)
		}
	}
	if p := problemOf(t, i.mustAsk(t, "/api/v1/ports?prot=tcp"), http.StatusBadRequest); !slices.Contains(p.Allowed, "protocol") {
		t.Errorf("%+v, want what is allowed", p)
	}
	problemOf(t, i.mustAsk(t, "/api/v1/port"), http.StatusNotFound)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		a, err := i.ask(method, "/api/v1/ports")
		if err != nil {
			t.Fatal(err)
		}
		if problemOf(t, a, http.StatusMethodNotAllowed); !strings.Contains(a.Header.Get("Allow"), "GET") {
			t.Errorf("%s: Allow is %q", method, a.Header.Get("Allow"))
		}
	}
	request, err := http.NewRequest(http.MethodGet, i.url+"/api/v1/ports", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "attacker.example.com" // a name that leads to the loopback
	a, err := i.send(request)
	if err != nil {
		t.Fatal(err)
	}
	problemOf(t, a, http.StatusForbidden)
}

// at= lists what was open then.
func TestWebAt(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	long := time.Now()
	i := serve(t, serving{})
	i.WaitOpen(t, listening(t, web, 1))
	one := time.Now()
	service := web.Exec(t, "listen", "--udp", "0.0.0.0:53")
	i.WaitOpen(t, listening(t, web, 2))
	two, both := time.Now(), listening(t, web, 2)
	service.Stop(t)
	i.WaitOpen(t, listening(t, web, 1))
	three := time.Now()
	harness.WaitJournal(t, i.state, listening(t, web, 1))
	for at, want := range map[time.Time][]harness.Listener{one: listening(t, web, 1), two: both, three: listening(t, web, 1)} {
		var answer portList
		i.get(t, "ports", query("at", harness.Stamp(at)), &answer)
		if difference := harness.Difference(answer.listeners(), want); difference != "" {
			t.Errorf("at %v: %s", at, difference)
		}
		if !answer.Time.Equal(at) || answer.Watching == nil || !*answer.Watching {
			t.Errorf("at %v: it is of %v, watching %v", at, answer.Time, answer.Watching)
		}
	}
	for _, at := range []time.Time{long.Add(-time.Minute), time.Now().Add(time.Hour)} {
		a := i.mustAsk(t, "/api/v1/ports?"+query("at", harness.Stamp(at)).Encode())
		if p := problemOf(t, a, http.StatusNotFound); p.Parameter != "at" {
			t.Errorf("at %v: %+v, want the parameter named", at, p)
		}
	}
}

// wait= answers when the port opens, or after its time with 408.
func TestWebWait(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	late := idle(t, "late")
	i := serve(t, serving{})
	ask := func(port int, wait time.Duration) string {
		return "/api/v1/ports?" + query("container", late.Name, "port", strconv.Itoa(port)+"/tcp", "wait", wait.String()).Encode()
	}
	begin := time.Now()
	p := problemOf(t, i.mustAsk(t, ask(80, 300*time.Millisecond)), http.StatusRequestTimeout)
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("it waited %v: %+v", took, p)
	}

	asked, answered := make(chan struct{}), make(chan answer, 1)
	go func() {
		defer close(answered)
		trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(asked) }})
		request, err := http.NewRequestWithContext(trace, http.MethodGet, i.url+ask(80, harness.Patience), nil)
		if err != nil {
			t.Error(err)
			return
		}
		a, err := i.send(request)
		if err != nil {
			t.Error(err)
			return
		}
		answered <- a
	}()
	<-asked
	late.Exec(t, "listen", "--tcp", "0.0.0.0:81") // not the one
	i.WaitEvent(t, 0, harness.Opened(late.Name, "tcp", "0.0.0.0", 81))
	select {
	case a := <-answered:
		t.Fatalf("it has an answer before the port is open: %s %s", a.Status, a.text)
	default:
	}
	late.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	a, ok := <-answered
	if !ok {
		t.FailNow()
	}
	var got portList
	if err := json.Unmarshal(a.text, &got); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %v", a.Status, a.text, err)
	}
	want := slices.DeleteFunc(listening(t, late, 2), func(l harness.Listener) bool { return l.Port != 80 })
	if difference := harness.Difference(got.listeners(), want); difference != "" {
		t.Error(difference)
	}
}
