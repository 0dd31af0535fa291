package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// notOfStreams are the parameters of events that a stream does not have.
var notOfStreams = []string{"until", "before", "limit"}

// retryMilliseconds is after how long a browser connects again.
const retryMilliseconds = 2000

// stream is one reader of the event stream.
type stream struct {
	server  *Server
	filter  *model.Matcher
	since   time.Time
	out     http.ResponseWriter
	control *http.ResponseController
	request *http.Request

	// position is the id up to which all selected events are in the buffer or were sent, and
	// sent the id up to which they were sent.
	position, sent uint64
	// live is set after the reader has caught up once: from then on its lag is bounded.
	live   bool
	buffer bytes.Buffer // frames that go out with the next flush
	items  []item       // reused
}

// errSlow ends a stream that lags too far behind.
var errSlow = errors.New("events come faster than they are read")

// errStopping ends a stream because the server stops.
var errStopping = errors.New("portwatcher stops")

func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request, p *parameters) error {
	filter := p.filter()
	named := func(name string) bool { return s.capture.View().Named(name) }
	one := &stream{server: s, filter: filter.Matcher(named), since: p.time("since"), out: w, request: r, control: http.NewResponseController(w)}
	for _, name := range notOfStreams {
		if p.values.Get(name) != "" {
			p.wrong(name, p.values.Get(name), "no value in a stream")
		}
	}
	start, given := p.id("after")
	if header := r.Header.Get("Last-Event-ID"); header != "" {
		// The header wins: a browser that connects again repeats the address of its first
		// request.
		if start, given = parseID(header); !given {
			p.wrong("Last-Event-ID", header, "ids of events")
		}
	}
	if err := p.problem(); err != nil {
		return err
	}
	if !s.streams.tryEnter() {
		return newProblem(http.StatusServiceUnavailable, fmt.Sprintf("%d event streams are open already", cap(s.streams)))
	}
	defer s.streams.leave()
	// The feed has what comes from here on; earlier events come from the journal.
	leave := s.feed.join()
	defer leave()

	w.Header().Set("Content-Type", api.MediaTypeStream)
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		return nil
	}
	last := s.history.LastID()
	fmt.Fprintf(&one.buffer, "retry: %d\n\n", retryMilliseconds)
	noteFrame(&one.buffer, api.StreamHello, api.Hello{LastID: last, Host: s.capture.View().Status.Host, Version: s.options.Version})
	one.position = last
	if given || !one.since.IsZero() {
		one.position = start
	}
	one.sent = one.position
	one.end(one.run(r.Context(), last))
	return nil // the answer has begun
}

