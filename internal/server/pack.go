package server

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// compressors hold some 600 KiB each.
var compressors = sync.Pool{New: func() any {
	// The level is valid: the error is impossible.
	w, _ := flate.NewWriter(nil, flate.BestSpeed)
	return w
}}

// packer makes one gzip stream of pieces. It holds a compressor for as long as one
// piece takes, and none while the client is waited for: the pieces are compressed
// each for itself. The zero value is ready. Source: RFC 1951 and RFC 1952.
type packer struct {
	began     bool
	sum, size uint32
}

// pack appends a piece to a stream; last ends it.
func (p *packer) pack(into *bytes.Buffer, piece []byte, last bool) error {
	if !p.began {
		p.began = true
		// Deflate, no flags, no time, the fastest level, an unknown system.
		into.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255})
	}
	p.sum = crc32.Update(p.sum, crc32.IEEETable, piece)
	p.size += uint32(len(piece)) // modulo 2^32, as the format has it
	w := compressors.Get().(*flate.Writer)
	defer compressors.Put(w)
	w.Reset(into)
	_, err := w.Write(piece)
	if err == nil && last {
		err = w.Close()
	} else if err == nil {
		err = w.Flush() // ends at a whole byte
	}
	if err != nil {
		return fmt.Errorf("compress an answer: %w", err)
	}
	if last {
		trailer := binary.LittleEndian.AppendUint32(into.AvailableBuffer(), p.sum)
		into.Write(binary.LittleEndian.AppendUint32(trailer, p.size))
	}
	return nil
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
