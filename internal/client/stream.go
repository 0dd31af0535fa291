package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// timing is how long things take at most.
type timing struct {
	// silence is after how long without a byte a stream counts as dead: three
	// heartbeats of the server.
	silence time.Duration
	// retryFirst and retryMost bound the time between two tries.
	retryFirst, retryMost time.Duration
	// waitTurn is how long one request of Wait lasts: below what proxies cut.
	waitTurn time.Duration
}

var defaultTiming = timing{
	silence:    45 * time.Second,
	retryFirst: 250 * time.Millisecond,
	retryMost:  15 * time.Second,
	waitTurn:   time.Minute,
}

// maxLine bounds a line of the stream; an event with a hundred processes is
// far below it.
const maxLine = 1 << 20

// Message is one thing that a stream tells; exactly one field is set.
type Message struct {
	Event *model.Event
	// Hello comes after each connect.
	Hello *api.Hello
	// Reset says that what the caller knows may be wrong by now.
	Reset *api.Reset
	// Down says why the connection was lost. It is made again without the
	// caller's doing, and goes on where it was.
	Down error
}

// errEnded is a stream that the server ended in order.
var errEnded = errors.New("the server ended the stream")

// Stream hands each event to handle, in order, until ctx ends, and returns nil
// then. It connects again for as long as it takes, and goes on after the last
// event without a hole or a repeat. It returns the first error of handle, and an
// answer that will not change by trying again: a wrong parameter or token.
// query has the parameters of the API.
func (c *Client) Stream(ctx context.Context, query url.Values, handle func(Message) error) error {
	s := &stream{client: c, query: query, handle: handle}
	wait := c.timing.retryFirst
	for {
		err := s.connect(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case s.refused != nil:
			return s.refused
		case isFinal(err):
			return err
		}
		if s.alive {
			wait = c.timing.retryFirst
		}
		if err := handle(Message{Down: err}); err != nil {
			return err
		}
		// Jitter keeps many clients from coming back at one moment.
		pause := wait/2 + rand.N(wait/2+1)
		if errors.Is(err, errEnded) {
			pause = c.timing.retryFirst
		}
		if !clock.Sleep(ctx, pause) {
			return nil
		}
		wait = min(2*wait, c.timing.retryMost)
	}
}

// isFinal says whether an error stays when the request is sent again.
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
	known    bool  // position is where to go on
	alive    bool  // the last connection told something
	refused  error // of handle
}

// connect reads one connection until it ends; the error says why it did.
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

// read takes the stream apart. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
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
	switch name {
	case api.StreamHello:
		var hello api.Hello
		if err := decode(name, data, &hello); err != nil {
			return err
		}
		// Where to start was told by the query otherwise.
		if !s.known && !s.query.Has("after") && !s.query.Has("since") {
			s.position, s.known = hello.LastID, true
		}
		return s.hand(Message{Hello: &hello})
	case api.StreamReset:
		var reset api.Reset
		if err := decode(name, data, &reset); err != nil {
			return err
		}
		s.position, s.known = max(reset.FirstID, 1)-1, true
		return s.hand(Message{Reset: &reset})
	case api.StreamEnd:
		var end api.End
		if err := decode(name, data, &end); err != nil {
			return err
		}
		s.position, s.known = end.ResumeAfter, true
		return fmt.Errorf("%w: %s", errEnded, end.Reason)
	}
	var event model.Event
	if err := decode(name, data, &event); err != nil {
		return err
	}
	// The position is that of what was handed on, so that an event is neither
	// lost nor repeated when handle fails.
	if err := s.hand(Message{Event: &event}); err != nil {
		return err
	}
	s.position, s.known = event.ID, true
	return nil
}

func (s *stream) hand(m Message) error {
	s.refused = s.handle(m)
	return s.refused
}

func decode(name string, data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s of the stream: %w", name, err)
	}
	return nil
}
