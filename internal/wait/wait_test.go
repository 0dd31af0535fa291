package wait

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/client"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

// patience is how long what must happen may take.
const patience = 20 * time.Second

func opened(name string, number uint16, address string, exposure model.Exposure, published ...string) model.Open {
	return model.Open{Listener: model.Listener{
		Container: &model.ContainerRef{ID: "id of " + name, Name: name, Project: "shop", Service: strings.TrimPrefix(name, "shop_")},
		Protocol:  model.TCP, Address: netip.MustParseAddr(address), Port: number, Exposure: exposure, Published: published,
	}}
}

// fakeCapture is a capture that the test changes.
type fakeCapture struct {
	mutex      sync.Mutex
	open       []model.Open
	containers []model.ContainerState
	ready      error
	asked      int
}

func (c *fakeCapture) view() *model.View {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.asked++
	return &model.View{Open: slices.Clone(c.open), Containers: c.containers}
}

// local returns an instance that reads the capture.
func (c *fakeCapture) local() *Local {
	l := NewLocal()
	l.Use(c.view, func() error { return c.ready })
	return l
}

func (c *fakeCapture) add(o model.Open) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.open = append(c.open, o)
}

func (c *fakeCapture) reads() int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.asked
}

func running(name string, monitored bool) model.ContainerState {
	return model.ContainerState{Monitored: monitored, Container: &model.Container{
		ID: "id of " + name, Name: name,
		Labels: map[string]string{model.LabelProject: "shop", model.LabelService: strings.TrimPrefix(name, "shop_")},
	}}
}

func target(t *testing.T, text string) Target {
	t.Helper()
	parsed, err := ParseTarget(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestLocal(t *testing.T) {
	capture := &fakeCapture{
		open: []model.Open{
			opened("shop_web", 80, "0.0.0.0", model.Published, "0.0.0.0:8080"), opened("shop_web", 80, "::", model.Published, "[::]:8080"),
			opened("shop_web", 9000, "127.0.0.1", model.Loopback),
		},
		containers: []model.ContainerState{running("shop_web", true), running("shop_db", true), running("other", false)},
	}
	local := capture.local()
	for _, test := range []struct {
		target   string
		exposure []model.Exposure
		want     string // of the output, or of the error
		open     bool
	}{
		{"shop_web:80", nil, "shop_web:80 is open: 80/tcp on 0.0.0.0 published at 0.0.0.0:8080; 80/tcp on :: published at [::]:8080\n", true},
		{"shop/web:80/tcp", []model.Exposure{model.Published}, "80/tcp on 0.0.0.0 in shop_web", true},
		{"shop*:9000", []model.Exposure{model.Host, model.Loopback}, "9000/tcp on 127.0.0.1 in shop_web", true},
		{"shop_web:80/udp", nil, "shop_web:80/udp is not open: shop_web has open 80/tcp (published) 9000/tcp (loopback)", false},
		{"shop_web:9000", []model.Exposure{model.Published, model.Host}, "shop_web:9000 is not open as published or host: shop_web has open 80/tcp", false},
		{"shop_db:5432", nil, "shop_db has no port open", false},
		{"shop/*:1", nil, "shop_web has open 80/tcp (published) 9000/tcp (loopback), shop_db has no port open", false},
		{"other:80", nil, "other is not monitored", false},
		{"nobody:80", nil, "no running container matches nobody", false},
	} {
		var out bytes.Buffer
		err := Run(t.Context(), local, []Target{target(t, test.target)}, Options{Exposures: test.exposure, Output: &out})
		if test.open && (err != nil || !strings.Contains(out.String(), test.want)) {
			t.Errorf("%s: %q, error %v; want %q", test.target, out.String(), err, test.want)
		}
		if !test.open && (!errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), test.want) || out.Len() > 0) {
			t.Errorf("%s: error %v, output %q; want %q", test.target, err, out.String(), test.want)
		}
	}
}

