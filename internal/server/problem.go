package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/output"
	"portwatcher/internal/server/api"
)

// newProblem returns an error that becomes the answer.
func newProblem(status int, detail string) *api.Problem {
	return &api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// badParameter returns the error of a query parameter that is none of the allowed values.
func badParameter(name, value, allowed string) *api.Problem {
	return wrongParameter(name, value, "allowed are "+allowed)
}

// wrongParameter returns the error of a query parameter, with its reason.
func wrongParameter(name, value, reason string) *api.Problem {
	const most = 200 // bytes of the value in the answer
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	value = strings.ToValidUTF8(value, "\uFFFD")
	p := newProblem(http.StatusBadRequest, fmt.Sprintf("%s: %q: %s", name, value, reason))
	p.Parameter, p.Value = name, value
	return p
}

// tryLater is the value of Retry-After, in seconds.
const tryLater = 5

// fail answers with an error. It logs an error that the client has not caused.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *api.Problem
	switch {
	case errors.As(err, &p):
	case r.Context().Err() != nil:
		return // the client has left
	case errors.Is(err, context.DeadlineExceeded):
		p = newProblem(http.StatusServiceUnavailable, "reading the journal took too long: request less")
	default:
		s.log.WithError(err).WithField("path", r.URL.Path).Error("A request could not be answered.")
		p = newProblem(http.StatusInternalServerError, err.Error())
	}
	writeProblem(w, r, p)
}

func writeProblem(w http.ResponseWriter, r *http.Request, p *api.Problem) {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	body = output.EscapeMarks(body)
	challenge(w, r, p)
	header := w.Header()
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		header.Set("Retry-After", strconv.Itoa(tryLater))
	}
	header.Set("Content-Type", api.MediaTypeProblem)
	header.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // the client may have left
}

// newErrorLog logs what net/http reports at the level debug: broken handshakes and connections,
// which clients cause.
func newErrorLog(to logrus.FieldLogger) *log.Logger { return log.New(debugWriter{to}, "", 0) }

type debugWriter struct{ log logrus.FieldLogger }

func (w debugWriter) Write(line []byte) (int, error) {
	w.log.Debug(strings.TrimSpace(string(line)))
	return len(line), nil
}
