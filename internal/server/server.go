// Package server serves portwatcher's state over HTTP: the API under /api/v1, the stream of
// events, the metrics and the page.
//
// It observes nothing and records nothing: it reads from [Capture] and [History], and no
// request changes anything.
//
// Invariants:
//
//   - DO bound everything that a client can make grow: connections, in all and from one address;
//     requests, streams, waits, patterns; bytes that wait for a slow reader, here and in the
//     kernel. DON'T hold a query, a slot or a compressor while waiting for a client.
//   - DO keep the cost of an event independent of the number of clients: one goroutine compares
//     what they wait for, at a bounded rate. DON'T slow the capture or the journal.
//   - DO answer /metrics, /healthz and /readyz whatever other clients do: they have connections,
//     slots and bytes of their own.
//   - DO read the stream from the journal by id, so that each recorded event comes once and in
//     order, and a reader can resume after any of them.
//   - DO close the connection of an answer that cannot be completed. DON'T end it as if it were
//     whole.
//   - DON'T put a secret into a log, an answer or an address.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/metrics"
	"portwatcher/internal/model"
)

// Capture provides the current state. Its methods are safe for concurrent use.
type Capture interface {
	// View returns the current view within milliseconds. It is immutable and shared.
	View() *model.View
	// Ready returns nil while everything that the settings select is watched, or why it is not.
	Ready() error
}

// Options are the arguments of [New].
type Options struct {
	// Listen is HOST:PORT. An empty host means all addresses.
	Listen string
	// TokenFile holds the bearer token; without one, no token is required.
	TokenFile string
	// TLSCert and TLSKey are PEM files; both or none.
	TLSCert, TLSKey string
	// AllowedHosts are host names that requests without a token may use, beside addresses, names
	// without a dot and this host's own name.
	AllowedHosts []string

	// Namespace is the network namespace of this process; zero where it is not known, or is the
	// host's.
	Namespace model.Namespace

	Capture Capture
	History History
	// Metrics is served at /metrics; nil serves none.
	Metrics *metrics.Metrics
	// Explain is nil where there are no explanations.
	Explain Explain
	// Alerts is nil where there are none.
	Alerts Alerts
	// Page serves "/" and "/assets/"; nil serves none.
	Page    http.Handler
	Logger  logrus.FieldLogger
	Version string
}

// limits bound what clients can make the server do.
type limits struct {
	connections int // at one time, including the reserve
	reserve     int // connections for the reserved paths alone
	perAddress  int // connections from one address, without the reserve
	requests    int // whose answer is being made, at one time
	scrapes     int // whose metrics are being made, at one time
	memory      int // bytes of answers that are being sent
	reserved    int // bytes of answers that are being sent from the reserved paths
	patience    time.Duration
	queries     int // of the journal, at one time
	queryTime   time.Duration
	waits       int // requests with wait=, at one time
	streams     int
	headerTime  time.Duration // for the header of a request
	sendTime    time.Duration // for an answer
	stallTime   time.Duration // for one write to a client
	heartbeat   time.Duration
	lag         uint64 // events that a live stream may be behind
	ring        int    // events that are kept for the streams
	batch       int    // events that are sent to one stream at once
	sendBuffer  int    // bytes that wait in the kernel for one connection
	stopTime    time.Duration
}

var defaultLimits = limits{
	connections: 2048,
	reserve:     64,
	perAddress:  1024,
	requests:    16,
	scrapes:     4,
	memory:      64 << 20,
	reserved:    16 << 20,
	patience:    5 * time.Second,
	queries:     4,
	queryTime:   20 * time.Second,
	waits:       200,
	streams:     1000,
	headerTime:  5 * time.Second,
	sendTime:    30 * time.Second,
	stallTime:   5 * time.Second,
	heartbeat:   15 * time.Second,
	lag:         1 << 16,
	ring:        4096,
	batch:       128,
	sendBuffer:  128 << 10,
	stopTime:    time.Second,
}

const (
	maxHeader   = 16 << 10 // bytes
	maxAddress  = 8 << 10  // bytes of path and query
	idleTimeout = time.Minute
	// maxConcurrent bounds the requests of one connection by HTTP/2.
	maxConcurrent = 32
)

// Server serves HTTP. Its methods are safe for concurrent use; Serve is called once.
type Server struct {
	options  Options
	capture  Capture
	history  History
	log      logrus.FieldLogger
	limits   limits
	token    *reloaded[tokenSum]         // nil: none is required
	pair     *reloaded[*tls.Certificate] // nil: no TLS
	hosts    map[string]bool             // in lower case
	handler  http.Handler
	listener net.Listener

	feed     *feed
	waiters  *waiters
	portList portList
	// memory bounds the answers that are being sent, reservedMemory those of the reserved paths.
	memory, reservedMemory *budget

	requests, scrapes, queries, waits, streams slots
	// cutOff counts the readers of the stream that were too slow.
	cutOff atomic.Uint64

	stopping chan struct{} // closed when streams and waits have to end
	// Each request holds handling for reading, so that Lock waits for all of them. A WaitGroup
	// does not allow requests that begin during Wait.
	handling sync.RWMutex
}

