package server

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/cert"
)

// issue writes a new self-signed pair for localhost, and returns its pool.
func issue(t testing.TB, serial int64, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	pair, key := cert.SelfSigned(t, serial, "localhost", "127.0.0.1")
	writeFile(t, certFile, string(pair))
	writeFile(t, keyFile, string(key))
	return cert.Pool(t, pair)
}

func TestTLS(t *testing.T) {
	folder := t.TempDir()
	certFile, keyFile := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	first := issue(t, 1, certFile, keyFile)
	s := start(t, func(o *Options, l *limits) {
		o.TLSCert, o.TLSKey = certFile, keyFile
		l.sendTime, l.heartbeat = 500*time.Millisecond, 10*time.Millisecond
	})
	trust := func(pool *x509.CertPool) {
		s.client.CloseIdleConnections()
		s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	}
	trust(first)
	response, _ := s.get(t, "/api/v1/ports")
	if response.ProtoMajor != 2 {
		t.Errorf("%s", response.Proto)
	}
	old := &tls.Config{RootCAs: first, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	if conn, err := tls.Dial("tcp", s.Addr().String(), old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is accepted")
	}
	if response, err := http.Get("http://" + s.Addr().String()); err == nil {
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP: %s", response.Status)
		}
	}

	// A wait and a stream over HTTP/2 outlive the time for sending an answer.
	one := s.stream(t, "")
	expect[api.Hello](one, api.StreamHello)
	s.problem(t, http.StatusRequestTimeout, "/api/v1/ports?port=1&wait=700ms")
	s.history.recordMany(1)
	one.expectID(1)
	s.capture.set(func(c *fakeCapture) { c.open = append(c.open, openPort(db, model.TCP, "::", 1, model.Network)) })

	second := issue(t, 2, certFile, keyFile)
	expire(s.pair)
	trust(second)
	decode[api.Ports](t, s, "/api/v1/ports")

	writeFile(t, keyFile, "broken")
	expire(s.pair)
	trust(second)
	decode[api.Ports](t, s, "/api/v1/ports") // the last good pair stays
	if logged(s, "stays in use") != 1 {
		t.Error("the broken pair is not logged once")
	}
}
