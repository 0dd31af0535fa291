package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"portwatcher/internal/output"
)

const (
	// maxKept bounds the buffers that are kept for the next answer, in bytes.
	maxKept = 4 << 20
	// pieceSize is how many bytes one write has; see limits.stallTime.
	pieceSize = 64 << 10
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func recycle(buffer *bytes.Buffer) {
	if buffer.Cap() <= maxKept {
		buffer.Reset()
		buffers.Put(buffer)
	}
}

// encode appends a value as JSON, and a line break.
func encode(into *bytes.Buffer, value any) error {
	start := into.Len()
	encoder := json.NewEncoder(into)
	encoder.SetEscapeHTML(false) // addresses are read by people too
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	encoded := into.Bytes()[start:]
	if escaped := output.EscapeMarks(encoded); len(escaped) != len(encoded) {
		into.Truncate(start)
		into.Write(escaped)
	}
	return nil
}

// whole is a complete answer. Requests can share it.
type whole struct {
	body
	contentType string
	content     []byte // immutable until done
	compressed  bool
	done        func() // called after it was sent; may be nil
}

func newWhole(contentType string, content []byte, compressed bool) *whole {
	return &whole{body: body{size: len(content)}, contentType: contentType, content: content, compressed: compressed}
}

func asJSON(r *http.Request, value any) (*whole, error) {
	return asWhole(r, "application/json", func(into *bytes.Buffer) error { return encode(into, value) })
}

// asWhole makes an answer to one request, compressed where the client accepts it.
func asWhole(r *http.Request, contentType string, write func(into *bytes.Buffer) error) (*whole, error) {
	buffer := buffers.Get().(*bytes.Buffer)
	if err := write(buffer); err != nil {
		return nil, err
	}
	compressed := buffer.Len() > minGzip && acceptsGzip(r)
	if compressed {
		plain := buffer
		defer recycle(plain)
		buffer = buffers.Get().(*bytes.Buffer)
		if err := compress(buffer, plain.Bytes()); err != nil {
			return nil, err
		}
	}
	answer := newWhole(contentType, buffer.Bytes(), compressed)
	answer.done = func() { recycle(buffer) }
	return answer, nil
}

// rendered is an answer that is shared, in both forms.
type rendered struct {
	plain      *whole
	compressed func() (*whole, error) // makes it at the first call
}

func newRendered(contentType string, content []byte) *rendered {
	return &rendered{newWhole(contentType, content, false), sync.OnceValues(func() (*whole, error) {
		var into bytes.Buffer
		err := compress(&into, content)
		return newWhole(contentType, into.Bytes(), true), err
	})}
}

// form returns the form that a client accepts.
func (a *rendered) form(r *http.Request) (*whole, error) {
	if len(a.plain.content) <= minGzip || !acceptsGzip(r) {
		return a.plain, nil
	}
	return a.compressed()
}

// answer sends what build returns. build holds one of the slots and must not wait, for the
// journal or for the client. The slots are nil where building costs next to nothing.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, bound slots, build func() (*whole, error)) error {
	answer, held, err := s.prepare(r, bound, build)
	if err != nil {
		return err
	}
	if answer.done != nil {
		defer answer.done()
	}
	defer held.release()
	s.send(w, r, answer, held)
	return nil
}

// prepare returns an answer that is within the memory budget. It leaves its slot only then, so
// that the slots bound what is not within the budget yet.
func (s *Server) prepare(r *http.Request, bound slots, build func() (*whole, error)) (*whole, *holding, error) {
	if bound != nil {
		if !bound.enter(r.Context(), s.limits.patience) {
			return nil, nil, newProblem(http.StatusServiceUnavailable, fmt.Sprintf("%d requests are being answered already", cap(bound)))
		}
		defer bound.leave()
	}
	answer, err := build()
	if err != nil {
		return nil, nil, err
	}
	held, err := s.hold(r, &answer.body)
	return answer, held, err
}

// send writes an answer, within the times that pieceWriter allows.
func (s *Server) send(w http.ResponseWriter, r *http.Request, answer *whole, held *holding) {
	header := w.Header()
	header.Set("Content-Type", answer.contentType)
	header.Add("Vary", "Accept-Encoding")
	if answer.compressed {
		header.Set("Content-Encoding", "gzip")
	}
	header.Set("Content-Length", strconv.Itoa(len(answer.content)))
	if r.Method == http.MethodHead {
		return
	}
	// A client that left, or was disconnected, is no failure of the server.
	if err := s.newPieceWriter(w, held).write(answer.content); err != nil {
		s.log.WithError(err).WithField("path", r.URL.Path).Debug("The connection ended before the whole answer was sent.")
	}
}

// hold takes the memory of an answer from the budget. The caller releases it.
func (s *Server) hold(r *http.Request, what *body) (*holding, error) {
	memory := s.memory
	if reservedPath(r.URL.Path) {
		memory = s.reservedMemory
	}
	if held := memory.hold(r.Context(), connOf(r), what, s.limits.patience); held != nil {
		return held, nil
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return nil, newProblem(http.StatusServiceUnavailable, fmt.Sprintf("the answers that are being sent have %d MiB already", memory.most>>20))
}

// pieceWriter writes an answer in pieces: each within limits.stallTime, all within
// limits.sendTime.
type pieceWriter struct {
	out     http.ResponseWriter
	control *http.ResponseController
	held    *holding
	stall   time.Duration
	end     time.Time
}

func (s *Server) newPieceWriter(w http.ResponseWriter, held *holding) *pieceWriter {
	return &pieceWriter{
		out: w, control: http.NewResponseController(w), held: held,
		stall: s.limits.stallTime, end: time.Now().Add(s.limits.sendTime),
	}
}

func (p *pieceWriter) write(content []byte) error {
	for len(content) > 0 {
		piece := content[:min(pieceSize, len(content))]
		deadline := time.Now().Add(p.stall)
		if deadline.After(p.end) {
			deadline = p.end
		}
		if err := p.control.SetWriteDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		p.held.writing(true)
		_, err := p.out.Write(piece)
		p.held.writing(false)
		if err != nil {
			return err
		}
		content = content[len(piece):]
	}
	return nil
}
