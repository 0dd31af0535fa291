package harness

import (
	"context"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
)

// Proxy passes requests on to the default engine, as a socket proxy does. It is safe for
// concurrent use.
type Proxy struct {
	// Host is its address as in DOCKER_HOST.
	Host string

	forward http.Handler
	server  *http.Server
	mu      sync.Mutex
	answer  func(w http.ResponseWriter, r *http.Request) bool
	paths   []string
	cut     context.Context // ends the subscriptions to events
	cutNow  context.CancelFunc
}

// StartProxy starts a proxy on an address such as "tcp://127.0.0.1:0" or "unix:///path",
// which ends when the test does.
func StartProxy(t testing.TB, address string) *Proxy {
	t.Helper()
	network, where, _ := strings.Cut(address, "://")
	listener, err := net.Listen(network, where)
	if err != nil {
		t.Fatal(err)
	}
	engine := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
		FlushInterval: -1,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", "/var/run/docker.sock")
		}},
		ErrorLog: log.New(t.Output(), "proxy: ", 0),
	}
	p := &Proxy{Host: network + "://" + listener.Addr().String(), forward: engine}
	p.cut, p.cutNow = context.WithCancel(context.Background())
	p.server = &http.Server{Handler: p, ErrorLog: engine.ErrorLog}
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(listener) }()
	t.Cleanup(func() {
		p.Close(t)
		<-served
	})
	return p
}

// Close ends the proxy and its connections. A socket's file is removed.
func (p *Proxy) Close(t testing.TB) {
	t.Helper()
	if err := p.server.Close(); err != nil {
		t.Error(err)
	}
}

// Answer has a function answer requests in place of the engine, those for which it
// returns true. Nil answers none.
func (p *Proxy) Answer(answer func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// Requests returns how many requests for a path, after the API's version, there were. The
// path may be a pattern of [path.Match].
func (p *Proxy) Requests(pattern string) (count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.paths {
		if found, _ := path.Match(pattern, one); found {
			count++
		}
	}
	return count
}

// Path returns the path of a request after the API's version.
func (p *Proxy) Path(r *http.Request) string {
	if rest, versioned := strings.CutPrefix(r.URL.Path, "/v1."); versioned {
		_, after, _ := strings.Cut(rest, "/")
		return "/" + after
	}
	return r.URL.Path
}

// Forward passes a request on to the engine.
func (p *Proxy) Forward(w http.ResponseWriter, r *http.Request) { p.forward.ServeHTTP(w, r) }

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.paths = append(p.paths, p.Path(r))
	answer, cut := p.answer, p.cut
	p.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if p.Path(r) == "/events" {
		defer context.AfterFunc(cut, cancel)()
	}
	p.Forward(w, r.WithContext(ctx))
}

// CutEvents ends the subscriptions to events.
func (p *Proxy) CutEvents() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutNow()
	p.cut, p.cutNow = context.WithCancel(context.Background())
}
