package server

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/sirupsen/logrus"
)

// headers go out with every answer. The page has no inline script and style, and loads from
// here alone. Source: https://owasp.org/www-project-secure-headers/.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
		"img-src 'self' data:; font-src 'self'; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Embedder-Policy": "require-corp",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
	"Cache-Control":                "no-store",
}

// guard wraps every handler: it sets the headers, and refuses what no handler serves.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handling.RLock()
		defer s.handling.RUnlock()
		defer s.recovered(w, r)
		c := connOf(r)
		if c != nil {
			c.enter()
			defer c.leave()
		}
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		// A stream sets deadlines of its own.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.limits.sendTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return // the connection is closed
		}
		err := s.refuse(w, r)
		if err == nil && c != nil && c.reserved && !reservedPath(r.URL.Path) {
			w.Header().Set("Connection", "close")
			err = newProblem(http.StatusServiceUnavailable, "too many connections are open, in all or from this address")
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refuse returns an error for a request that no path serves.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		return newProblem(http.StatusMethodNotAllowed,
			fmt.Sprintf("%s is not allowed: nothing can be changed here; allowed are GET and HEAD", r.Method[:min(len(r.Method), 32)]))
	case len(r.RequestURI) > maxAddress:
		return newProblem(http.StatusRequestURITooLong, fmt.Sprintf("the address has %d bytes: allowed are %d", len(r.RequestURI), maxAddress))
	case r.ContentLength != 0:
		// net/http reads a little of the body, so that the answer arrives. If the connection is
		// closed, writing fails.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.limits.headerTime))
		return newProblem(http.StatusRequestEntityTooLarge, "the request has a body: none is allowed")
	}
	return nil
}

// recovered answers a request whose handler panics with an error that reveals nothing.
func (s *Server) recovered(w http.ResponseWriter, r *http.Request) {
	what := recover()
	if what == nil {
		return
	}
	if err, ok := what.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(what) // net/http closes the connection
	}
	s.log.WithFields(logrus.Fields{"path": r.URL.Path, "stack": string(debug.Stack())}).Errorf("A request made its handler panic: %v", what)
	if w.Header().Get("Content-Type") != "" {
		panic(http.ErrAbortHandler) // the answer has begun
	}
	writeProblem(w, r, newProblem(http.StatusInternalServerError, "an error in portwatcher: its log has the details"))
}