// run sends events until the reader is gone or too slow, or the server stops. last is the last
// id at the start.
func (s *stream) run(ctx context.Context, last uint64) error {
	if s.position > last { // an id of another journal
		if err := s.reset(ctx); err != nil {
			return err
		}
	}
	heartbeat := time.NewTimer(s.server.limits.heartbeat)
	defer heartbeat.Stop()
	for {
		select {
		case <-s.server.stopping:
			return errStopping
		default:
		}
		more, err := s.collect(ctx)
		if err != nil {
			return err
		}
		if s.buffer.Len() > 0 {
			if err := s.send(); err != nil {
				return err
			}
			heartbeat.Reset(s.server.limits.heartbeat)
		}
		if more == nil {
			continue
		}
		select {
		case <-more:
		case <-heartbeat.C:
			s.buffer.WriteString(": heartbeat\n\n")
		case <-s.server.stopping:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// collect puts the next events into the buffer. If there are no others by now, it returns a
// channel that is closed when there are; else nil.
func (s *stream) collect(ctx context.Context) (more <-chan struct{}, err error) {
	limits := &s.server.limits
	items, more, last, known := s.server.feed.next(s.items[:0], s.position, limits.batch)
	defer clear(items) // keep the slice, not the events
	s.items = items
	if s.live && last > s.position && last-s.position > limits.lag {
		return nil, errSlow
	}
	if !known {
		return nil, s.collectHistory(ctx)
	}
	s.live = true
	for i := range items {
		if s.buffer.Len() >= pieceSize {
			return nil, nil
		}
		if e := items[i].event; s.filter.Event(e) && !e.Time.Before(s.since) {
			s.buffer.Write(items[i].frame)
		}
		s.position = items[i].event.ID
	}
	if len(items) == limits.batch {
		return nil, nil
	}
	return more, nil
}

// collectHistory puts events of the journal into the buffer.
func (s *stream) collectHistory(ctx context.Context) error {
	server := s.server
	first, err := server.firstID(ctx)
	if err != nil {
		return err
	}
	if s.position > 0 && s.position+1 < first {
		return s.reset(ctx)
	}
	// The query finds every selected event up to this id.
	last := server.history.LastID()
	q := journal.Query{Filter: s.filter.Filter}
	q.Since, q.AfterID, q.FromStart, q.Limit = s.since, s.position, true, server.limits.batch
	all, err := server.collect(ctx, q)
	if err != nil {
		return err
	}
	for _, event := range all.events {
		if s.buffer.Len() >= pieceSize {
			return nil // the next query has the rest
		}
		s.buffer.Write(eventFrame(s.buffer.AvailableBuffer(), event))
		s.position = event.ID
	}
	s.position = all.last
	if all.count < server.limits.batch {
		s.position = max(s.position, last)
	}
	return nil
}

// reset reports to the reader that events are missing, and continues at the first there is.
func (s *stream) reset(ctx context.Context) error {
	first, err := s.server.firstID(ctx)
	if err != nil {
		return err
	}
	noteFrame(&s.buffer, api.StreamReset, api.Reset{FirstID: first, LastID: s.server.history.LastID()})
	s.position = max(first, 1) - 1
	return nil
}

// smallWrite is how many bytes a stream writes outside the memory budget: so many fit into the
// buffer of net/http.
const smallWrite = 4 << 10

// send writes the buffer, within limits.stallTime.
func (s *stream) send() error {
	defer func() {
		if s.buffer.Reset(); s.buffer.Cap() > 2*smallWrite {
			s.buffer = bytes.Buffer{} // an idle stream holds next to nothing
		}
	}()
	if s.buffer.Len() > smallWrite {
		held, err := s.server.hold(s.request, &body{size: s.buffer.Cap()})
		if err != nil {
			return errSlow
		}
		defer held.release()
		held.writing(true)
	}
	// HTTP/2 ends a stream at its deadline even when nothing is being written. If the connection
	// is closed, the next write fails.
	defer func() { _ = s.control.SetWriteDeadline(time.Time{}) }()
	if err := s.control.SetWriteDeadline(time.Now().Add(s.server.limits.stallTime)); err != nil {
		return fmt.Errorf("bound a write to a stream: %w", err)
	}
	_, err := s.out.Write(s.buffer.Bytes())
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		return fmt.Errorf("write to a stream: %w", err)
	}
	s.sent = s.position
	return nil
}

// end sends the reader the id to resume after, if it can receive it, and counts slow readers.
func (s *stream) end(why error) {
	log := s.server.log.WithField("position", s.sent)
	reason := why.Error()
	switch {
	case errors.Is(why, errStopping):
	case errors.Is(why, errSlow):
		s.server.cutOff.Add(1)
		log.Debug("A reader of the event stream is disconnected: it is too slow.")
	case isTimeout(why), errors.Is(why, net.ErrClosed):
		s.server.cutOff.Add(1)
		log.Debug("A reader of the event stream is disconnected: it does not read.")
		return
	case errors.Is(why, context.Canceled):
		return // it is gone
	default:
		log.WithError(why).Debug("A reader of the event stream is gone, or the journal cannot be read.")
		reason = "the events cannot be read at present"
	}
	s.buffer.Reset() // the reader gets these events when it resumes
	noteFrame(&s.buffer, api.StreamEnd, api.End{ResumeAfter: s.sent, Reason: reason})
	_ = s.send() // the reader may be gone
}

// isTimeout reports whether a write took too long; a query that did is none.
func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return !errors.Is(err, context.DeadlineExceeded) && errors.As(err, &timeout) && timeout.Timeout()
}
