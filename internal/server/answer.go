package server

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// minGzip is the size in bytes from which an answer is worth compressing.
const minGzip = 1 << 10

// maxKept bounds the buffers that are kept for the next answer, in bytes.
const maxKept = 4 << 20

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

var compressors = sync.Pool{New: func() any {
	// The level is valid: the error is impossible.
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return w
}}

func keep(buffer *bytes.Buffer) {
	if buffer.Cap() <= maxKept {
		buffer.Reset()
		buffers.Put(buffer)
	}
}

// writeJSON answers with value, compressed where the client takes it.
func writeJSON(w http.ResponseWriter, r *http.Request, value any) error {
	plain := buffers.Get().(*bytes.Buffer)
	defer keep(plain)
	encoder := json.NewEncoder(plain)
	encoder.SetEscapeHTML(false) // addresses are read by people too
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("encode the answer to %s: %w", r.URL.Path, err)
	}
	return send(w, r, "application/json", plain.Bytes())
}

// send answers with a body that is complete, compressed where the client takes
// it.
func send(w http.ResponseWriter, r *http.Request, contentType string, body []byte) error {
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Add("Vary", "Accept-Encoding")
	if len(body) > minGzip && acceptsGzip(r) {
		packed := buffers.Get().(*bytes.Buffer)
		defer keep(packed)
		if err := compress(packed, body); err != nil {
			return fmt.Errorf("compress the answer to %s: %w", r.URL.Path, err)
		}
		header.Set("Content-Encoding", "gzip")
		body = packed.Bytes()
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	// A client that went away is no failure of ours.
	_, _ = w.Write(body)
	return nil
}

func compress(into *bytes.Buffer, body []byte) error {
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	w.Reset(into)
	if _, err := w.Write(body); err != nil {
		return err
	}
	return w.Close()
}

// acceptsGzip reads Accept-Encoding. Source: RFC 9110, section 12.5.3.
func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept-Encoding") {
		for entry := range strings.SplitSeq(line, ",") {
			coding, weight, _ := strings.Cut(entry, ";")
			if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
				continue
			}
			quality, found := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			value, err := strconv.ParseFloat(quality, 64)
			return !found || err == nil && value > 0
		}
	}
	return false
}
