package server

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/http"
	"strings"

	"portwatcher/internal/server/api"
)

// route is one address of the API.
type route struct {
	path string
	// parameters are those of the query that it knows.
	parameters []string
	handle     func(http.ResponseWriter, *http.Request, *parameters) error
}

// The parameters that routes share.
var (
	selecting    = []string{"container", "project", "protocol", "port", "exposure"}
	eventFilters = append([]string{"type", "transient"}, selecting...)
)

// PathOpenAPI is where the description of the API is.
const PathOpenAPI = "/api/v1/openapi.yaml"

// openAPI describes the API.
//
//go:embed openapi.yaml
var openAPI []byte

func (s *Server) apiRoutes() []route {
	return []route{
		{api.PathStatus, nil, s.getStatus},
		{api.PathContainers, []string{"container", "name", "project"}, s.getContainers},
		{api.PathPorts, append([]string{"at", "wait"}, selecting...), s.getPorts},
		{api.PathEvents, append([]string{"since", "until", "after", "before", "limit"}, eventFilters...), s.getEvents},
		{PathOpenAPI, nil, func(w http.ResponseWriter, r *http.Request, _ *parameters) error {
			return s.answer(w, r, s.requests, func() (*whole, error) {
				return asWhole(r, "application/yaml", func(into *bytes.Buffer) error {
					into.Write(openAPI)
					return nil
				})
			})
		}},
	}
}

// routes puts everything together.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, route := range s.apiRoutes() {
		mux.Handle(route.path, s.private(s.answering(route)))
	}
	mux.Handle("/api/", s.private(http.HandlerFunc(s.nothingHere)))
	if s.Metrics != nil {
		mux.Handle("/metrics", s.private(http.HandlerFunc(s.getMetrics)))
	}
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		s.finish(w, r, s.answer(w, r, nil, func() (*whole, error) { return asJSON(r, map[string]string{"status": "ok"}) }))
	})
	mux.HandleFunc("/readyz", s.getReady)
	if s.Page != nil {
		page := s.known(s.Page)
		mux.Handle("/{$}", page)
		mux.Handle("/assets/", page)
	}
	mux.HandleFunc("/", s.nothingHere)
	return s.guard(mux)
}

func (s *Server) nothingHere(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, newProblem(http.StatusNotFound, fmt.Sprintf("there is nothing at %q; the API is described at %s", strings.ToValidUTF8(r.URL.Path, "\uFFFD"), PathOpenAPI)))
}

// known lets requests pass that come by a name that is allowed.
func (s *Server) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.hostAllowed(r); err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// private lets requests pass that may read what is here.
func (s *Server) private(next http.Handler) http.Handler {
	return s.known(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.authorized(r); err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// answering makes a handler of a route.
func (s *Server) answering(to route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := parseParameters(r, to.parameters)
		if err == nil {
			err = to.handle(w, r, p)
		}
		s.finish(w, r, err)
	})
}

// finish answers with the error, if there is one.
func (s *Server) finish(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		s.fail(w, r, err)
	}
}

// reply sends what find returns, which may wait for the journal.
func (s *Server) reply(w http.ResponseWriter, r *http.Request, find func() (any, error)) error {
	value, err := find()
	if err != nil {
		return err
	}
	return s.answer(w, r, s.requests, func() (*whole, error) { return asJSON(r, value) })
}
