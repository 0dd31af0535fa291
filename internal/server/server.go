// Package server shows what portwatcher knows over HTTP: the API under /api/v1,
// the stream of events, the metrics and the page.
//
// It does not watch anything and keeps no record: it reads from [Capture] and
// [History], and nothing that a client does changes anything.
//
// Invariants:
//
//   - DO bound everything that a client can make grow: connections, in all and from
//     one address; requests, streams, waits, patterns; bytes that wait for a slow
//     reader, here and in the kernel. DON'T hold a query, a slot for making answers
//     or a compressor while a client is waited for.
//   - DO keep what an event costs the same however many clients there are: what
//     they wait for is compared beside it, at a bounded rate. DON'T let the capture
//     or the journal feel that somebody reads.
//   - DO answer /metrics, /healthz and /readyz whatever other clients do: they have
//     connections, slots and bytes that others cannot take.
//   - DO read the stream from the journal by id: what is recorded comes once and
//     in order. DON'T hand a reader anything that it could not resume from.
//   - DO break an answer off that cannot be completed. DON'T let it pass for whole.
//   - DON'T put a secret into a log, an answer or an address.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/metrics"
	"portwatcher/internal/model"
)

// Capture is what is known at this moment. Its methods are safe for concurrent
// use.
type Capture interface {
	// View returns what is known at this moment. It is immutable and shared, and
	// returns within milliseconds.
	View() *model.View
	// Ready returns nil while everything that was asked for is watched; the error
	// says what is in the way.
	Ready() error
}

// Options are the settings and surroundings of a [Server].
type Options struct {
	// Listen is HOST:PORT. An empty host means all addresses.
	Listen string
	// TokenFile holds the bearer token; empty: none is asked for.
	TokenFile string
	// TLSCert and TLSKey are PEM files; both or none.
	TLSCert, TLSKey string
	// AllowedHosts are names by which clients may ask without a token, beside
	// addresses, names without a dot and this host's own.
	AllowedHosts []string

	// Namespace is the network namespace of this process; zero where it is not
	// known, or is known to be the host's.
	Namespace model.Namespace

	Capture Capture
	History History
	// Metrics is served at /metrics.
	Metrics *metrics.Metrics
	// Page serves "/" and "/assets/".
	Page    http.Handler
	Logger  logrus.FieldLogger
	Version string
}

// limits bound what clients can make the server do.
type limits struct {
	connections int // at one time, the reserve included
	reserve     int // connections for the reserved paths alone
	perAddress  int // connections from one address, without the reserve
	requests    int // whose answer is made, at one time
	scrapes     int // whose metrics are made, at one time
	memory      int // bytes of answers that are sent
	reserved    int // bytes of answers that are sent from the reserved paths
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

// Server serves HTTP. Its methods are safe for concurrent use; Serve is called
// once.
type Server struct {
	Options
	log      logrus.FieldLogger
	limits   limits
	token    *reloaded[tokenSum]     // nil: none is asked for
	pair     *reloaded[*certificate] // nil: no TLS
	hosts    map[string]bool
	handler  http.Handler
	listener net.Listener

	feed     *feed
	waiters  *waiters
	portList portList
	// memory bounds what is held for answers, reservedMemory for those of the
	// reserved paths.
	memory, reservedMemory *budget

	requests slots
	scrapes  slots
	queries  slots
	waits    slots
	streams  slots
	cutOff   counter

	stopping chan struct{} // closed when streams and waits have to end
	// handling is held for reading by each request: who takes it for writing has
	// waited for all. A WaitGroup must not be added to while it is waited for.
	handling sync.RWMutex
}

// New checks the options and reads the files that they name; it does not
// listen. Its errors name the setting that is wrong.
func New(o Options) (*Server, error) { return newServer(o, defaultLimits) }

func newServer(o Options, l limits) (*Server, error) {
	s := &Server{
		Options: o, log: o.Logger, limits: l, hosts: map[string]bool{}, stopping: make(chan struct{}),
		memory: newBudget(l.memory), reservedMemory: newBudget(l.reserved),
		requests: newSlots(l.requests), scrapes: newSlots(l.scrapes), queries: newSlots(l.queries), waits: newSlots(l.waits), streams: newSlots(l.streams),
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
	s.waiters = newWaiters(func() *model.View { return s.Capture.View() })
	s.handler = s.routes()
	if o.Metrics != nil {
		o.Metrics.Watch(state{s})
	}
	return s, nil
}

// Event takes an event, in order, after a view has it. It does not block, and
// costs the same however many clients wait.
func (s *Server) Event(e *model.Event) {
	switch e.Type {
	case model.Closed, model.Bursts: // nothing that opened stays open by it
	default:
		s.waiters.wake()
	}
}

// Missed says that n events were dropped instead of being passed to [Server.Event].
// It does not block.
func (s *Server) Missed(uint64) { s.waiters.wake() }

// Listen takes the address. The error says who may have it, and what to do.
// Serve calls it where it was not called before.
func (s *Server) Listen() error {
	listener, err := net.Listen("tcp", s.Options.Listen)
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		err = operation.Err // the rest repeats the address
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: %w: is another portwatcher running? --listen names another address", s.Options.Listen, err)
	case err != nil:
		return fmt.Errorf("listen on %s: %w; --listen names another address", s.Options.Listen, err)
	}
	s.listener = listener
	return nil
}

// Addr is the address that is listened on, once it is.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until ctx ends, and returns nil then. Requests under way have a
// second to end; streams are told where to resume. All that it started has
// ended when it returns.
func (s *Server) Serve(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	h := s.httpServer()

	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	var owned sync.WaitGroup
	owned.Go(func() { s.announce(following) })
	owned.Go(func() { s.feed.run(following) })
	owned.Go(func() { s.waiters.run(following) })

	stopped := make(chan struct{})
	owned.Go(func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-following.Done(): // serving failed
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
	if !errors.Is(err, http.ErrServerClosed) {
		err = fmt.Errorf("serve HTTP on %s: %w", s.listener.Addr(), err)
	} else {
		err = nil
		<-stopped
	}
	stopFollowing()
	owned.Wait()
	s.handling.Lock()
	defer s.handling.Unlock()
	return err
}

func (s *Server) httpServer() *http.Server {
	logging := s.log.WithField("part", "http")
	h := &http.Server{
		Handler:           s.handler,
		ConnContext:       withConn,
		ReadHeaderTimeout: s.limits.headerTime,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxConcurrent},
		ErrorLog:          newErrorLog(logging),
	}
	if s.pair != nil {
		h.TLSConfig = s.tlsConfig()
	}
	return h
}

// stop ends what is under way within the time for it.
func (s *Server) stop(h *http.Server) {
	close(s.stopping)
	// Some of the time is left for what Close breaks off.
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.stopTime*8/10)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		s.log.WithError(err).Debug("Requests that did not end in time are broken off.")
		if err := h.Close(); err != nil {
			s.log.WithError(err).Debug("Closing connections.")
		}
	}
}
