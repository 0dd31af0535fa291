package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// api is what is used of the Engine API, under the names of
// [github.com/docker/docker/client.Client]. All of it are GET requests.
type api interface {
	ClientVersion() string
	Info(ctx context.Context) (system.Info, error)
	ContainerList(ctx context.Context, options container.ListOptions) ([]container.Summary, error)
	ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error)
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
		// The client would go on without TLS, against the user's wish.
		return target{}, fmt.Errorf("%s is set but %s is not: set it to the folder of ca.pem, cert.pem and key.pem",
			client.EnvTLSVerify, client.EnvOverrideCertPath)
	}
	return t, nil
}

// transport makes the transport that all clients of an engine share. The
// client library configures it: a dialer for sockets, TLS and proxies.
func (t target) transport() (*http.Transport, error) {
	var options []client.Opt
	if !t.socket {
		options = append(options, client.WithTLSClientConfigFromEnv())
	}
	var transport *http.Transport
	options = append(options, client.WithHost(t.host), func(c *client.Client) error {
		// Taken by an option: once the client is built, it is wrapped.
		var ok bool
		if transport, ok = c.HTTPClient().Transport.(*http.Transport); !ok {
			return fmt.Errorf("transport of the client is a %T", c.HTTPClient().Transport)
		}
		return nil
	})
	if _, err := client.NewClientWithOpts(options...); err != nil {
		if path := os.Getenv(client.EnvOverrideCertPath); path != "" && !t.socket {
			return nil, fmt.Errorf("%s: %q: %w (wanted are ca.pem, cert.pem and key.pem)", client.EnvOverrideCertPath, path, err)
		}
		return nil, fmt.Errorf("%s: %q: %w", t.from, t.host, err)
	}
	transport.MaxIdleConns = parallelInspects
	transport.MaxIdleConnsPerHost = parallelInspects
	transport.IdleConnTimeout = 30 * time.Second
	return transport, nil
}

// connect makes a client and agrees on the version of the API with the engine.
// A client is made for each connection since its version only ever goes down,
// and an upgraded engine may refuse the old one.
func connect(ctx context.Context, t target, transport *http.Transport) (api, error) {
	reading := &readOnly{next: transport}
	httpClient := &http.Client{Transport: reading, CheckRedirect: client.CheckRedirect}
	// WithHost insists on an http.Transport, so the real one comes after it.
	c, err := client.NewClientWithOpts(client.WithHost(t.host), client.WithScheme(t.scheme), client.WithHTTPClient(httpClient))
	if err != nil {
		return nil, fmt.Errorf("client for the Docker Engine at %s: %w", t.host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	ping, err := c.Ping(ctx)
	if err != nil {
		// The client replaces "no such file" and "connection refused" by a
		// question; the transport's own error says what to do.
		if cause := reading.lastError(); cause != nil && client.IsErrConnectionFailed(err) {
			err = cause
		}
		return nil, newConnectError(t.host, err)
	}
	c.NegotiateAPIVersionPing(ping)
	return c, nil
}

// readOnly lets nothing but GET requests pass. The client's ping is a HEAD
// request, which is sent as GET; everything else is refused.
type readOnly struct {
	next http.RoundTripper

	mu   sync.Mutex
	last error
}

// errNotReadOnly says that a request would not have been a GET.
var errNotReadOnly = errors.New("refused: only GET requests are sent to the engine")

// RoundTrip implements [http.RoundTripper].
func (r *readOnly) RoundTrip(request *http.Request) (*http.Response, error) {
	switch {
	case request.Method == http.MethodGet:
	case request.Method == http.MethodHead && strings.HasSuffix(request.URL.Path, "/_ping"):
		request = request.Clone(request.Context())
		request.Method = http.MethodGet
	default:
		if request.Body != nil {
			if err := request.Body.Close(); err != nil {
				return nil, fmt.Errorf("%s %s: %w (closing its body: %w)", request.Method, request.URL.Path, errNotReadOnly, err)
			}
		}
		return nil, fmt.Errorf("%s %s: %w", request.Method, request.URL.Path, errNotReadOnly)
	}
	response, err := r.next.RoundTrip(request)
	r.mu.Lock()
	r.last = err
	r.mu.Unlock()
	return response, err
}

// lastError returns what the last request failed with below HTTP, or nil.
func (r *readOnly) lastError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}
