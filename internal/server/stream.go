package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// streamParameters are those of events that make no sense with a stream.
var notOfStreams = []string{"until", "before", "limit"}

// retryMilliseconds is after how long a browser connects again.
const retryMilliseconds = 2000

// stream is one reader of the event stream.
type stream struct {
	server *Server
	filter *model.Matcher
	since  time.Time
	out    http.ResponseWriter
	flush  *http.ResponseController
	// request is what it answers.
	request *http.Request

	// position is the id up to which everything wanted is in the buffer or was
	// sent, sent the same without the buffer.
	position, sent uint64
	// live says that the reader has once caught up: from then on it may not lag
	// by more than the limit. Who reads history has all the time it takes.
	live   bool
	buffer bytes.Buffer // frames that go out with the next flush
	items  []item       // reused
}

// named reports whether a container of this name runs now.
func (s *Server) named(name string) bool { return s.Capture.View().Named(name) }

// errSlow ends a stream that lags too far behind.
var errSlow = errors.New("events come faster than they are read")

// errStopping ends a stream because the server stops.
var errStopping = errors.New("portwatcher stops")

func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request, p *parameters) error {
	filter := p.filter()
	one := &stream{server: s, filter: filter.Matcher(s.named), since: p.time("since"), out: w, request: r, flush: http.NewResponseController(w)}
	for _, name := range notOfStreams {
		if p.values.Get(name) != "" {
			p.wrong(name, p.values.Get(name), "no value in a stream")
		}
	}
	start, asked := p.id("after")
	if header := r.Header.Get("Last-Event-ID"); header != "" {
		// The header wins: a browser sends it with the address of its first request.
		id, err := strconv.ParseUint(header, 10, 64)
		if err != nil || id > maxID {
			p.wrong("Last-Event-ID", header, "ids of events")
		}
		start, asked = id, true
	}
	if err := p.problem(); err != nil {
		return err
	}
	if !s.streams.tryEnter() {
		return newProblem(http.StatusServiceUnavailable, fmt.Sprintf("%d event streams are open already", cap(s.streams)))
	}
	defer s.streams.leave()
	// The feed reads from here on; what is before comes from the journal.
	leave := s.feed.join()
	defer leave()

	w.Header().Set("Content-Type", api.MediaTypeStream)
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		return nil
	}
	last := s.History.LastID()
	fmt.Fprintf(&one.buffer, "retry: %d\n\n", retryMilliseconds)
	noteFrame(&one.buffer, api.StreamHello, api.Hello{LastID: last, Host: s.Capture.View().Status.Host, Version: s.Version})
	one.position = last
	if asked || !one.since.IsZero() {
		one.position = start
	}
	one.sent = one.position
	one.end(one.run(r.Context(), last))
	return nil // an answer has begun: nothing else can be said in it
}

