package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/testutil/cert"
)

// recorder is an engine over HTTP with one container, which records requests.
type recorder struct {
	t *testing.T

	mu       sync.Mutex
	version  string
	requests []string // "GET /v1.41/info"
	filters  string   // of the last subscription
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, request.Method+" "+request.URL.Path)
	w.Header().Set("Api-Version", r.version)
	path := strings.TrimPrefix(request.URL.Path, "/v"+r.version)
	if path == "/events" && request.URL.Query().Get("until") == "" {
		r.filters = request.URL.Query().Get("filters")
	}
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	inspect, err := os.ReadFile("testdata/inspect-web.json")
	if err != nil {
		r.t.Error(err)
	}
	switch path {
	case "/_ping":
	case "/info":
		r.write(w, `{"Name":"node1","ServerVersion":"20.10.24","KernelVersion":"6.1","OperatingSystem":"Debian"}`)
	case "/containers/json":
		r.write(w, `[{"Id":"2928e81e0edb"},{"Id":"gone"}]`)
	case "/containers/2928e81e0edb/json", "/containers/2928e81e0edbcf43683f9ffaea2bf681fdf979929137d641208303aceb0dff95/json":
		r.write(w, string(inspect))
	case "/containers/gone/json":
		w.WriteHeader(http.StatusNotFound)
		r.write(w, `{"message":"No such container: gone"}`)
	case "/events":
		r.write(w, "\n")
		w.(http.Flusher).Flush()
		if request.URL.Query().Get("until") == "" {
			<-request.Context().Done()
		}
	default:
		w.WriteHeader(http.StatusBadRequest)
		r.write(w, `{"message":"client version is too old"}`)
	}
}

func (r *recorder) write(w http.ResponseWriter, text string) {
	if _, err := w.Write([]byte(text)); err != nil {
		r.t.Logf("write: %v", err)
	}
}

func newRecorder(t *testing.T) *recorder { return &recorder{t: t, version: "1.41"} }

