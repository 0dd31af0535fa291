package server

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/http"
	"strings"

	"portwatcher/internal/server/api"
)

// handler answers a request, or returns the error that becomes the answer.
type handler func(http.ResponseWriter, *http.Request) error

// route is one path of the API.
type route struct {
	path       string
	parameters []string // that the query may have
	handle     func(http.ResponseWriter, *http.Request, *parameters) error
}

// The parameters that routes share.
var (
	selecting    = []string{"container", "project", "protocol", "port", "exposure", "outside", "drift"}
	eventFilters = append([]string{"type", "transient"}, selecting...)
)

// PathOpenAPI is the path of the description of the API.
const PathOpenAPI = "/api/v1/openapi.yaml"

// openAPI describes the API.
//
//go:embed openapi.yaml
var openAPI []byte

func (s *Server) apiRoutes() []route {
	return []route{
		{api.PathStatus, nil, s.getStatus},
		{api.PathContainers, []string{"container", "name", "project"}, s.getContainers},
		{api.PathPorts, append([]string{"at", "wait", "count"}, selecting...), s.getPorts},
		{api.PathEvents, append([]string{"since", "until", "after", "before", "limit"}, eventFilters...), s.getEvents},
		{api.PathDrift, append([]string{"since", "until", "limit"}, selecting...), s.getDrift},
		{api.PathExplain, []string{"target", "from"}, s.getExplain},
		{api.PathAlerts, []string{"limit", "receiver", "state"}, s.getAlerts},
		{PathOpenAPI, nil, s.getOpenAPI},
	}
}

func (s *Server) getOpenAPI(w http.ResponseWriter, r *http.Request, _ *parameters) error {
	return s.answer(w, r, s.requests, func() (*whole, error) {
		return asWhole(r, "application/yaml", func(into *bytes.Buffer) error {
			into.Write(openAPI)
			return nil
		})
	})
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, route := range s.apiRoutes() {
		mux.Handle(route.path, s.private(func(w http.ResponseWriter, r *http.Request) error {
			p, err := parseParameters(r, route.parameters)
			if err != nil {
				return err
			}
			return route.handle(w, r, p)
		}))
	}
	mux.Handle("/api/", s.private(nothingHere))
	if s.options.Metrics != nil {
		mux.Handle("/metrics", s.public(func(w http.ResponseWriter, r *http.Request) error {
			if err := s.authorized(r); err != nil {
				return err
			}
			return s.getMetrics(w, r)
		}))
	}
	mux.Handle("/healthz", s.public(s.getHealth))
	mux.Handle("/readyz", s.public(s.getReady))
	if s.options.Page != nil {
		page := s.public(func(w http.ResponseWriter, r *http.Request) error {
			if err := s.hostAllowed(r); err != nil {
				return err
			}
			s.options.Page.ServeHTTP(w, r)
			return nil
		})
		mux.Handle("/{$}", page)
		mux.Handle("/assets/", page)
	}
	mux.Handle("/", s.public(nothingHere))
	return s.guard(mux)
}

func nothingHere(_ http.ResponseWriter, r *http.Request) error {
	return newProblem(http.StatusNotFound, fmt.Sprintf("there is nothing at %q; the API is described at %s", strings.ToValidUTF8(r.URL.Path, "\uFFFD"), PathOpenAPI))
}

// public serves every request.
func (s *Server) public(next handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := next(w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

// private serves requests with an allowed host name and, if one is required, the token.
func (s *Server) private(next handler) http.Handler {
	return s.public(func(w http.ResponseWriter, r *http.Request) error {
		if err := s.hostAllowed(r); err != nil {
			return err
		}
		if err := s.authorized(r); err != nil {
			return err
		}
		return next(w, r)
	})
}

// reply sends what find returns, which may wait for the journal.
func (s *Server) reply(w http.ResponseWriter, r *http.Request, find func() (any, error)) error {
	value, err := find()
	if err != nil {
		return err
	}
	return s.answer(w, r, s.requests, func() (*whole, error) { return asJSON(r, value) })
}