// run sends events until the reader is gone, too slow, or the server stops.
// last is the last id at the start.
func (s *stream) run(ctx context.Context, last uint64) error {
	if s.position > last {
		if err := s.reset(ctx); err != nil { // an id of another journal
			return err
		}
	}
	heartbeat := time.NewTimer(s.server.limits.heartbeat)
	defer heartbeat.Stop()
	for {
		if s.stopping() {
			return errStopping
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

func (s *stream) stopping() bool {
	select {
	case <-s.server.stopping:
		return true
	default:
		return false
	}
}

// collect puts what comes next into the buffer. Where there is nothing left it
// returns a channel that tells when there is more; otherwise nil.
func (s *stream) collect(ctx context.Context) (more <-chan struct{}, err error) {
	items, more, last, known := s.server.feed.next(s.items[:0], s.position, s.server.limits.batch)
	defer clear(items) // the buffer is kept, the events need not be
	s.items = items
	if s.live && last > s.position && last-s.position > s.server.limits.lag {
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
		if s.wants(items[i].event) {
			s.buffer.Write(items[i].frame)
		}
		s.position = items[i].event.ID
	}
	if len(items) == s.server.limits.batch {
		return nil, nil
	}
	return more, nil
}

func (s *stream) wants(e *model.Event) bool {
	return s.filter.Event(e) && !e.Time.Before(s.since)
}

// collectHistory puts a page of the journal into the buffer.
func (s *stream) collectHistory(ctx context.Context) error {
	server := s.server
	first, err := server.firstID(ctx)
	if err != nil {
		return err
	}
	if s.position > 0 && s.position+1 < first {
		return s.reset(ctx)
	}
	// What is recorded by now is in the page, or does not match.
	last := server.History.LastID()
	all, err := server.collect(ctx, s.query())
	if err != nil {
		return err
	}
	for _, event := range all.events {
		if s.buffer.Len() >= pieceSize {
			return nil // the rest is read again
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

func (s *stream) query() journal.Query {
	q := journal.Query{Filter: s.filter.Filter}
	q.Since, q.AfterID, q.FromStart, q.Limit = s.since, s.position, true, s.server.limits.batch
	return q
}

// reset tells that what was asked for is not there, and goes on with what is.
func (s *stream) reset(ctx context.Context) error {
	first, err := s.server.firstID(ctx)
	if err != nil {
		return err
	}
	noteFrame(&s.buffer, api.StreamReset, api.Reset{FirstID: first, LastID: s.server.History.LastID()})
	s.position = max(first, 1) - 1
	return nil
}

// smallWrite is how many bytes a stream writes without being counted: what is no
// more fits into the buffer of net/http.
const smallWrite = 4 << 10

// send writes the buffer, within the time for one write.
func (s *stream) send() error {
	defer func() {
		if s.buffer.Reset(); s.buffer.Cap() > 2*smallWrite {
			s.buffer = bytes.Buffer{} // an idle stream holds next to nothing
		}
	}()
	if s.buffer.Len() > smallWrite {
		one, err := s.server.hold(s.request, &body{size: s.buffer.Cap()})
		if err != nil {
			return errSlow
		}
		defer one.release()
		one.writing(true)
	}
	// HTTP/2 ends a stream at its deadline even when nothing is being written. A
	// connection that is gone is noticed at the next write.
	defer func() { _ = s.flush.SetWriteDeadline(time.Time{}) }()
	if err := s.flush.SetWriteDeadline(time.Now().Add(s.server.limits.stallTime)); err != nil {
		return fmt.Errorf("bound a write to a stream: %w", err)
	}
	if _, err := s.out.Write(s.buffer.Bytes()); err != nil {
		return fmt.Errorf("write to a stream: %w", err)
	}
	if err := s.flush.Flush(); err != nil {
		return fmt.Errorf("write to a stream: %w", err)
	}
	s.sent = s.position
	return nil
}

// end tells the reader where to resume, if it can be told, and counts it.
func (s *stream) end(why error) {
	log := s.server.log.WithField("position", s.sent)
	reason := why.Error()
	switch {
	case errors.Is(why, errStopping):
	case errors.Is(why, errSlow):
		s.server.cutOff.Add(1)
		log.Debug("A reader of the event stream is cut off: it is too slow.")
	case isTimeout(why), errors.Is(why, net.ErrClosed):
		s.server.cutOff.Add(1)
		log.Debug("A reader of the event stream is cut off: it takes nothing.")
		return // nothing more can be told
	case errors.Is(why, context.Canceled):
		return // it is gone
	default:
		log.WithError(why).Debug("A reader of the event stream is gone, or the journal cannot be read.")
		reason = "the events cannot be read at present"
	}
	// What could not be sent before has to be sent again.
	s.buffer.Reset()
	noteFrame(&s.buffer, api.StreamEnd, api.End{ResumeAfter: s.sent, Reason: reason})
	// A reader that is gone does not miss it.
	_ = s.send()
}

// isTimeout says whether a write took too long. A query that did is none.
func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return !errors.Is(err, context.DeadlineExceeded) && errors.As(err, &timeout) && timeout.Timeout()
}
