package server

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/server/api"
)

func writeFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// expire makes the next request look at the files again.
func expire[T any](r *reloaded[T]) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.checked = time.Time{}
}

func TestToken(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "token"), "  secret-1\n")
	s := start(t, func(o *Options, _ *limits) {
		o.TokenFile = file
		o.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") })
	})
	private := []string{"/api/v1/status", "/api/v1/ports", "/api/v1/containers", "/api/v1/events", "/api/v1/openapi.yaml", "/api/v1/nothing", "/api/", "/metrics"}
	for _, path := range private {
		for _, authorization := range []string{"", "Bearer", "Bearer secret-2", "Bearer secret-1x", "Basic secret-1", "secret-1"} {
			response, body := s.get(t, path, "Authorization", authorization)
			asProblem(t, http.StatusUnauthorized, response, body)
			if got := response.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `Bearer realm=`) || strings.Contains(got, "invalid_token") != (authorization != "") {
				t.Errorf("%s, %q: WWW-Authenticate: %s", path, authorization, got)
			}
		}
		response, body := s.get(t, path, "Authorization", "bearer secret-1", "Host", "any.example.com")
		if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNotFound {
			t.Errorf("%s with the token: %s: %s", path, response.Status, body)
		}
	}
	s.problem(t, http.StatusUnauthorized, "/api/v1/events", "Accept", api.MediaTypeStream)
	s.problem(t, http.StatusUnauthorized, "/api/v1/ports?token=secret-1&access_token=secret-1")
	for _, path := range []string{"/", "/assets/app.js", "/healthz", "/readyz"} {
		if response, _ := s.get(t, path); response.StatusCode != http.StatusOK {
			t.Errorf("%s without the token: %s", path, response.Status)
		}
	}

	writeFile(t, file, "secret-two")
	expire(s.token)
	s.problem(t, http.StatusUnauthorized, "/api/v1/ports", "Authorization", "Bearer secret-1")
	decode[api.Ports](t, s, "/api/v1/ports", "Authorization", "Bearer secret-two")
	for _, bad := range []string{"", " \n", "two words", "\x00", strings.Repeat("x", maxToken+1)} {
		writeFile(t, file, bad)
		expire(s.token)
		decode[api.Ports](t, s, "/api/v1/ports", "Authorization", "Bearer secret-two") // the last good one stays
		s.problem(t, http.StatusUnauthorized, "/api/v1/ports", "Authorization", "Bearer "+strings.TrimSpace(strings.ReplaceAll(bad, "\x00", "")))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	expire(s.token)
	decode[api.Ports](t, s, "/api/v1/ports", "Authorization", "Bearer secret-two")
	for _, entry := range s.logs.AllEntries() {
		if line, err := entry.String(); err != nil || strings.Contains(line, "secret") || strings.Contains(line, "two words") {
			t.Errorf("the log has the token: %s (%v)", line, err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	folder := t.TempDir()
	empty, text := writeFile(t, filepath.Join(folder, "empty"), "\n"), writeFile(t, filepath.Join(folder, "text"), "no certificate")
	logger, _ := quietLogger()
	for name, test := range map[string]struct {
		options Options
		want    []string
	}{
		"no port":               {Options{Listen: "localhost"}, []string{"--listen", "localhost", "HOST:PORT"}},
		"an empty token":        {Options{Listen: ":0", TokenFile: empty}, []string{"--token-file", empty, "empty"}},
		"no token file":         {Options{Listen: ":0", TokenFile: folder + "/none"}, []string{"--token-file", "/none"}},
		"a folder":              {Options{Listen: ":0", TokenFile: folder}, []string{"--token-file", folder}},
		"a key that is missing": {Options{Listen: ":0", TLSCert: text}, []string{"--tls-cert", "--tls-key"}},
		"no certificate":        {Options{Listen: ":0", TLSCert: text, TLSKey: text}, []string{"--tls-cert", text}},
	} {
		test.options.Logger, test.options.History = logger, newFakeHistory()
		_, err := New(test.options)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
}

func TestAnAddressInUseIsSaid(t *testing.T) {
	first := start(t, nil)
	second, err := New(Options{Listen: first.Addr().String(), Logger: first.log, History: first.history, Capture: first.capture})
	if err != nil {
		t.Fatal(err)
	}
	err = second.Serve(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "--listen") {
		t.Error(err)
	}
}

func TestWarnsWhereEverybodyCanRead(t *testing.T) {
	token := writeFile(t, filepath.Join(t.TempDir(), "token"), "secret")
	for _, test := range []struct {
		listen, token string
		warnings      int
	}{{"127.0.0.1:0", "", 0}, {"[::1]:0", "", 0}, {"0.0.0.0:0", "", 1}, {":0", "", 1}, {"0.0.0.0:0", token, 0}} {
		s := start(t, func(o *Options, _ *limits) { o.Listen, o.TokenFile = test.listen, test.token })
		_, portText, err := net.SplitHostPort(s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s.url = "http://localhost:" + portText
		if test.listen != "[::1]:0" {
			s.url = "http://127.0.0.1:" + portText
			s.get(t, "/healthz") // it serves by now
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		warned := 0
		for _, entry := range s.logs.AllEntries() {
			if entry.Level == logrus.WarnLevel {
				warned++
			}
		}
		if warned != test.warnings {
			t.Errorf("%+v: %d warnings", test, warned)
		}
	}
}

func TestHostsThatArePartOfRebinding(t *testing.T) {
	s := start(t, func(o *Options, _ *limits) { o.AllowedHosts = []string{"Watch.example.com"} })
	for host, allowed := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:9888": true, "[::1]:9888": true, "[::1]": true, "localhost:80": true, "a.localhost": true,
		"portwatcher:9888": true, "watch.example.com": true, "WATCH.example.com.:1": true, "192.168.1.5": true,
		"evil.example.com": false, "evil.example.com:9888": false, "127.0.0.1.nip.io": false, "localhost.evil.com": false,
	} {
		for _, path := range []string{"/api/v1/ports", "/metrics"} {
			response, body := s.get(t, path, "Host", host)
			if !allowed {
				asProblem(t, http.StatusForbidden, response, body)
			} else if response.StatusCode != http.StatusOK {
				t.Errorf("%s at %s: %s", path, host, response.Status)
			}
		}
	}
	decode[map[string]string](t, s, "/healthz", "Host", "evil.example.com")
}

func TestOnlyReading(t *testing.T) {
	s := start(t, nil)
	for _, path := range []string{"/", "/api/v1/ports", "/api/v1/events", "/metrics", "/healthz", "/nothing"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			response, body := s.request(t, method, path, nil)
			asProblem(t, http.StatusMethodNotAllowed, response, body)
			if response.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: Allow %q", method, path, response.Header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{"/api/v1/ports", "/api/v1/status", "/api/v1/containers", "/api/v1/events", "/metrics", "/healthz"} {
		response, body := s.request(t, http.MethodHead, path, nil)
		if response.StatusCode != http.StatusOK || body != "" || response.Header.Get("Content-Type") == "" {
			t.Errorf("HEAD %s: %s %q", path, response.Status, body)
		}
	}
	response, body := s.request(t, http.MethodGet, "/api/v1/ports", strings.NewReader("x"))
	asProblem(t, http.StatusRequestEntityTooLarge, response, body)
	response, body = s.request(t, http.MethodGet, "/api/v1/ports", io.MultiReader(strings.NewReader("x"))) // chunked
	asProblem(t, http.StatusRequestEntityTooLarge, response, body)
	s.problem(t, http.StatusRequestURITooLong, "/api/v1/ports?container="+strings.Repeat("x", maxAddress))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/v1/ports", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Long", strings.Repeat("x", 2*maxHeader))
	// The connection is closed with the rest unread, which may overtake the answer.
	if response, err := s.client.Do(request); err == nil {
		response.Body.Close()
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a long header: %s", response.Status)
		}
	}
	for _, path := range []string{"/nothing", "/api", "/api/v2/ports", "/api/v1/ports/", "/assets/", "/api/v1/..%2f", "/\xff"} {
		s.problem(t, http.StatusNotFound, path)
	}
}

func TestHeaders(t *testing.T) {
	s := start(t, func(o *Options, _ *limits) {
		o.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "no-cache") })
	})
	for _, path := range []string{"/", "/api/v1/ports", "/metrics", "/healthz", "/nothing", "/api/v1/ports?x=1"} {
		response, _ := s.get(t, path)
		for name := range headers {
			if response.Header.Get(name) == "" {
				t.Errorf("%s has no %s", path, name)
			}
		}
		if path != "/" && response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %s", path, response.Header.Get("Cache-Control"))
		}
		if policy := response.Header.Get("Content-Security-Policy"); strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'") {
			t.Error(policy)
		}
	}
}

