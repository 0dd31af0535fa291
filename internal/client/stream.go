package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// timing bounds how long things take.
type timing struct {
	// silence is after how long without a byte a stream counts as dead: three heartbeats of the
	// server.
	silence time.Duration
	// retryFirst and retryMost bound the time between two tries.
	retryFirst, retryMost time.Duration
	// waitTurn is how long one request of Wait lasts: less than the time after which proxies
	// close a connection.
	waitTurn time.Duration
}

var defaultTiming = timing{
	silence:    45 * time.Second,
	retryFirst: 250 * time.Millisecond,
	retryMost:  15 * time.Second,
	waitTurn:   time.Minute,
}

// backOff returns the pauses between tries. Their jitter keeps many clients from returning at
// one moment.
func (t *timing) backOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = t.retryFirst, t.retryMost, 2
	return b
}

// maxLine bounds a line of the stream, in bytes. An event with a hundred processes is far
// shorter.
const maxLine = 1 << 20

// Message is one message of a stream; exactly one field is set.
type Message struct {
	Event *model.Event
	// Hello comes after each connect.
	Hello *api.Hello
	// Reset means that the state which the caller has built from events may be wrong.
	Reset *api.Reset
	// Down is why the connection was lost. Stream connects again and resumes.
	Down error
}

// errEnded means that the server ended the stream in order.
var errEnded = errors.New("the server ended the stream")

// Stream calls handle for each message, in order, until ctx ends, and returns nil then. It
// connects again for as long as it takes, and resumes after the last event without a hole or a
// repeat. It returns the first error of handle, and an answer that trying again does not
// change: a wrong parameter or token. query has the parameters of the API.
func (c *Client) Stream(ctx context.Context, query url.Values, handle func(Message) error) error {
	s := &stream{client: c, query: query, handle: handle}
	pauses := c.timing.backOff()
	for {
		err := s.connect(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case s.failed != nil:
			return s.failed
		case isFinal(err):
			return err
		}
		if s.alive {
			pauses.Reset()
		}
		if err := handle(Message{Down: err}); err != nil {
			return err
		}
		if !clock.Sleep(ctx, pauses.NextBackOff()) {
			return nil
		}
	}
}

// isFinal reports whether another try ends with the same error.
func isFinal(err error) bool {
	var problem *api.Problem
	return errors.As(err, &problem) && problem.Status >= 400 && problem.Status < 500 &&
		problem.Status != http.StatusRequestTimeout && problem.Status != http.StatusTooManyRequests
}

// stream is one call of Stream.
type stream struct {
	client *Client
	query  url.Values
	handle func(Message) error

	position uint64
	known    bool  // position is where to resume
	alive    bool  // the last connection was answered
	failed   error // of handle
}

// connect reads one connection until it ends, and returns why.
func (s *stream) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := s.client.timing.silence
	watchdog := time.AfterFunc(silence, func() { cancel(fmt.Errorf("nothing came for %s", silence)) })
	defer watchdog.Stop()

	header := http.Header{"Accept": {api.MediaTypeStream}}
	if s.known {
		header.Set("Last-Event-ID", strconv.FormatUint(s.position, 10))
	}
	s.alive = false
	response, err := s.client.do(ctx, api.PathEvents, s.query, header)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	s.alive = true
	err = s.read(response.Body, func() { watchdog.Reset(silence) })
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return s.client.failed(api.PathEvents, err)
}

// read parses the stream; it calls came for each line.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.
func (s *stream) read(body io.Reader, came func()) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	var name string
	var data []byte
	for lines.Scan() {
		came()
		line := lines.Bytes()
		if len(line) == 0 {
			if err := s.dispatch(name, data); err != nil {
				return err
			}
			name, data = "", data[:0]
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			name = string(value)
		case "data":
			if len(data) > 0 {
				data = append(data, '\n')
			}
			data = append(data, value...)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	return errors.New("the stream broke off")
}

func (s *stream) dispatch(name string, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var m Message
	var end api.End
	var into any
	switch name {
	case api.StreamHello:
		m.Hello = new(api.Hello)
		into = m.Hello
	case api.StreamReset:
		m.Reset = new(api.Reset)
		into = m.Reset
	case api.StreamEnd:
		into = &end
	default:
		m.Event = new(model.Event)
		into = m.Event
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s of the stream: %w", name, err)
	}
	switch {
	case m.Hello != nil:
		// With these parameters the query is where to begin.
		if !s.known && !s.query.Has("after") && !s.query.Has("since") {
			s.resumeAfter(m.Hello.LastID)
		}
	case m.Reset != nil:
		s.resumeAfter(max(m.Reset.FirstID, 1) - 1)
	case m.Event == nil:
		s.resumeAfter(end.ResumeAfter)
		return fmt.Errorf("%w: %s", errEnded, end.Reason)
	}
	if s.failed = s.handle(m); s.failed == nil && m.Event != nil {
		s.resumeAfter(m.Event.ID) // only after handle has it
	}
	return s.failed
}

func (s *stream) resumeAfter(id uint64) { s.position, s.known = id, true }