func newEngine(t *testing.T, host string) *Engine {
	t.Helper()
	e, err := New(Options{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// The whole life of an Engine sends nothing but GET.
func TestOnlyGetRequests(t *testing.T) {
	t.Setenv("DOCKER_API_VERSION", "1.30") // must not be used
	r := newRecorder(t)
	server := httptest.NewServer(r)
	defer server.Close()
	e := newEngine(t, "tcp://"+server.Listener.Addr().String())

	info, err := e.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Info{Name: "node1", Version: "20.10.24", APIVersion: "1.41", OperatingSystem: "Debian", KernelVersion: "6.1"}
	if info != want {
		t.Errorf("info: got %+v, want %+v", info, want)
	}
	list, err := e.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "pw-engine-web" {
		t.Errorf("list: got %v, %v", list, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan Change, 2)
	done := make(chan error, 1)
	go func() { done <- e.Follow(ctx, changes) }()
	for range 2 {
		select {
		case change := <-changes:
			if change.Kind != Started && change.Kind != Synced {
				t.Errorf("change: got %s, %v", change.Kind, change.Err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no change in ten seconds")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("follow: got %v", err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, wanted := range []string{"/_ping", "/v1.41/info", "/v1.41/containers/json", "/v1.41/containers/2928e81e0edb/json", "/v1.41/events"} {
		if !slices.Contains(r.requests, "GET "+wanted) {
			t.Errorf("no GET %s in %q", wanted, r.requests)
		}
	}
	for _, request := range r.requests {
		if !strings.HasPrefix(request, "GET ") {
			t.Errorf("sent %s", request)
		}
	}
	var filters map[string]map[string]bool
	if err := json.Unmarshal([]byte(r.filters), &filters); err != nil {
		t.Fatal(err)
	}
	if len(filters["type"]) != 2 || len(filters["event"]) != 9 || !filters["event"]["die"] || filters["event"]["exec_start"] {
		t.Errorf("filters: got %v", filters)
	}
}

// An engine that was upgraded may refuse the version agreed on before.
func TestVersionIsNegotiatedAgain(t *testing.T) {
	r := newRecorder(t)
	server := httptest.NewServer(r)
	defer server.Close()
	e := newEngine(t, server.URL)
	for _, version := range []string{"1.41", "1.44", "1.40"} {
		r.mu.Lock()
		r.version = version
		r.mu.Unlock()
		if info, err := e.Info(t.Context()); err != nil || info.APIVersion != version {
			t.Errorf("got %q, %v; want %q", info.APIVersion, err, version)
		}
	}
}

func TestReadOnly(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		if request.Method != http.MethodGet {
			t.Errorf("sent %s", request.Method)
		}
	}))
	defer server.Close()
	c := &http.Client{Transport: &readOnly{next: http.DefaultTransport}}
	for _, test := range []struct {
		method, path string
		allowed      bool
	}{
		{"GET", "/info", true}, {"HEAD", "/_ping", true}, {"HEAD", "/info", false}, {"POST", "/containers/x/stop", false},
		{"PUT", "/_ping", false}, {"DELETE", "/containers/x", false}, {"PATCH", "/x", false},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := c.Do(request)
		if err == nil {
			if closeErr := response.Body.Close(); closeErr != nil {
				t.Error(closeErr)
			}
		}
		if allowed := err == nil; allowed != test.allowed || !allowed && !errors.Is(err, errNotReadOnly) {
			t.Errorf("%s %s: got %v", test.method, test.path, err)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: newRecorder(t)}}
	server.Start()
	// Settings of TLS are for addresses that are not sockets.
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	t.Setenv("DOCKER_HOST", "unix://"+path)
	e := newEngine(t, "")
	if e.Host() != "unix://"+path {
		t.Errorf("host: got %q", e.Host())
	}
	if _, err := e.Info(t.Context()); err != nil {
		t.Error(err)
	}
	server.Close()
	_, err = e.Info(t.Context())
	checkConnectError(t, err, path, syscall.ENOENT, "mount the socket")

	// A socket that nobody listens on.
	listener, err = net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = e.List(t.Context())
	checkConnectError(t, err, path, syscall.ECONNREFUSED, "start the engine")
}

// A socket of which only the removed file is mounted is found elsewhere, or Follow ends.
func TestReplacedSocket(t *testing.T) {
	folder := t.TempDir()
	old, made := filepath.Join(folder, "old.sock"), filepath.Join(folder, "new.sock")
	listener, err := net.Listen("unix", old)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	found, problem := "", error(nil)
	logger, lines := logtest.NewNullLogger()
	e, err := New(Options{Host: "unix://" + old, Logger: logger, Replaced: func(path string) (string, error) {
		if path != old {
			t.Errorf("asked for %s", path)
		}
		return found, problem
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Info(t.Context()) // the engine is away
	checkConnectError(t, err, old, syscall.ECONNREFUSED, "start the engine")
	found = made // it makes its socket in a moment
	_, err = e.Info(t.Context())
	checkConnectError(t, err, old, syscall.ENOENT, "mount the socket")
	if listener, err = net.Listen("unix", made); err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: newRecorder(t)}}
	server.Start()
	for range 2 {
		if _, err := e.Info(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if all := lines.AllEntries(); len(all) != 1 || !strings.Contains(all[0].Message, made) {
		t.Errorf("want one line with the new path, got %v", all)
	}
	server.Close()
	found, problem = "", syscall.EACCES
	err = e.Follow(t.Context(), make(chan Change, 10))
	checkConnectError(t, err, old, syscall.EACCES, "restart policy")
}

func checkConnectError(t *testing.T, err error, host string, cause error, remedy string) {
	t.Helper()
	var connect *ConnectError
	if !errors.As(err, &connect) || !errors.Is(err, cause) {
		t.Errorf("got %v, want a ConnectError by %v", err, cause)
		return
	}
	for _, part := range []string{host, cause.Error(), remedy} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
}

func TestRemedy(t *testing.T) {
	for _, test := range []struct {
		host string
		err  error
		want string
	}{
		{"unix:///s", syscall.EACCES, "group that owns the socket"},
		{"unix:///s", syscall.ENOENT, "-v /s:/s"},
		{"tcp://h:1", syscall.ECONNREFUSED, "correct the port"},
		{"tcp://h:1", &net.DNSError{Err: "no such host"}, "host name"},
		{"tcp://h:1", x509.UnknownAuthorityError{}, "DOCKER_CERT_PATH"},
		{"tcp://h:1", context.DeadlineExceeded, "hangs"},
		{"tcp://h:1", errors.New("403 Forbidden"), "Docker Engine answers"},
	} {
		if got := remedy(test.host, test.err); !strings.Contains(got, test.want) {
			t.Errorf("%s, %v: got %q, want %q in it", test.host, test.err, got, test.want)
		}
	}
}

func TestHostSettings(t *testing.T) {
	empty := t.TempDir()
	for _, test := range []struct {
		host, fromEnv, certPath, verify string
		want                            string // a pattern of the error, or empty
	}{
		{host: "unix:///var/run/docker.sock"},
		{host: "tcp://127.0.0.1:2375"},
		{host: "http://[::1]:2375"},
		{host: "https://docker.example:2376"},
		{host: "", fromEnv: ""},
		{host: "tcp://127.0.0.1:2375", fromEnv: "nonsense"},
		{fromEnv: "nonsense", want: `^DOCKER_HOST: "nonsense": allowed are unix:///PATH, `},
		{host: "/var/run/docker.sock", want: `^--docker-host: "/var/run/docker.sock": allowed are unix:///PATH, `},
		{host: "unix://", want: `allowed are`},
		{host: "ssh://me@host", want: `allowed are`},
		{host: "tcp://host", want: `usual ports are 2375`},
		{host: "tcp://:2375", want: `allowed are`},
		{host: "tcp://a b:1", want: `allowed are`},
		{host: "unix:///" + strings.Repeat("x", 200), want: `too long`},
		{host: "tcp://127.0.0.1:2376", verify: "1", want: `^DOCKER_TLS_VERIFY is set but DOCKER_CERT_PATH is not: `},
		{host: "tcp://127.0.0.1:2376", certPath: empty, want: `^DOCKER_CERT_PATH: ".*": .*ca\.pem`},
		{host: "unix:///var/run/docker.sock", certPath: empty, verify: "1"},
	} {
		t.Setenv("DOCKER_HOST", test.fromEnv)
		t.Setenv("DOCKER_CERT_PATH", test.certPath)
		t.Setenv("DOCKER_TLS_VERIFY", test.verify)
		e, err := New(Options{Host: test.host})
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%+v: %v", test, err)
		case test.want != "" && (err == nil || !regexp.MustCompile(test.want).MatchString(err.Error())):
			t.Errorf("%+v: got %v", test, err)
		case err == nil:
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	folder := t.TempDir()
	serverConfig := writeCertificates(t, folder)
	server := httptest.NewUnstartedServer(newRecorder(t))
	server.TLS = serverConfig
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the failures are wanted
	server.StartTLS()
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_HOST", "tcp://"+address.Host)
	t.Setenv("DOCKER_CERT_PATH", folder)
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	e := newEngine(t, "")
	if _, err := e.Info(t.Context()); err != nil {
		t.Error(err)
	}

	t.Setenv("DOCKER_CERT_PATH", "")
	t.Setenv("DOCKER_TLS_VERIFY", "")
	plain := newEngine(t, "")
	if _, err := plain.Info(t.Context()); err == nil {
		t.Error("no error without TLS")
	}
	stranger := newEngine(t, "https://"+address.Host)
	_, err = stranger.Info(t.Context())
	var connect *ConnectError
	if !errors.As(err, &connect) || !strings.Contains(connect.Remedy, "DOCKER_CERT_PATH") {
		t.Errorf("without the authority: got %v", err)
	}
}

// writeCertificates makes ca.pem, cert.pem and key.pem for both sides, and the
// configuration of a server that demands them.
func writeCertificates(t *testing.T, folder string) *tls.Config {
	t.Helper()
	certificate, key := cert.SelfSigned(t, 1, "127.0.0.1")
	for name, text := range map[string][]byte{"ca.pem": certificate, "cert.pem": certificate, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: cert.Pool(t, certificate), ClientAuth: tls.RequireAndVerifyClientCert}
}
