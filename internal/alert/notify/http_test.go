package notify

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"portwatcher/internal/testutil/cert"
)

const hookToken = "T0KEN-of-the-hook"

// hook starts an HTTP server and returns a webhook for it, whose URL has a secret.
func hook(t testing.TB, handler http.HandlerFunc) Receiver {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URLFile: secretFile(t, server.URL+"/"+hookToken+"?key=S3CRET")}})
}

// reset ends a connection as a crash does: without what is left to send.
func reset(t testing.TB, w http.ResponseWriter, before string) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = io.WriteString(connection, before)
	_ = connection.(*net.TCPConn).SetLinger(0)
	_ = connection.Close()
}

// TestMisbehavingReceiver sends to a server that answers by script.
func TestMisbehavingReceiver(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			fmt.Fprintf(w, "the answer to %s", r.URL) // it shows the secret, as many do
		}
	}
	redirect := func(code int) http.HandlerFunc { return status(code, "Location", other.URL+"/elsewhere/"+hookToken) }
	date := time.Now().Add(2 * time.Hour).UTC().Format(http.TimeFormat)
	for name, test := range map[string]struct {
		answer    http.HandlerFunc
		status    int
		delivered bool
		gone      bool
		after     [2]time.Duration // least and most
		err       string           // part of it
	}{
		"200":                      {answer: status(200), status: 200, delivered: true},
		"202":                      {answer: status(202), status: 202, delivered: true},
		"204":                      {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, status: 204, delivered: true},
		"301":                      {answer: redirect(301), status: 301, err: "301 Moved Permanently with a redirect to http://"},
		"302":                      {answer: redirect(302), status: 302, err: "redirects are not followed"},
		"303":                      {answer: redirect(303), status: 303, err: "redirects are not followed"},
		"307":                      {answer: redirect(307), status: 307, err: "redirects are not followed"},
		"308":                      {answer: redirect(308), status: 308, err: "redirects are not followed"},
		"304 without Location":     {answer: status(304), status: 304, err: "304 Not Modified: redirects"},
		"400":                      {answer: status(400), status: 400, err: "400 Bad Request"},
		"401":                      {answer: status(401), status: 401, err: "401 Unauthorized"},
		"404":                      {answer: status(404), status: 404, err: "404 Not Found"},
		"408":                      {answer: status(408), status: 408, err: "408 Request Timeout"},
		"410":                      {answer: status(410), status: 410, gone: true, err: "410 Gone"},
		"413":                      {answer: status(413), status: 413, err: "413"},
		"425":                      {answer: status(425), status: 425, err: "425"},
		"429 seconds":              {answer: status(429, "Retry-After", "120"), status: 429, after: [2]time.Duration{2 * time.Minute, 2 * time.Minute}, err: "429"},
		"429 date":                 {answer: status(429, "Retry-After", date), status: 429, after: [2]time.Duration{time.Hour + 58*time.Minute, 2 * time.Hour}, err: "429"},
		"429 past":                 {answer: status(429, "Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"), status: 429, err: "429"},
		"429 garbled":              {answer: status(429, "Retry-After", "soon"), status: 429, err: "429"},
		"429 for years":            {answer: status(429, "Retry-After", "4000000000"), status: 429, after: [2]time.Duration{24 * time.Hour, 24 * time.Hour}, err: "429"},
		"500":                      {answer: status(500), status: 500, err: "500 Internal Server Error"},
		"503":                      {answer: status(503, "Retry-After", "5"), status: 503, after: [2]time.Duration{5 * time.Second, 5 * time.Second}, err: "503"},
		"a status of its own":      {answer: status(599), status: 599, err: "599"},
		"reset before the answer":  {answer: func(w http.ResponseWriter, _ *http.Request) { reset(t, w, "") }, err: "reset by peer"},
		"reset in the status line": {answer: func(w http.ResponseWriter, _ *http.Request) { reset(t, w, "HTTP/1.1 20") }, err: "malformed HTTP"},
		"reset in the text": {answer: func(w http.ResponseWriter, _ *http.Request) {
			reset(t, w, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nnot all")
		}, status: 200, delivered: true},
		"no HTTP":             {answer: func(w http.ResponseWriter, _ *http.Request) { reset(t, w, "SSH-2.0-OpenSSH_9.2\r\n") }, err: "malformed HTTP"},
		"an answer of 256 MB": {answer: flood(t, 200), status: 200, delivered: true},
		"a refusal of 256 MB": {answer: flood(t, 500), status: 500, err: "500"},
		"a header of 10 MB":   {answer: status(200, "X-Large", strings.Repeat("x", 10<<20)), err: "header"},
		"control characters":  {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); fmt.Fprint(w, "\x1b[31mred\u202e") }, status: 500, err: "500"},
		"the secret in base64s": {answer: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(401)
			fmt.Fprint(w, strings.ToLower(r.URL.String()))
		}, status: 401, err: "401"},
	} {
		t.Run(name, func(t *testing.T) {
			o := hook(t, test.answer).Send(t.Context(), one())
			if o.Status != test.status || o.Delivered != test.delivered || o.Gone != test.gone || (o.Err == nil) != test.delivered {
				t.Errorf("the outcome is %+v", o)
			}
			if o.Err != nil && !strings.Contains(o.Err.Error(), test.err) {
				t.Errorf("error %v, want %q in it", o.Err, test.err)
			}
			if o.RetryAfter < test.after[0] || o.RetryAfter > test.after[1] {
				t.Errorf("try again after %s, want %s", o.RetryAfter, test.after)
			}
			if strings.ContainsAny(o.Response, "\x1b\u202e") {
				t.Errorf("the response %q has control characters", o.Response)
			}
			noSecret(t, o, hookToken, strings.ToLower(hookToken), "S3CRET")
		})
	}
	if elsewhere.Load() != 0 {
		t.Errorf("%d requests followed a redirect", elsewhere.Load())
	}
}