func TestCompression(t *testing.T) {
	s := start(t, nil)
	s.capture.open = manyPorts(100)
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

// issue writes a new self-signed pair for localhost, and returns its pool.
func issue(t testing.TB, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	writeFile(t, certFile, string(cert))
	writeFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

func TestTLS(t *testing.T) {
	folder := t.TempDir()
	certFile, keyFile := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	first := issue(t, certFile, keyFile)
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
	s.capture.set(func(c *fakeCapture) { c.open = append(c.open, openPort(db, port.TCP, "::", 1, port.Network)) })

	second := issue(t, certFile, keyFile)
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

func TestAPanicIsOneAnswer(t *testing.T) {
	s := start(t, func(o *Options, _ *limits) {
		o.Page = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") })
	})
	if p := s.problem(t, http.StatusInternalServerError, "/"); strings.Contains(p.Detail, "oops") {
		t.Errorf("%+v", p)
	}
	decode[api.Ports](t, s, "/api/v1/ports")
	if logged(s, "panic: oops") != 1 {
		t.Error("it is not logged")
	}
}

func TestStopWaitsForRequests(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	s := start(t, func(o *Options, _ *limits) {
		o.Page = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(inside)
			select {
			case <-release:
			case <-r.Context().Done():
			}
		})
	})
	go func() {
		if response, err := s.client.Get(s.url + "/"); err == nil {
			response.Body.Close()
		}
	}()
	<-inside
	began := time.Now()
	if err := s.stop(); err != nil { // which breaks it off
		t.Error(err)
	}
	if took := time.Since(began); took < s.limits.stopTime/2 {
		t.Errorf("the request had %s to end", took)
	}
	close(release)
}

func TestRequestsAreBounded(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	s := start(t, func(o *Options, l *limits) {
		l.requests, l.patience = 1, 10*time.Millisecond
		o.History = blockedHistory{newFakeHistory(), inside, release}
	})
	done := make(chan struct{})
	go func() { defer close(done); s.get(t, "/api/v1/events") }()
	<-inside
	s.problem(t, http.StatusServiceUnavailable, "/api/v1/ports")
	s.problem(t, http.StatusServiceUnavailable, "/metrics")
	close(release)
	<-done
	decode[api.Ports](t, s, "/api/v1/ports")
}

// blockedHistory holds its first reader up.
type blockedHistory struct {
	*fakeHistory
	inside, release chan struct{}
}

func (h blockedHistory) FirstID(ctx context.Context) (uint64, error) {
	close(h.inside)
	select {
	case <-h.release:
	case <-ctx.Done():
	}
	return h.fakeHistory.FirstID(ctx)
}

func TestAFullServerDoesNotHang(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) { l.connections = 2 })
	first, second := s.stream(t, ""), s.stream(t, "")
	expect[api.Hello](first, api.StreamHello)
	expect[api.Hello](second, api.StreamHello)
	kerneltest.Eventually(t, "two connections", func() bool { return len(s.streams) == 2 })
	go first.close() // a third connection is served when one has ended
	decode[map[string]string](t, s, "/healthz")
}
