package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// api is the part of [github.com/docker/docker/client.Client] that is used. All of it
// are GET requests.
type api interface {
	ClientVersion() string
	Info(ctx context.Context) (system.Info, error)
	ContainerList(ctx context.Context, options container.ListOptions) ([]container.Summary, error)
	ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error)
	NetworkInspect(ctx context.Context, id string, options network.InspectOptions) (network.Inspect, error)
	Events(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error)
}

// target is an engine's address, checked.
type target struct {
	host   string // as written, for messages
	from   string // the setting it came from, for messages
	scheme string // "http" or "https"
	socket bool   // a Unix socket
}

// parseHost checks an engine's address; empty takes DOCKER_HOST, then the
// default.
func parseHost(host string) (target, error) {
	t := target{host: host, from: "--docker-host", scheme: "http"}
	if t.host == "" {
		t.host, t.from = os.Getenv(client.EnvOverrideHost), client.EnvOverrideHost
	}
	if t.host == "" {
		t.host = client.DefaultDockerHost
	}
	const allowed = "allowed are unix:///PATH, tcp://HOST:PORT, http://HOST:PORT and https://HOST:PORT"
	scheme, rest, found := strings.Cut(t.host, "://")
	if !found || rest == "" {
		return target{}, fmt.Errorf("%s: %q: %s", t.from, t.host, allowed)
	}
	switch scheme {
	case "unix":
		t.socket = true
		return t, nil
	case "https":
		t.scheme = "https"
	case "tcp", "http":
	default:
		return target{}, fmt.Errorf("%s: %q: %s", t.from, t.host, allowed)
	}
	parsed, err := url.Parse("tcp://" + rest)
	if err != nil || parsed.Hostname() == "" || parsed.Port() == "" {
		return target{}, fmt.Errorf("%s: %q: %s (the usual ports are 2375, and 2376 with TLS)", t.from, t.host, allowed)
	}
	if os.Getenv(client.EnvOverrideCertPath) != "" {
		t.scheme = "https"
	} else if os.Getenv(client.EnvTLSVerify) != "" {
		// The client would connect without TLS.
		return target{}, fmt.Errorf("%s is set but %s is not: set it to the folder of ca.pem, cert.pem and key.pem",
			client.EnvTLSVerify, client.EnvOverrideCertPath)
	}
	return t, nil
}

// transport returns the transport that all clients of an engine share. The
// client library configures it: a dialer for sockets, TLS and proxies. dial, which may be
// nil, dials sockets in its place.
func (t target) transport(dial func(ctx context.Context, path string) (net.Conn, error)) (*http.Transport, error) {
	var options []client.Opt
	if !t.socket {
		options = append(options, client.WithTLSClientConfigFromEnv())
	}
	var transport *http.Transport
	options = append(options, client.WithHost(t.host), func(c *client.Client) error {
		// An option takes it: the finished client wraps it.
		var ok bool
		if transport, ok = c.HTTPClient().Transport.(*http.Transport); !ok {
			return fmt.Errorf("transport of the client is a %T", c.HTTPClient().Transport)
		}
		return nil
	})
	if _, err := client.NewClientWithOpts(options...); err != nil {
		if path := os.Getenv(client.EnvOverrideCertPath); path != "" && !t.socket {
			return nil, fmt.Errorf("%s: %q: %w (the folder must have ca.pem, cert.pem and key.pem)", client.EnvOverrideCertPath, path, err)
		}
		return nil, fmt.Errorf("%s: %q: %w", t.from, t.host, err)
	}
	if t.socket && dial != nil {
		path := strings.TrimPrefix(t.host, socketScheme)
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) }
	}
	transport.MaxIdleConns = parallelInspects
	transport.MaxIdleConnsPerHost = parallelInspects
	transport.IdleConnTimeout = 30 * time.Second
	return transport, nil
}

// connect makes a client and negotiates the version of the API. Each connection has
// its own client, since the version of a client only goes down, and an upgraded engine
// may refuse an old version.
func connect(ctx context.Context, t target, transport *http.Transport) (api, error) {
	guard := &readOnly{next: transport}
	httpClient := &http.Client{Transport: guard, CheckRedirect: client.CheckRedirect}
	// WithHost requires an http.Transport, so the client that is used comes after it.
	c, err := client.NewClientWithOpts(client.WithHost(t.host), client.WithScheme(t.scheme), client.WithHTTPClient(httpClient))
	if err != nil {
		return nil, fmt.Errorf("client for the Docker Engine at %s: %w", t.host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	ping, err := c.Ping(ctx)
	if err != nil {
		// The client replaces "no such file" and "connection refused" by a
		// question; the error of the transport has the errno.
		if cause := guard.lastError(); cause != nil && client.IsErrConnectionFailed(err) {
			err = cause
		}
		return nil, newConnectError(t.host, err)
	}
	c.NegotiateAPIVersionPing(ping)
	return c, nil
}

// readOnly sends GET requests only. It sends the client's ping, a HEAD request, as
// GET, and refuses everything else.
type readOnly struct {
	next http.RoundTripper

	mu   sync.Mutex
	last error
}

// errNotReadOnly is the error for a request that is not a GET.
var errNotReadOnly = errors.New("refused: only GET requests are sent to the engine")

func (r *readOnly) RoundTrip(request *http.Request) (*http.Response, error) {
	switch {
	case request.Method == http.MethodGet:
	case request.Method == http.MethodHead && strings.HasSuffix(request.URL.Path, "/_ping"):
		request = request.Clone(request.Context())
		request.Method = http.MethodGet
	default:
		err := errNotReadOnly
		if request.Body != nil {
			err = errors.Join(err, request.Body.Close())
		}
		return nil, fmt.Errorf("%s %s: %w", request.Method, request.URL.Path, err)
	}
	response, err := r.next.RoundTrip(request)
	r.mu.Lock()
	r.last = err
	r.mu.Unlock()
	return response, err
}

// lastError returns the error of the last request below HTTP, or nil.
func (r *readOnly) lastError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}
