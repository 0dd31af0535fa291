// Package engine follows the running containers of a Docker Engine by its API.
//
// It only reads: every request is a GET. It does not select containers, open
// namespaces or keep state on disk. One goroutine subscribes to events, again after every
// error; another, which owns all state, handles them, lists the containers after each
// subscription and reconciles.
//
// Invariants of [Engine.Follow]:
//
//   - DO report a container as stopped after a die event, or a list that lacks it.
//     DON'T after a lost connection, a failed list or a failed inspection: with
//     live-restore containers outlive their engine.
//   - DO inspect when something may have changed, and compare. DON'T derive
//     state from the order of events: an event may be older than the last inspection.
//   - DON'T let the reader of events wait for anything: the engine drops events
//     for a slow reader without notice.
//   - DON'T let a request about one container delay another: one that hangs is the
//     trouble of its container alone.
//
// Source: https://docs.docker.com/reference/api/engine/.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/docker/docker/client"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/model"
)

// Bounds on single requests. A busy engine needs seconds.
const (
	pingTimeout    = 10 * time.Second
	infoTimeout    = 10 * time.Second
	listTimeout    = 30 * time.Second
	inspectTimeout = 5 * time.Second
)

// Options configure [New].
type Options struct {
	// Host is the engine's address: "unix:///path", "tcp://host:port",
	// "http://host:port" or "https://host:port". Empty means DOCKER_HOST, and where
	// that is empty too, the default socket.
	Host string
	// Alive reports, without the engine, whether a container's first process exists.
	// With it, a list has only those containers inspected that seem to have changed.
	// Nil inspects all.
	Alive func(*model.Container) bool
	// Replaced returns another path of a socket whose mounted file was removed, so that
	// nobody will ever listen on it; "" where it was not. The error is that of the search.
	// Nil returns "".
	Replaced func(path string) (string, error)
	// Logger receives what neither errors nor changes report. Nil discards it.
	Logger logrus.FieldLogger
}

// Engine is a Docker Engine. Its methods may be called concurrently.
type Engine struct {
	host      string
	log       logrus.FieldLogger
	alive     func(*model.Container) bool
	transport *http.Transport // nil in tests with a fake
	connect   func(ctx context.Context) (api, error)
}

// Info describes an engine and its host.
type Info struct {
	// Name is the host name of the engine's host.
	Name string
	// Version is the engine's own, such as "20.10.24".
	Version string
	// APIVersion is the negotiated one, such as "1.41".
	APIVersion      string
	OperatingSystem string
	KernelVersion   string
}

// New checks the settings and does not connect. TLS follows DOCKER_CERT_PATH and
// DOCKER_TLS_VERIFY as the docker command does, for addresses that are not sockets.
// DOCKER_API_VERSION is ignored: each connection negotiates the version, since an
// engine may be replaced. The error names the setting that is wrong.
func New(o Options) (*Engine, error) {
	target, err := parseHost(o.Host)
	if err != nil {
		return nil, err
	}
	e := &Engine{host: target.host, log: o.Logger, alive: o.Alive}
	if e.log == nil {
		discard := logrus.New()
		discard.SetOutput(io.Discard)
		e.log = discard
	}
	transport, err := target.transport((&dialer{replaced: o.Replaced, log: e.log}).dial)
	if err != nil {
		return nil, err
	}
	e.transport = transport
	e.connect = func(ctx context.Context) (api, error) {
		return connect(ctx, target, transport)
	}
	return e, nil
}

// Close releases idle connections. It does not end calls; their contexts do.
func (e *Engine) Close() error {
	if e.transport != nil {
		e.transport.CloseIdleConnections()
	}
	return nil
}

// Host returns the address in use, as in [Options].
func (e *Engine) Host() string { return e.host }

// Info describes the engine. The error is a [*ConnectError] where the engine cannot be
// reached.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	a, err := e.connect(ctx)
	if err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	got, err := a.Info(ctx)
	switch {
	case client.IsErrConnectionFailed(err):
		return Info{}, newConnectError(e.host, err)
	case err != nil:
		return Info{}, fmt.Errorf("info of the Docker Engine at %s: %w", e.host, err)
	}
	return Info{
		Name: got.Name, Version: got.ServerVersion, APIVersion: a.ClientVersion(),
		OperatingSystem: got.OperatingSystem, KernelVersion: got.KernelVersion,
	}, nil
}

// List returns the running containers, ordered by name. One that dies meanwhile is left
// out. If some cannot be inspected, List returns the others with an error that names
// those. The error is a [*ConnectError] where the engine cannot be reached.
func (e *Engine) List(ctx context.Context) ([]*model.Container, error) {
	a, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	all, err := listAll(ctx, a)
	if err != nil {
		return nil, err
	}
	var containers []*model.Container
	var failed []error
	for _, one := range all {
		switch {
		case one.err != nil:
			failed = append(failed, one.err)
		case one.running():
			containers = append(containers, one.container)
		}
	}
	return containers, errors.Join(failed...)
}
