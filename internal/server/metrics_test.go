package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/testutil/kernel"
)

// TestAScrapeThatBreaksOffCostsOneLine resets connections in the middle of the
// answer.
func TestAScrapeThatBreaksOffCostsOneLine(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) { l.sendBuffer = 8 << 10 })
	s.capture.set(func(c *fakeCapture) { c.open = manyPorts(4000) })
	const scrapes = 5
	for range scrapes {
		conn := s.dial(t, "")
		if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := io.ReadFull(conn, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	kernel.Eventually(t, "all have ended", func() bool {
		s.reservedMemory.mutex.Lock()
		defer s.reservedMemory.mutex.Unlock()
		return s.reservedMemory.used == 0
	})
	for range 3 {
		if response, _ := s.get(t, "/metrics"); response.StatusCode != http.StatusOK {
			t.Error(response.Status)
		}
	}
	lines := 0
	for _, entry := range s.logs.AllEntries() {
		if entry.Level == logrus.DebugLevel {
			lines++
		} else if entry.Level < logrus.InfoLevel {
			t.Errorf("%s: %s", entry.Level, entry.Message)
		}
	}
	if lines > scrapes {
		t.Errorf("%d lines for %d scrapes", lines, scrapes)
	}
}

// TestScrapesThatNobodyReads has more of them than there is room for.
func TestScrapesThatNobodyReads(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) {
		l.reserved, l.sendBuffer, l.stallTime, l.sendTime = 2<<20, 8<<10, time.Hour, time.Hour
	})
	s.capture.set(func(c *fakeCapture) { c.open = manyPorts(3000) })
	for range 6 {
		s.stuck(t, "/metrics")
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/api/v1/ports"} {
		if response, body := s.get(t, path); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s: %s", path, response.Status, body)
		}
	}
}