// New checks the options and reads the files that they name; it does not listen. Its errors
// name the setting that is wrong.
func New(o Options) (*Server, error) { return newServer(o, defaultLimits) }

func newServer(o Options, l limits) (*Server, error) {
	s := &Server{
		options: o, capture: o.Capture, history: o.History, log: o.Logger, limits: l,
		hosts: map[string]bool{}, stopping: make(chan struct{}),
		memory: newBudget(l.memory), reservedMemory: newBudget(l.reserved),
		requests: make(slots, l.requests), scrapes: make(slots, l.scrapes), queries: make(slots, l.queries),
		waits: make(slots, l.waits), streams: make(slots, l.streams),
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		return nil, fmt.Errorf("--listen: %q: allowed is HOST:PORT, such as 127.0.0.1:9888", o.Listen)
	}
	if err := s.readToken(); err != nil {
		return nil, err
	}
	if err := s.readCertificate(); err != nil {
		return nil, err
	}
	for _, host := range o.AllowedHosts {
		s.hosts[strings.ToLower(host)] = true
	}
	if name, err := os.Hostname(); err == nil {
		s.hosts[strings.ToLower(name)] = true
	}
	s.feed = newFeed(o.History, s.log, l)
	s.waiters = newWaiters(func() *model.View { return s.capture.View() }, func() error { return s.capture.Ready() })
	s.handler = s.routes()
	return s, nil
}

// Event receives an event, in order, after a view has it. It does not block, and costs the
// same however many clients wait.
func (s *Server) Event(e *model.Event) {
	switch e.Type {
	case model.Closed, model.Bursts: // open nothing
	default:
		s.waiters.wake()
	}
}

// Missed receives the number of events that were dropped instead of being passed to
// [Server.Event]. It does not block.
func (s *Server) Missed(uint64) { s.waiters.wake() }

// Streams returns how many readers of the event stream there are, and how many were
// disconnected because they were too slow.
func (s *Server) Streams() (open int, cutOff uint64) { return len(s.streams), s.cutOff.Load() }

// Listen opens the address. The error names the probable cause and the remedy. Serve calls it
// if nobody has.
func (s *Server) Listen() error {
	listener, err := net.Listen("tcp", s.options.Listen)
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		err = operation.Err // the rest repeats the address
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: %w: is another portwatcher running? --listen names another address", s.options.Listen, err)
	case err != nil:
		return fmt.Errorf("listen on %s: %w; --listen names another address", s.options.Listen, err)
	}
	s.listener = listener
	return nil
}

// Addr returns the address after Listen.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until ctx ends, and returns nil then. Requests under way have a second to end;
// streams end with the id to resume after. When it returns, all its goroutines have ended.
func (s *Server) Serve(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	h := s.httpServer()
	running, stopRunning := context.WithCancel(context.WithoutCancel(ctx))
	var owned sync.WaitGroup
	owned.Go(func() { s.announce(running) })
	owned.Go(func() { s.feed.run(running) })
	owned.Go(func() { s.waiters.run(running) })

	stopped := make(chan struct{})
	owned.Go(func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-running.Done(): // serving failed
		}
		s.stop(h)
	})
	listener := newGate(s.listener, s.limits)
	var err error
	if s.pair != nil {
		err = h.ServeTLS(listener, "", "")
	} else {
		err = h.Serve(listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
		<-stopped
	} else {
		err = fmt.Errorf("serve HTTP on %s: %w", s.listener.Addr(), err)
	}
	stopRunning()
	owned.Wait()
	s.handling.Lock()
	defer s.handling.Unlock()
	return err
}

func (s *Server) httpServer() *http.Server {
	h := &http.Server{
		Handler:           s.handler,
		ConnContext:       withConn,
		ReadHeaderTimeout: s.limits.headerTime,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxConcurrent},
		ErrorLog:          newErrorLog(s.log.WithField("part", "http")),
	}
	if s.pair != nil {
		h.TLSConfig = &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.pair.get(), nil },
		}
	}
	return h
}

// stop ends the requests under way within limits.stopTime.
func (s *Server) stop(h *http.Server) {
	close(s.stopping)
	// The rest of the time is for what Close ends.
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.stopTime*8/10)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		s.log.WithError(err).Debug("Some requests did not end in time; their connections are closed.")
		if err := h.Close(); err != nil {
			s.log.WithError(err).Debug("Connections cannot be closed.")
		}
	}
}