// A port that opens later ends the wait at the event, and not at the next read.
func TestLocalIsWoken(t *testing.T) {
	capture := &fakeCapture{}
	local := capture.local()
	ended := make(chan error)
	var out bytes.Buffer
	go func() {
		ended <- Run(t.Context(), local, []Target{target(t, "web:80")}, Options{Timeout: time.Hour, Output: &out})
	}()
	kernel.Eventually(t, "the capture is read", func() bool { return capture.reads() > 0 })
	capture.add(opened("web", 80, "0.0.0.0", model.Network))
	local.Event()
	select {
	case err := <-ended:
		if err != nil || !strings.HasPrefix(out.String(), "web:80 is open") {
			t.Errorf("%q, error %v", out.String(), err)
		}
	case <-time.After(patience):
		t.Fatal("still waiting")
	}
}

func TestLocalTimeoutTellsWhatDoesNotWork(t *testing.T) {
	down := errors.New("the Docker Engine cannot be reached")
	local := (&fakeCapture{ready: down}).local()
	err := Run(t.Context(), local, []Target{target(t, "web:80")}, Options{Timeout: time.Millisecond})
	if !errors.Is(err, down) || !strings.Contains(err.Error(), "web:80 is not open after 1ms") {
		t.Errorf("error %v, want %v in it", err, down)
	}
}

func TestCanceled(t *testing.T) {
	cause := errors.New("the watching failed")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	local := (&fakeCapture{}).local()
	err := Run(ctx, local, []Target{target(t, "web:80")}, Options{Timeout: time.Hour})
	if !errors.Is(err, cause) || errors.Is(err, ErrTimeout) {
		t.Errorf("error %v, want %v", err, cause)
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken pipe")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestBrokenOutput(t *testing.T) {
	local := (&fakeCapture{open: []model.Open{opened("web", 80, "::", model.Network)}}).local()
	if err := Run(t.Context(), local, []Target{target(t, "web:80")}, Options{Output: brokenWriter{}}); !errors.Is(err, errBroken) {
		t.Errorf("error %v, want %v", err, errBroken)
	}
}

// answer is the fake instance's answer on one path.
type answer struct {
	status int
	body   any
}

// instance serves answers, which may change while it runs.
func instance(t *testing.T, answers func(r *http.Request) answer) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := answers(r)
		w.Header().Set("Content-Type", "application/json")
		if a.status != http.StatusOK {
			w.Header().Set("Content-Type", api.MediaTypeProblem)
		}
		w.WriteHeader(a.status)
		if err := json.NewEncoder(w).Encode(a.body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func remoteAt(t *testing.T, address, token string) Instance {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Server: address, TokenFile: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return Remote(c)
}

func TestRemote(t *testing.T) {
	server := instance(t, func(r *http.Request) answer {
		query := r.URL.Query()
		if r.Header.Get("Authorization") != "Bearer secret" {
			return answer{http.StatusUnauthorized, api.Problem{Status: 401, Title: "Unauthorized", Detail: "a token is needed"}}
		}
		there := []model.Open{opened("web", 8080, "0.0.0.0", model.Network)}
		switch {
		case r.URL.Path == api.PathContainers:
			return answer{http.StatusOK, api.Containers{Containers: []api.Container{{ID: "id of web", Name: "web", Monitored: true}}}}
		case !query.Has("wait"):
			return answer{http.StatusOK, api.Ports{Ports: there}}
		case query.Get("port") == "8080/tcp" && query.Get("exposure") == "network":
			return answer{http.StatusOK, api.Ports{Ports: there}}
		}
		return answer{http.StatusRequestTimeout, api.Problem{Status: 408, Title: "Request Timeout"}}
	})
	run := func(token, text string) (string, error) {
		var out bytes.Buffer
		err := Run(t.Context(), remoteAt(t, server.URL, token), []Target{target(t, text)},
			Options{Exposures: []model.Exposure{model.Network}, Output: &out})
		return out.String(), err
	}
	if out, err := run("secret", "web:8080/tcp"); err != nil || out != "web:8080/tcp is open: 8080/tcp on 0.0.0.0\n" {
		t.Errorf("open: %q, error %v", out, err)
	}
	out, err := run("secret", "web:80")
	if want := "web:80 is not open as network: web has open 8080/tcp (network)"; err == nil || err.Error() != want || out != "" {
		t.Errorf("not open: %q, error %v; want %q", out, err, want)
	}
	_, err = run("wrong", "web:80")
	if err == nil || errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "a token is needed") || !strings.Contains(err.Error(), "--token-file") {
		t.Errorf("wrong token: error %v", err)
	}
}

func TestRemoteUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close() // its port is free
	err := Run(t.Context(), remoteAt(t, server.URL, "secret"), []Target{target(t, "web:80")}, Options{Timeout: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "web:80 is not open after 1ms") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v, want connection refused", err)
	}
}