// flood answers without end, until the client takes no more. It fails the test where the client
// takes 256 MB, which no buffer on the way holds.
func flood(t *testing.T, code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		line := strings.Repeat("x", 1<<20)
		for range 256 {
			if _, err := io.WriteString(w, line); err != nil {
				return
			}
		}
		t.Error("the client took 256 MB")
	}
}

// A receiver that is not there, or does not answer, ends with the context, and its error does
// not show the URL.
func TestSilentReceiver(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // from then on the server notices that the client has gone
			<-r.Context().Done()
		},
		"hangs in the header": func(w http.ResponseWriter, _ *http.Request) {
			connection, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer connection.Close()
			_, _ = io.WriteString(connection, "HTTP/1.1 200 OK\r\nX-")
			_, _ = io.Copy(io.Discard, connection) // until the client has gone
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := hook(t, answer)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			o := r.Send(ctx, one())
			if o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), "no answer in time") {
				t.Errorf("the outcome is %+v", o)
			}
			noSecret(t, o, hookToken, "S3CRET", "127.0.0.1")
			stopped, stop := context.WithCancel(t.Context())
			stop()
			if o := r.Send(stopped, one()); o.Err == nil || !strings.Contains(o.Err.Error(), "stopped") {
				t.Errorf("after the stop: %+v", o)
			}
		})
	}
	t.Run("slow bytes after the status", func(t *testing.T) {
		r := hook(t, func(w http.ResponseWriter, request *http.Request) {
			for {
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-request.Context().Done():
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if o := r.Send(ctx, one()); !o.Delivered || o.Status != 200 {
			t.Errorf("the outcome is %+v; want it delivered: the status has come", o)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := listener.Addr().String()
		listener.Close()
		r := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret("http://" + address + "/" + hookToken)}})
		o := r.Send(t.Context(), one())
		if o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), "connection refused") {
			t.Errorf("the outcome is %+v", o)
		}
		noSecret(t, o, hookToken, address)
	})
	t.Run("no such host", func(t *testing.T) {
		r := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret("https://eo1234.invalid/" + hookToken)}})
		o := r.Send(t.Context(), one())
		if o.Delivered || o.Err == nil {
			t.Errorf("the outcome is %+v", o)
		}
		noSecret(t, o, hookToken, "eo1234")
	})
}

// Without a context that ends, a try ends after the timeout.
func TestTimeout(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 15 seconds")
	}
	t.Parallel()
	released := make(chan struct{})
	r := hook(t, func(http.ResponseWriter, *http.Request) { <-released })
	defer close(released)
	began := time.Now()
	o := r.Send(context.Background(), one())
	if took := time.Since(began); o.Err == nil || took < Timeout-time.Second || took > 2*Timeout {
		t.Errorf("%+v after %s, want an error after %s", o, took, Timeout)
	}
}

// TLS is verified: with the system's certificates, or those of a file, which is read again.
func TestTLSOfWebhook(t *testing.T) {
	certificate, key := cert.SelfSigned(t, 1, "127.0.0.1")
	other, _ := cert.SelfSigned(t, 2, "127.0.0.1")
	elsewhere, elsewhereKey := cert.SelfSigned(t, 3, "other.example.org")
	serve := func(certificate, key []byte) string {
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server.URL + "/" + hookToken
	}
	url := serve(certificate, key)
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(certificate)
	if o := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret(url)}}).Send(t.Context(), one()); o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), "certificate") {
		t.Errorf("with the system's certificates: %+v", o)
	}
	r := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret(url), CAFile: file}})
	if o := r.Send(t.Context(), one()); !o.Delivered {
		t.Errorf("with the private CA: %+v", o)
	}
	write(other)
	o := r.Send(t.Context(), one())
	if o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), "certificate") {
		t.Errorf("after the CA has changed: %+v", o)
	}
	noSecret(t, o, hookToken)
	write(elsewhere)
	r = receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret(serve(elsewhere, elsewhereKey)), CAFile: file}})
	if o := r.Send(t.Context(), one()); o.Delivered || o.Err == nil {
		t.Errorf("with the certificate of another host: %+v", o)
	}
	write([]byte("no certificate"))
	if _, err := New(ReceiverConfig{Name: "ops", Webhook: &WebhookConfig{URL: NewSecret(url), CAFile: file}}, Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a CA file without certificates: error %v, want one that names it", err)
	}
}
