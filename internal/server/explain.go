package server

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// explainTime bounds one explanation: a port that does not answer takes seconds.
const explainTime = 30 * time.Second

// Explain answers why a port cannot be reached: the value is sent as JSON. The target and from
// are in the form of `portwatcher explain`; an error of these is an [*InputError]. The error is
// [ErrTooMany] where there were too many questions.
type Explain func(ctx context.Context, target, from string) (any, error)

// ErrTooMany reports that there were too many questions.
var ErrTooMany = errors.New("too many questions")

// InputError is the error of a parameter, whose text has what is allowed.
type InputError struct {
	Parameter, Value string
	Err              error
}

// Error implements error.
func (e *InputError) Error() string { return e.Parameter + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

func (s *Server) getExplain(w http.ResponseWriter, r *http.Request, p *parameters) error {
	one := func(name string) string {
		value, _ := single(p, name, "one value", func(text string) (string, bool) { return text, true })
		return value
	}
	target, from := one("target"), one("from")
	switch err := p.problem(); {
	case err != nil:
		return err
	case s.options.Explain == nil:
		return newProblem(http.StatusForbidden, "explanations are off (--explain)")
	}
	return s.reply(w, r, func() (any, error) {
		ctx, cancel := context.WithTimeout(r.Context(), explainTime)
		defer cancel()
		answer, err := s.options.Explain(ctx, target, from)
		if wrong, ok := errors.AsType[*InputError](err); ok {
			return nil, wrongParameter(wrong.Parameter, wrong.Value, wrong.Err.Error())
		}
		if errors.Is(err, ErrTooMany) {
			return nil, newProblem(http.StatusTooManyRequests, err.Error())
		}
		return answer, err
	})
}
