package server

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/sirupsen/logrus"
)

// headers go out with every answer. The page has no inline script and style,
// and loads from here alone.
// Source: https://owasp.org/www-project-secure-headers/.
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

// guard is around every handler: it sets the headers, and turns away what no
// handler has to see.
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
		// A client that reads slowly is let go of. A stream sets its own deadlines.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.limits.sendTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return // the connection is gone
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

// refuse returns what is wrong with any request of this form.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		return newProblem(http.StatusMethodNotAllowed, fmt.Sprintf("%s is not allowed: nothing can be changed here; allowed are GET and HEAD", clip(r.Method)))
	case len(r.RequestURI) > maxAddress:
		return newProblem(http.StatusRequestURITooLong, fmt.Sprintf("the address has %d bytes: allowed are %d", len(r.RequestURI), maxAddress))
	case r.ContentLength != 0:
		// net/http reads a little of it, so that the answer arrives; not for long. A
		// connection that is gone is noticed then.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.limits.headerTime))
		return newProblem(http.StatusRequestEntityTooLarge, "the request has a body: none is allowed")
	}
	return nil
}

// clip bounds what is repeated to the client.
func clip(text string) string { return text[:min(len(text), 32)] }

// recovered keeps a mistake in one handler from the others, and from sight.
func (s *Server) recovered(w http.ResponseWriter, r *http.Request) {
	what := recover()
	if what == nil {
		return
	}
	if err, ok := what.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(what) // net/http knows what to do
	}
	s.log.WithFields(logrus.Fields{"path": r.URL.Path, "stack": string(debug.Stack())}).Errorf("A request made its handler panic: %v", what)
	if w.Header().Get("Content-Type") != "" {
		panic(http.ErrAbortHandler) // an answer has begun: it can only be broken off
	}
	writeProblem(w, r, newProblem(http.StatusInternalServerError, "an error in portwatcher: its log has the details"))
}
