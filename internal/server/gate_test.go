package server

import (
	"crypto/tls"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

// from returns a client with an address of the loopback of its own.
func (r *running) from(t *testing.T, address string) *running {
	t.Helper()
	other := *r
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	other.client = &http.Client{Transport: transport}
	return &other
}

// dial opens a connection and sends text, which is not all of a request.
func (r *running) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Timeout: 30 * time.Second}
	connection, err := dialer.DialContext(t.Context(), "tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	if _, err := io.WriteString(connection, text); err != nil {
		t.Fatal(err)
	}
	return connection
}

// fewConnections has room for 16 connections, 8 from one address, and 4 in the
// reserve. Time alone lets go of nothing.
func fewConnections(_ *Options, l *limits) {
	l.connections, l.perAddress, l.reserve = 20, 8, 4
	l.headerTime, l.stallTime, l.sendTime = time.Hour, time.Hour, time.Hour
}

// TestSlowHeadersLockNobodyOut opens more connections than are allowed, of which
// none has sent all of its header.
func TestSlowHeadersLockNobodyOut(t *testing.T) {
	s := start(t, fewConnections)
	var slow []net.Conn
	for range 30 {
		slow = append(slow, s.dial(t, "GET /healthz HTTP/1.1\r\nHost: local"))
	}
	decode[api.Ports](t, s, "/api/v1/ports")
	decode[api.Ports](t, s.from(t, "127.0.0.2"), "/api/v1/ports")
	// The first were closed for the last.
	for i, connection := range slow[:30-8] {
		if err := connection.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := connection.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// TestSlowHandshakesLockNobodyOut opens more connections than are allowed, none of
// which begins to speak TLS.
func TestSlowHandshakesLockNobodyOut(t *testing.T) {
	folder := t.TempDir()
	certFile, keyFile := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	pool := issue(t, 1, certFile, keyFile)
	s := start(t, func(o *Options, l *limits) {
		fewConnections(o, l)
		o.TLSCert, o.TLSKey = certFile, keyFile
	})
	for range 30 {
		s.dial(t, "")
	}
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	decode[api.Ports](t, s, "/api/v1/ports")
	// Its connection has a request under way, and is not closed for others.
	one := s.stream(t, "")
	expect[api.Hello](one, api.StreamHello)
	for range 30 {
		s.dial(t, "")
	}
	s.history.recordMany(1)
	one.expectID(1)
}

// TestOneAddressCannotTakeAll has as many requests under way from one address as
// are allowed.
func TestOneAddressCannotTakeAll(t *testing.T) {
	s := start(t, fewConnections)
	var readers []*reader
	for range 8 {
		one := s.stream(t, "")
		expect[api.Hello](one, api.StreamHello)
		readers = append(readers, one)
	}
	// What comes from there now has the reserve alone.
	for range 10 {
		response, body := s.get(t, "/api/v1/ports")
		asProblem(t, http.StatusServiceUnavailable, response, body)
		if !response.Close {
			t.Error("the connection is kept")
		}
	}
	for range 3 {
		for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
			if response, body := s.get(t, path); response.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s: %s", path, response.Status, body)
			}
		}
	}
	// Others have all.
	other := s.from(t, "127.0.0.2")
	decode[api.Ports](t, other, "/api/v1/ports")
	for range 7 {
		expect[api.Hello](other.stream(t, ""), api.StreamHello)
	}
	// The streams and what is idle are as many as there can be: a third address has
	// the place of what is idle.
	third := s.from(t, "127.0.0.3")
	decode[api.Ports](t, third, "/api/v1/ports")
	// Nobody who was reading was cut off for it.
	s.history.recordMany(1)
	for _, one := range readers {
		one.expectID(1)
	}
	for _, one := range readers {
		one.close()
	}
	kernel.Eventually(t, "the streams end", func() bool { return len(s.streams) == 7 })
	s.client.CloseIdleConnections()
	decode[api.Ports](t, s, "/api/v1/ports")
}

// TestTheReserveIsNotTakenEither sends slow headers when all other places have a
// request under way.
func TestTheReserveIsNotTakenEither(t *testing.T) {
	s := start(t, fewConnections)
	for _, address := range []string{"127.0.0.1", "127.0.0.2"} {
		one := s.from(t, address)
		for range 8 {
			expect[api.Hello](one.stream(t, ""), api.StreamHello)
		}
	}
	for range 10 {
		s.dial(t, "GET /metrics HTTP/1.1\r\n")
	}
	if response, body := s.from(t, "127.0.0.3").get(t, "/metrics"); response.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", response.Status, body)
	}
}

// TestGateCounts does what clients can do in any order.
func TestGateCounts(t *testing.T) {
	gate := newGate(nil, limits{connections: 20, perAddress: 8, reserve: 4})
	random := rand.New(rand.NewPCG(1, 2))
	var all []*conn
	for step := range 20_000 {
		if one := random.IntN(4); one == 0 || len(all) == 0 {
			near, far := net.Pipe()
			far.Close()
			c := &conn{Conn: near, gate: gate, address: netip.AddrFrom4([4]byte{127, 0, 0, byte(random.IntN(4))})}
			admitted, victim := gate.admit(c)
			if victim != nil {
				if victim.busy > 0 {
					t.Fatalf("step %d: a connection with a request is closed", step)
				}
				victim.abort()
			}
			if admitted {
				all = append(all, c)
			}
		} else {
			i := random.IntN(len(all))
			switch c := all[i]; one {
			case 1:
				c.enter()
			case 2:
				if c.busy > 0 {
					c.leave()
				}
			case 3:
				c.Close()
				for c.busy > 0 {
					c.leave()
				}
				all = slices.Delete(all, i, i+1)
			}
		}
		checkGate(t, gate)
	}
	for _, c := range all {
		c.Close()
	}
	if checkGate(t, gate); len(gate.open) != 0 || len(gate.ordinary) != 0 {
		t.Errorf("%d are open, %v", len(gate.open), gate.ordinary)
	}
}

// checkGate counts anew.
func checkGate(t *testing.T, gate *gate) {
	t.Helper()
	ordinary := 0
	byAddress := map[netip.Addr]int{}
	for c := range gate.open {
		if !c.reserved {
			ordinary++
			byAddress[c.address]++
		}
	}
	if ordinary != gate.count || ordinary > 16 || len(gate.open)-ordinary > 4 || !maps.Equal(byAddress, gate.ordinary) {
		t.Fatalf("%d of %d are ordinary (%d counted), %v (%v counted)", ordinary, len(gate.open), gate.count, byAddress, gate.ordinary)
	}
	for address, count := range byAddress {
		if count > 8 {
			t.Fatalf("%d of %s", count, address)
		}
	}
}
