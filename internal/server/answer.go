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
)

// minGzip is the size in bytes from which an answer is worth compressing.
const minGzip = 1 << 10

// maxKept bounds the buffers that are kept for the next answer, in bytes.
const maxKept = 4 << 20

// pieceSize is how many bytes are written at once: the time for one write is for
// so many.
const pieceSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func keep(buffer *bytes.Buffer) {
	if buffer.Cap() <= maxKept {
		buffer.Reset()
		buffers.Put(buffer)
	}
}

// encode appends a value as JSON, and a line break.
func encode(into *bytes.Buffer, value any) error {
	encoder := json.NewEncoder(into)
	encoder.SetEscapeHTML(false) // addresses are read by people too
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	return nil
}

// whole is an answer that is complete. Answers can share it.
type whole struct {
	body
	contentType string
	content     []byte // immutable while it is held
	packed      bool   // by gzip
	done        func() // gives its memory back once it was sent; may be nil
}

func newWhole(contentType string, content []byte, packed bool) *whole {
	return &whole{body: body{size: len(content)}, contentType: contentType, content: content, packed: packed}
}

// asJSON encodes a value as an answer of its own.
func asJSON(r *http.Request, value any) (*whole, error) {
	return asWhole(r, "application/json", func(into *bytes.Buffer) error { return encode(into, value) })
}

// asWhole makes an answer of its own, compressed where the client takes it.
func asWhole(r *http.Request, contentType string, write func(into *bytes.Buffer) error) (*whole, error) {
	plain := buffers.Get().(*bytes.Buffer)
	if err := write(plain); err != nil {
		return nil, err
	}
	if plain.Len() <= minGzip || !acceptsGzip(r) {
		what := newWhole(contentType, plain.Bytes(), false)
		what.done = func() { keep(plain) }
		return what, nil
	}
	defer keep(plain)
	packed := buffers.Get().(*bytes.Buffer)
	if err := new(packer).pack(packed, plain.Bytes(), true); err != nil {
		return nil, err
	}
	what := newWhole(contentType, packed.Bytes(), true)
	what.done = func() { keep(packed) }
	return what, nil
}

// rendered is what is kept of an answer for those who ask for the same.
type rendered struct {
	plain *whole

	packing sync.Once
	packed  *whole
	err     error
}

func newRendered(contentType string, plain []byte) *rendered {
	return &rendered{plain: newWhole(contentType, plain, false)}
}

// form returns the form that a client takes.
func (a *rendered) form(r *http.Request) (*whole, error) {
	if len(a.plain.content) <= minGzip || !acceptsGzip(r) {
		return a.plain, nil
	}
	a.packing.Do(func() {
		var packed bytes.Buffer
		a.err = new(packer).pack(&packed, a.plain.content, true)
		a.packed = newWhole(a.plain.contentType, packed.Bytes(), true)
	})
	return a.packed, a.err
}

// answer sends what build returns, which is called as one of the few at one time:
// it must not wait, for the journal or for the client. The slots are nil where there
// is hardly anything to build.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, few slots, build func() (*whole, error)) error {
	what, one, err := s.prepare(r, few, build)
	if err != nil {
		return err
	}
	if what.done != nil {
		defer what.done()
	}
	defer one.release()
	s.send(w, r, what, one)
	return nil
}

// prepare returns an answer that is held within the budget. It gives its slot back
// only then, so that what is not held is bounded by the slots.
func (s *Server) prepare(r *http.Request, few slots, build func() (*whole, error)) (*whole, *answer, error) {
	if few != nil {
		if !few.enter(r.Context(), s.limits.patience) {
			return nil, nil, newProblem(http.StatusServiceUnavailable, fmt.Sprintf("%d requests are being answered already", cap(few)))
		}
		defer few.leave()
	}
	what, err := build()
	if err != nil {
		return nil, nil, err
	}
	one, err := s.hold(r, &what.body)
	return what, one, err
}

// send writes an answer to a client that takes each piece in the time for one
// write, and all of it in the time for an answer.
func (s *Server) send(w http.ResponseWriter, r *http.Request, what *whole, one *answer) {
	header := w.Header()
	header.Set("Content-Type", what.contentType)
	header.Add("Vary", "Accept-Encoding")
	if what.packed {
		header.Set("Content-Encoding", "gzip")
	}
	header.Set("Content-Length", strconv.Itoa(len(what.content)))
	if r.Method == http.MethodHead {
		return
	}
	// A client that went away, or was broken off, is no failure of ours.
	if err := s.newPieceWriter(w, one).write(what.content); err != nil {
		s.log.WithError(err).WithField("path", r.URL.Path).Debug("An answer is broken off.")
	}
}

// hold makes room for what an answer holds in memory. The caller releases it.
func (s *Server) hold(r *http.Request, what *body) (*answer, error) {
	memory := s.memory
	if reservedPath(r.URL.Path) {
		memory = s.reservedMemory
	}
	if one := memory.hold(r.Context(), connOf(r), what, s.limits.patience); one != nil {
		return one, nil
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return nil, newProblem(http.StatusServiceUnavailable, fmt.Sprintf("the answers that are being sent have %d MiB already", memory.most>>20))
}

// pieceWriter writes an answer piece by piece, each within the time for one write.
type pieceWriter struct {
	out     http.ResponseWriter
	control *http.ResponseController
	one     *answer
	stall   time.Duration
	end     time.Time // of the time for the answer

	// packer and packed are set where the parts are compressed.
	packer *packer
	packed *bytes.Buffer
}

func (s *Server) newPieceWriter(w http.ResponseWriter, one *answer) *pieceWriter {
	return &pieceWriter{
		out: w, control: http.NewResponseController(w), one: one,
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
		p.one.writing(true)
		_, err := p.out.Write(piece)
		p.one.writing(false)
		if err != nil {
			return err
		}
		content = content[len(piece):]
	}
	return nil
}

// pack makes writePart compress.
func (p *pieceWriter) pack() { p.packer, p.packed = new(packer), new(bytes.Buffer) }

// writePart writes a part of an answer; last ends it.
func (p *pieceWriter) writePart(content []byte, last bool) error {
	if p.packer != nil {
		p.packed.Reset()
		if err := p.packer.pack(p.packed, content, last); err != nil {
			return err
		}
		content = p.packed.Bytes()
	}
	return p.write(content)
}
