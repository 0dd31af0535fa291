package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/cert"
)

// Everything but the page and the health checks needs the token, which can be
// replaced while portwatcher runs, and is never logged.
func TestWebToken(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	const first, second = "first-token-4711", "second-token-4712"
	write(t, file, first+"\n")
	i := serve(t, serving{more: []string{"--token-file", file, "--log-level", "debug"}})
	harness.WaitHealth(t, i.HealthSocket, 0)
	for _, path := range []string{"/", "/assets/app.js", "/healthz", "/readyz"} {
		if a := i.mustAsk(t, path); a.StatusCode != http.StatusOK {
			t.Errorf("%s without a token: %s", path, a.Status)
		}
	}
	guarded := []string{"/metrics", "/api/v1/status", "/api/v1/ports", "/api/v1/containers", "/api/v1/events", "/api/v1/openapi.yaml", "/api/v1/nothing"}
	refused := func(token string) {
		t.Helper()
		i.token = token
		for _, path := range guarded {
			a := i.mustAsk(t, path)
			if problemOf(t, a, http.StatusUnauthorized); !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: WWW-Authenticate is %q", path, a.Header.Get("WWW-Authenticate"))
			}
		}
	}
	accepted := func(token string) {
		t.Helper()
		i.token = token
		for _, path := range guarded[:len(guarded)-1] {
			if a := i.mustAsk(t, path); a.StatusCode != http.StatusOK {
				t.Errorf("%s with the token: %s %s", path, a.Status, a.text)
			}
		}
		problemOf(t, i.mustAsk(t, guarded[len(guarded)-1]), http.StatusNotFound)
	}
	refused("")
	refused("wrong")
	refused(first + "x")
	accepted(first)
	replace(t, file, []byte(second))
	i.token = second
	harness.Eventually(t, "the new token is accepted", func() string {
		if a := i.mustAsk(t, "/api/v1/status"); a.StatusCode != http.StatusOK {
			return a.Status
		}
		return ""
	})
	accepted(second)
	refused(first)
	i.token = ""
	if a := i.mustAsk(t, "/api/v1/status?token="+second); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token in the address: %s", a.Status)
	}
	if n := i.Logs(first) + i.Logs(second); n != 0 {
		t.Errorf("a token is in %d lines of the log", n)
	}
}

// TLS with a certificate of one's own, which is replaced while portwatcher runs:
// new connections have the new one, open streams go on, and what is no pair is
// not taken.
func TestWebTLS(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := idle(t, "web")
	address, folder := loopback(9888), t.TempDir()
	certificate, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	pool := x509.NewCertPool()
	install := func(serial int64) {
		certPEM, keyPEM := selfSigned(t, address, serial)
		pool.AppendCertsFromPEM(certPEM)
		replace(t, key, keyPEM)
		replace(t, certificate, certPEM)
	}
	install(1)
	i := serve(t, serving{address: address, more: []string{"--tls-cert", certificate, "--tls-key", key}})
	i.url = "https://" + address
	i.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	streaming := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	stream := openStreamWith(t, i.url+"/api/v1/events?after=0", streaming, nil)
	i.Marker(t, web, 1000)
	stream.waitMore(t, 0)
	stream.waitID(t, i.LastID())

	serial := func() int64 {
		t.Helper()
		a := i.mustAsk(t, "/api/v1/status")
		if a.StatusCode != http.StatusOK || a.ProtoMajor != 2 {
			t.Errorf("%s %s, want 200 by HTTP/2", a.Proto, a.Status)
		}
		return a.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("the certificate has the serial number %d", got)
	}
	install(2)
	harness.Eventually(t, "the new certificate is in use", func() string {
		if got := serial(); got != 2 {
			return fmt.Sprintf("it is %d", got)
		}
		return ""
	})
	_, otherKey := selfSigned(t, address, 3)
	replace(t, key, otherKey)
	harness.Eventually(t, "a key of another certificate is logged", func() string {
		if got := serial(); got != 2 { // a request makes it check the files
			t.Fatalf("the certificate has the serial number %d", got)
		}
		if i.Logs("the content read before stays in use", key) == 0 {
			return "no such line"
		}
		return ""
	})
	i.Marker(t, web, 1001)
	stream.waitID(t, i.LastID())
	sameLines(t, "the stream", stream.close(), i.Lines())
	if stream.connections != 1 {
		t.Errorf("the stream was connected %d times, want once", stream.connections)
	}
	old := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if conn, err := tls.DialWithDialer(&net.Dialer{Timeout: harness.Patience}, "tcp", address, old); err == nil {
		t.Error("it speaks TLS 1.1")
		conn.Close()
	}
}

// selfSigned makes a certificate for the host of an address, and its key.
func selfSigned(t *testing.T, address string, serial int64) (certificate, key []byte) {
	t.Helper()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return cert.SelfSigned(t, serial, host)
}
