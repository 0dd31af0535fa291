package server

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"portwatcher/internal/server/api"
)

func TestOnlyReading(t *testing.T) {
	s := start(t, nil)
	for _, path := range []string{"/", "/api/v1/ports", "/api/v1/events", "/metrics", "/healthz", "/nothing"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			response, body := s.request(t, method, path, nil)
			asProblem(t, http.StatusMethodNotAllowed, response, body)
			if response.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: Allow %q", method, path, response.Header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{"/api/v1/ports", "/api/v1/status", "/api/v1/containers", "/api/v1/events", "/metrics", "/healthz"} {
		response, body := s.request(t, http.MethodHead, path, nil)
		if response.StatusCode != http.StatusOK || body != "" || response.Header.Get("Content-Type") == "" {
			t.Errorf("HEAD %s: %s %q", path, response.Status, body)
		}
	}
	response, body := s.request(t, http.MethodGet, "/api/v1/ports", strings.NewReader("x"))
	asProblem(t, http.StatusRequestEntityTooLarge, response, body)
	response, body = s.request(t, http.MethodGet, "/api/v1/ports", io.MultiReader(strings.NewReader("x"))) // chunked
	asProblem(t, http.StatusRequestEntityTooLarge, response, body)
	s.problem(t, http.StatusRequestURITooLong, "/api/v1/ports?container="+strings.Repeat("x", maxAddress))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/v1/ports", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Long", strings.Repeat("x", 2*maxHeader))
	// The connection is closed with the rest unread, which may overtake the answer.
	if response, err := s.client.Do(request); err == nil {
		response.Body.Close()
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a long header: %s", response.Status)
		}
	}
	for _, path := range []string{"/nothing", "/api", "/api/v2/ports", "/api/v1/ports/", "/assets/", "/api/v1/..%2f", "/\xff"} {
		s.problem(t, http.StatusNotFound, path)
	}
}

func TestHeaders(t *testing.T) {
	s := start(t, func(o *Options, _ *limits) {
		o.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "no-cache") })
	})
	for _, path := range []string{"/", "/api/v1/ports", "/metrics", "/healthz", "/nothing", "/api/v1/ports?x=1"} {
		response, _ := s.get(t, path)
		for name := range headers {
			if response.Header.Get(name) == "" {
				t.Errorf("%s has no %s", path, name)
			}
		}
		if path != "/" && response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %s", path, response.Header.Get("Cache-Control"))
		}
		if policy := response.Header.Get("Content-Security-Policy"); strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'") {
			t.Error(policy)
		}
	}
}

func TestAPanicIsOneAnswer(t *testing.T) {
	s := start(t, func(o *Options, _ *limits) {
		o.Page = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") })
	})
	if p := s.problem(t, http.StatusInternalServerError, "/"); strings.Contains(p.Detail, "oops") {
		t.Errorf("%+v", p)
	}
	decode[api.Ports](t, s, "/api/v1/ports")
	if logged(s, "panic: oops") != 1 {
		t.Error("it is not logged")
	}
}
