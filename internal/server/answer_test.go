package server

import (
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

func TestCompression(t *testing.T) {
	s := start(t, nil)
	s.capture.set(func(c *fakeCapture) { c.open = manyPorts(100) })
	for encoding, packed := range map[string]bool{"gzip": true, "br, GZIP;q=0.5": true, "gzip;q=0": false, "identity": false, "": false} {
		response, body := s.get(t, "/api/v1/ports", "Accept-Encoding", encoding)
		if (response.Header.Get("Content-Encoding") == "gzip") != packed {
			t.Errorf("%q: %s", encoding, response.Header)
		}
		if !packed {
			continue
		}
		unpacked, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(unpacked)
		if _, plain := s.get(t, "/api/v1/ports", "Accept-Encoding", "identity"); err != nil || len(content) < 10_000 || len(content) > len(plain)+100 {
			t.Errorf("%d bytes, %d plain, %v", len(content), len(plain), err)
		}
	}
	if response, _ := s.get(t, "/healthz", "Accept-Encoding", "gzip"); response.Header.Get("Content-Encoding") != "" {
		t.Error("a short answer is compressed")
	}
}