// Each target has its own line, also those that are open.
func TestSeveral(t *testing.T) {
	local := (&fakeCapture{open: []model.Open{opened("web", 80, "::", model.Network)}}).local()
	var out bytes.Buffer
	err := Run(t.Context(), local, []Target{target(t, "a:1"), target(t, "web:80"), target(t, "b:2")}, Options{Output: &out})
	if strings.Count(out.String(), "\n") != 1 || err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("%q, error %v; want one line of what is open and two of what is not", out.String(), err)
	}
}

// Text from an instance is not trusted.
func TestHostileNames(t *testing.T) {
	name := "web\x1b[2J\n"
	local := (&fakeCapture{
		open:       []model.Open{opened(name, 80, "::", "exp\x1b", "\x1b]0;x\x07")},
		containers: []model.ContainerState{running(name, true)},
	}).local()
	var out bytes.Buffer
	err := Run(t.Context(), local, []Target{target(t, "shop/*:80"), target(t, "*:81")}, Options{Output: &out})
	if err == nil {
		t.Fatal("port 81 is not open")
	}
	for _, text := range []string{strings.TrimSuffix(out.String(), "\n"), err.Error()} {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("control characters in %q", text)
		}
	}
}

// A target is open where as many containers have it open as are asked for, or all that run.
func TestCount(t *testing.T) {
	capture := &fakeCapture{
		open:       []model.Open{opened("shop_web", 80, "0.0.0.0", model.Network), opened("shop_web", 80, "::", model.Network)},
		containers: []model.ContainerState{running("shop_web", true), running("shop_db", true)},
	}
	local := capture.local()
	both := target(t, "shop/*:80")
	for count, want := range map[model.Count]string{
		0: "", 1: "", 2: "shop/*:80 is not open in 2 containers: shop_web has open 80/tcp (network), shop_db has no port open",
		model.EveryContainer: "shop/*:80 is not open in all running containers: shop_web has open 80/tcp (network), shop_db has no port open",
	} {
		err := Run(t.Context(), local, []Target{both}, Options{Count: count})
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: error %v, want %q", count, err, want)
		}
	}
	capture.add(opened("shop_db", 80, "0.0.0.0", model.Network))
	for _, count := range []model.Count{2, model.EveryContainer} {
		var out bytes.Buffer
		err := Run(t.Context(), local, []Target{both}, Options{Count: count, Output: &out})
		if want := "80/tcp on 0.0.0.0 in shop_db\n"; err != nil || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%s: %q, error %v; want %q at the end", count, out.String(), err, want)
		}
	}
	// Which containers are all is not known before all are watched.
	capture.ready = errors.New("it starts")
	if _, err := local.Await(t.Context(), both, Options{Count: model.EveryContainer}); !errors.Is(err, ErrTimeout) {
		t.Errorf("before all are watched: %v", err)
	}
}
