package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"portwatcher/internal/journal"
	"portwatcher/internal/output"
	"portwatcher/internal/server/api"
)

const (
	standardLimit = 500
	maxLimit      = 5000

	// chunkEvents is how many events of a page are read from the journal at once.
	chunkEvents = 250
)

func (s *Server) getEvents(w http.ResponseWriter, r *http.Request, p *parameters) error {
	w.Header().Add("Vary", "Accept")
	if acceptsStream(r) {
		return s.streamEvents(w, r, p)
	}
	q := journal.Query{Filter: p.filter()}
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
	one := &page{server: s, query: q, left: limit, link: func(name string, id uint64) string {
		p.values.Set(name, strconv.FormatUint(id, 10))
		// Relative: a proxy may serve the API under a path.
		return path.Base(api.PathEvents) + "?" + p.values.Encode()
	}}
	one.ended = backward && before <= 1 // ids begin at 1, and in a Query 0 is no bound
	return one.answer(w, r)
}

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

// page is one page of events on its way from the journal to a client: an [api.Events]. It holds
// one chunk at a time, and no query while it waits for the client.
type page struct {
	server *Server
	query  journal.Query
	left   int                                      // of the limit
	link   func(parameter string, id uint64) string // to another page

	firstID, lastID uint64 // of the journal
	// first and last are the ids of the first and the last event that were read, including
	// damaged ones; 0 where none was.
	first, last uint64
	ended       bool // nothing more matches
	older       bool // there is an older page
	newer       bool // there is a newer page
	written     bool // an event is in a chunk
	chunk       bytes.Buffer
}

// answer reads the page and sends it. A page of one chunk is sent as a whole. An error of the
// first chunk is returned; after a later one the connection is closed, so that the client does
// not take the beginning for the whole.
func (p *page) answer(w http.ResponseWriter, r *http.Request) error {
	s := p.server
	held, err := s.hold(r, &body{size: 2 * pieceSize}) // the chunk, and its compressed form
	if err != nil {
		return err
	}
	defer held.release()
	if err := p.begin(r.Context()); err != nil {
		return err
	}
	if p.ended {
		answer, err := asWhole(r, "application/json", func(into *bytes.Buffer) error {
			into.Write(p.chunk.Bytes())
			return nil
		})
		if err == nil {
			s.send(w, r, answer, held)
			answer.done()
		}
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Add("Vary", "Accept-Encoding")
	compresses := acceptsGzip(r)
	if compresses {
		header.Set("Content-Encoding", "gzip")
	}
	if r.Method == http.MethodHead {
		return nil
	}
	if err := p.send(r.Context(), s.newPieceWriter(w, held), compresses); err != nil {
		s.log.WithError(err).WithField("path", r.URL.Path).Debug("The connection is closed before the whole page was sent.")
		panic(http.ErrAbortHandler)
	}
	return nil
}

// send sends the chunk, and all that follow it.
func (p *page) send(ctx context.Context, to *pieceWriter, compresses bool) error {
	var compressed bytes.Buffer
	compressor := newPieceCompressor(&compressed)
	for {
		content := p.chunk.Bytes()
		if compresses {
			compressed.Reset()
			_, err := compressor.Write(content)
			if err == nil && p.ended {
				err = compressor.Close()
			}
			if err != nil {
				return fmt.Errorf("compress a page: %w", err)
			}
			content = compressed.Bytes()
		}
		if err := to.write(content); err != nil || p.ended {
			return err
		}
		p.chunk.Reset()
		if err := p.more(ctx); err != nil {
			return err
		}
	}
}

// begin puts the first chunk into the buffer.
func (p *page) begin(ctx context.Context) (err error) {
	p.lastID = p.server.history.LastID()
	if p.firstID, err = p.server.firstID(ctx); err != nil {
		return err
	}
	p.chunk.WriteString(`{"events":[`)
	if p.ended {
		p.finish("")
		return nil
	}
	if !p.query.FromStart && p.query.BeforeID == 0 {
		// Events that are recorded from now on are not part of the page.
		p.query.BeforeID = min(p.lastID, maxID-1) + 1
	}
	return p.more(ctx)
}

// more puts the next chunk into the buffer; after the last one also the end of the answer.
func (p *page) more(ctx context.Context) (err error) {
	isFirst := p.first == 0
	if err := p.server.query(ctx, p.read); err != nil {
		return err
	}
	if isFirst && !p.query.FromStart && !p.ended {
		older := p.query
		older.BeforeID, older.Limit = p.first, 1
		if p.older, err = p.server.any(ctx, older); err != nil {
			return err
		}
	}
	switch {
	case !p.ended && (p.left > 0 || p.query.FromStart):
	case p.older:
		p.finish(p.link("before", p.first))
	case p.newer:
		p.finish(p.link("after", p.last))
	default:
		p.finish("")
	}
	return nil
}

// read reads events into the buffer until it has a piece.
func (p *page) read(ctx context.Context) error {
	q := p.query
	if p.first > 0 { // the page goes on after the last event
		q.AfterID, q.FromStart = p.last, true
	}
	q.Limit = p.left
	if p.query.FromStart {
		q.Limit++ // to see whether there is a newer page
	}
	if q.FromStart {
		q.Limit = min(q.Limit, chunkEvents)
	}
	count := 0
	for event, err := range p.server.history.Events(ctx, q) {
		if p.left == 0 {
			p.newer, p.ended = true, true
			return nil
		}
		if damaged, ok := errors.AsType[*journal.DamagedError](err); ok {
			p.last = damaged.ID
		} else if err != nil {
			return err
		} else {
			p.last = event.ID
			if p.written {
				p.chunk.WriteByte(',')
			}
			p.written = true
			p.chunk.Write(output.AppendJSON(p.chunk.AvailableBuffer(), event))
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

// finish puts the end of the answer into the buffer.
func (p *page) finish(next string) {
	p.ended = true
	fmt.Fprintf(&p.chunk, `],"first_id":%d,"last_id":%d`, p.firstID, p.lastID)
	if next != "" {
		p.chunk.WriteString(`,"next":`)
		_ = encode(&p.chunk, next) // a string always encodes
		p.chunk.Truncate(p.chunk.Len() - 1)
	}
	p.chunk.WriteString("}\n")
}
