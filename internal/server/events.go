package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

const (
	standardLimit = 500
	maxLimit      = 5000

	// chunkEvents is how many events of a page are read from the journal at once.
	chunkEvents = 250
)

// getEvents answers with a page of events, or with a stream.
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request, p *parameters) error {
	w.Header().Add("Vary", "Accept")
	if acceptsStream(r) {
		return s.streamEvents(w, r, p)
	}
	filter := p.filter()
	q := journal.Query{Filter: filter}
	q.Since, q.Until = p.time("since"), p.time("until")
	after, forward := p.id("after")
	before, backward := p.id("before")
	if forward && backward {
		p.wrong("before", p.values.Get("before"), "either after= or before=")
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		p.wrong("until", p.values.Get("until"), "times after since=")
	}
	limit := p.count("limit", standardLimit, maxLimit)
	if err := p.problem(); err != nil {
		return err
	}
	q.AfterID, q.BeforeID, q.FromStart = after, before, forward
	one := &page{server: s, query: q, left: limit, nextPage: func(name string, id uint64) string { return nextPage(r, p, name, id) }}
	// Ids begin at 1, and in a Query 0 is no bound.
	one.ended = backward && before <= 1
	return one.answer(w, r)
}

// acceptsStream says whether the client asked for the stream by name.
func acceptsStream(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept") {
		for entry := range strings.SplitSeq(line, ",") {
			if kind, _, err := mime.ParseMediaType(entry); err == nil && kind == api.MediaTypeStream {
				return true
			}
		}
	}
	return false
}

func nextPage(r *http.Request, p *parameters, name string, id uint64) string {
	p.values.Set(name, strconv.FormatUint(id, 10))
	return r.URL.Path + "?" + p.values.Encode()
}

// page is one page of events on its way from the journal to a client: an
// [api.Events]. It holds one chunk of it at a time, and no query while the client
// is waited for.
type page struct {
	server   *Server
	query    journal.Query
	left     int // of the limit
	nextPage func(parameter string, id uint64) string

	firstID, lastID uint64 // of the journal
	// first and last are the ids of the first and the last event that were read, the
	// damaged ones included; 0 where none was.
	first, last uint64
	ended       bool // nothing more matches
	older       bool // there is an older page
	written     bool // an event
	chunk       bytes.Buffer
}

// answer reads the page and sends it. An answer that fits into one chunk is sent
// as a whole. What fails before the first chunk is the error; what fails after it
// breaks the answer off.
func (p *page) answer(w http.ResponseWriter, r *http.Request) error {
	s := p.server
	// The chunk, and what it is compressed to.
	one, err := s.hold(r, &body{size: 2 * pieceSize})
	if err != nil {
		return err
	}
	defer one.release()
	if err := p.begin(r.Context()); err != nil {
		return err
	}
	if p.ended {
		what, err := asWhole(r, "application/json", func(into *bytes.Buffer) error {
			into.Write(p.chunk.Bytes())
			return nil
		})
		if err == nil {
			s.send(w, r, what, one)
			what.done()
		}
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Add("Vary", "Accept-Encoding")
	to := s.newPieceWriter(w, one)
	if acceptsGzip(r) {
		header.Set("Content-Encoding", "gzip")
		to.pack()
	}
	if r.Method == http.MethodHead {
		return nil
	}
	for {
		err := to.writePart(p.chunk.Bytes(), p.ended)
		if err == nil && p.ended {
			return nil
		}
		if err == nil {
			p.chunk.Reset()
			err = p.more(r.Context())
		}
		if err != nil {
			s.log.WithError(err).WithField("path", r.URL.Path).Debug("A page of events is broken off.")
			panic(http.ErrAbortHandler) // the client must not take it for complete
		}
	}
}

// begin puts the first chunk into the buffer.
func (p *page) begin(ctx context.Context) (err error) {
	p.lastID = p.server.History.LastID()
	if p.firstID, err = p.server.firstID(ctx); err != nil {
		return err
	}
	p.chunk.WriteString(`{"events":[`)
	if p.ended {
		p.finish("")
		return nil
	}
	if !p.query.FromStart && p.query.BeforeID == 0 {
		// What is recorded from now on is not part of the last events.
		p.query.BeforeID = min(p.lastID, maxID-1) + 1
	}
	return p.more(ctx)
}

// more puts the next chunk into the buffer, and the end of the answer behind the
// last one.
func (p *page) more(ctx context.Context) error {
	isFirst := p.first == 0
	if err := p.server.query(ctx, p.read); err != nil {
		return err
	}
	if isFirst && !p.query.FromStart && !p.ended {
		older := p.query
		older.BeforeID, older.Limit = p.first, 1
		var err error
		if p.older, err = p.server.any(ctx, older); err != nil {
			return err
		}
	}
	if !p.ended && p.left > 0 {
		return nil
	}
	next := ""
	switch {
	case p.older:
		next = p.nextPage("before", p.first)
	case p.query.FromStart && !p.ended:
		newer := p.query
		newer.AfterID, newer.Limit = p.last, 1
		found, err := p.server.any(ctx, newer)
		if err != nil {
			return err
		}
		if found {
			next = p.nextPage("after", p.last)
		}
	}
	p.finish(next)
	return nil
}

// read reads events into the buffer until it has a piece.
func (p *page) read(ctx context.Context) error {
	q := p.query
	if p.first > 0 { // where the page begins is known
		q.AfterID, q.FromStart = p.last, true
	}
	q.Limit = p.left
	if q.FromStart {
		q.Limit = min(p.left, chunkEvents)
	}
	count := 0
	for event, err := range p.server.History.Events(ctx, q) {
		damaged, isDamaged := errors.AsType[*journal.DamagedError](err)
		switch {
		case isDamaged:
			p.last = damaged.ID
		case err != nil:
			return err
		default:
			p.last = event.ID
			if err := p.add(event); err != nil {
				return err
			}
		}
		if p.first == 0 {
			p.first = p.last
		}
		p.left--
		if count++; count == chunkEvents || p.chunk.Len() >= pieceSize {
			return nil
		}
	}
	p.ended = count < q.Limit
	return nil
}

func (p *page) add(event *model.Event) error {
	if p.written {
		p.chunk.WriteByte(',')
	}
	p.written = true
	return p.append(event)
}

// append encodes a value without a line break.
func (p *page) append(value any) error {
	err := encode(&p.chunk, value)
	p.chunk.Truncate(p.chunk.Len() - 1)
	return err
}

// finish puts the end of the answer into the buffer.
func (p *page) finish(next string) {
	p.ended = true
	fmt.Fprintf(&p.chunk, `],"first_id":%d,"last_id":%d`, p.firstID, p.lastID)
	if next != "" {
		p.chunk.WriteString(`,"next":`)
		// A text always encodes.
		_ = p.append(next)
	}
	p.chunk.WriteString("}\n")
}
