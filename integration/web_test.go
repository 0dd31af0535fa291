package integration

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/truth"
)

// serving is how to run a portwatcher that serves.
type serving struct {
	address string // empty is one of its own
	state   string // the journal's file; empty is one of its own
	after   *instance
	more    []string // arguments
}

// instance is a portwatcher that serves, and how to ask it.
type instance struct {
	*harness.Watch
	address, state, url string
	client              *http.Client
	token               string // sent with each request, unless empty
}

// serve starts portwatcher and returns once it serves.
func serve(t *testing.T, s serving) *instance {
	t.Helper()
	i := &instance{address: s.address, state: s.state, client: &http.Client{Timeout: harness.Patience}}
	if i.address == "" {
		i.address = loopback(9888)
	}
	if i.state == "" {
		i.state = filepath.Join(t.TempDir(), "portwatcher.db")
	}
	spec := harness.WatchSpec{State: i.state, Arguments: append([]string{"--listen", i.address}, s.more...)}
	if s.after != nil {
		spec.After = s.after.Watch
	}
	i.url = "http://" + i.address
	i.Watch = harness.StartWatch(t, spec)
	i.WaitLog(t, "Serving the page, the API and metrics on ", i.address)
	t.Cleanup(i.client.CloseIdleConnections)
	return i
}

// again starts portwatcher on the journal and the address of one that has ended.
func (i *instance) again(t *testing.T) *instance {
	t.Helper()
	return serve(t, serving{address: i.address, state: i.state, after: i})
}

// answer is what came back, with its body.
type answer struct {
	*http.Response
	text []byte
}

func (i *instance) ask(method, path string) (answer, error) {
	request, err := http.NewRequest(method, i.url+path, nil)
	if err != nil {
		return answer{}, err
	}
	if i.token != "" {
		request.Header.Set("Authorization", "Bearer "+i.token)
	}
	return i.send(request)
}

func (i *instance) send(request *http.Request) (answer, error) {
	response, err := i.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response, text}, err
}

// mustAsk is ask with GET for a test that cannot go on without an answer.
func (i *instance) mustAsk(t *testing.T, path string) answer {
	t.Helper()
	a, err := i.ask(http.MethodGet, path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// get reads the JSON that a path of the API answers with.
func (i *instance) get(t *testing.T, path string, query url.Values, value any) {
	t.Helper()
	path = "/api/v1/" + path + "?" + query.Encode()
	a := i.mustAsk(t, path)
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("GET %s: %s, %s, want JSON: %s", path, a.Status, a.Header.Get("Content-Type"), a.text)
	}
	if err := json.Unmarshal(a.text, value); err != nil {
		t.Fatalf("GET %s: %v: %s", path, err, a.text)
	}
}

// problem is an error of the API, as RFC 9457 has it.
type problem struct {
	Type, Title, Detail, Parameter, Value string
	Status                                int
	Allowed                               []string
}

// problemOf reads an answer that is to be a problem with this status.
func problemOf(t *testing.T, a answer, status int) problem {
	t.Helper()
	var p problem
	err := json.Unmarshal(a.text, &p)
	if err != nil || a.StatusCode != status || p.Status != status || p.Title == "" || p.Detail == "" ||
		a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %s %s %s, want a problem with the status %d: %v", a.Request.URL, a.Status, a.Header.Get("Content-Type"), bytes.TrimSpace(a.text), status, err)
	}
	return p
}

// portList is the answer of /api/v1/ports.
type portList struct {
	Time     time.Time
	Ports    []truth.Event // without id and type
	Watching *bool
}

func (o portList) listeners() []harness.Listener {
	var all []harness.Listener
	for _, one := range o.Ports {
		all = append(all, harness.ListenerOf(&one.Listener))
	}
	return all
}

// query makes the parameters of a request from names and values in turn.
func query(parameters ...string) url.Values {
	values := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		values.Add(parameters[i], parameters[i+1])
	}
	return values
}
