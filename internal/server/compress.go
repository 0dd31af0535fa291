package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// minGzip is the size in bytes from which compressing an answer is worth it.
const minGzip = 1 << 10

// compressors are kept for the next answer; each has some 100 KiB.
var compressors = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the error is for unknown levels
	return w
}}

// compress appends a whole gzip stream.
func compress(into *bytes.Buffer, content []byte) error {
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	w.Reset(into)
	_, err := w.Write(content)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("compress an answer: %w", err)
	}
	return nil
}

// newPieceCompressor returns a writer of a gzip stream that holds no memory between two writes,
// for answers that wait for their client between them.
func newPieceCompressor(into *bytes.Buffer) *gzip.Writer {
	w, _ := gzip.NewWriterLevel(into, gzip.StatelessCompression) // the error is for unknown levels
	return w
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
