package client

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"portwatcher/internal/server/api"
)

var quick = timing{silence: 200 * time.Millisecond, retryFirst: time.Millisecond, retryMost: 10 * time.Millisecond, waitTurn: 20 * time.Millisecond}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.timing = quick
	t.Cleanup(c.Close)
	return c
}

// serve starts a server whose answers the test writes.
func serve(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", api.MediaTypeProblem)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(api.Problem{Title: http.StatusText(status), Status: status, Detail: detail})
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}

func TestBadOptions(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{
		{}, {Server: "localhost:9888"}, {Server: "ftp://localhost"}, {Server: "http://"}, {Server: "http://localhost/path?x=1"}, {Server: "http://localhost?x=1"},
		{Server: "http://user:secret@localhost"}, {Server: "http://localhost", TokenFile: empty + "-none"}, {Server: "http://localhost", TokenFile: empty},
		{Server: "https://localhost", CAFile: empty}, {Server: "https://localhost", CAFile: empty + "-none"},
	} {
		if _, err := New(o); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestRequests(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(" secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var asked *http.Request
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r
		switch r.URL.Path {
		case api.PathStatus:
			answer(w, api.Status{Version: "1.2.3"})
		case api.PathPorts:
			problem(w, http.StatusBadRequest, "port: wrong")
		case api.PathContainers:
			problem(w, http.StatusUnauthorized, "a token is needed")
		default:
			http.Redirect(w, r, "http://elsewhere.example.com/", http.StatusFound)
		}
	})
	c := newClient(t, Options{Server: server + "/", TokenFile: token})
	status, err := c.Status(t.Context())
	if err != nil || status.Version != "1.2.3" || asked.Header.Get("Authorization") != "Bearer secret" {
		t.Errorf("%+v, %v, %v", status, err, asked.Header)
	}
	_, err = c.Ports(t.Context(), url.Values{"port": {"x"}})
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusBadRequest || !strings.Contains(err.Error(), "port: wrong") || !strings.Contains(err.Error(), server) {
		t.Error(err)
	}
	if _, err = c.Containers(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "--token-file") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if _, err = c.Events(t.Context(), nil); !errors.As(err, &p) || p.Status != http.StatusFound {
		t.Error(err)
	}
	// A proxy may serve it under a path.
	proxy := serve(t, http.StripPrefix("/pw", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, api.Status{Version: r.URL.Path})
	})).ServeHTTP)
	c = newClient(t, Options{Server: proxy + "/pw/"})
	if status, err := c.Status(t.Context()); err != nil || status.Version != api.PathStatus {
		t.Errorf("under a path: %+v, %v", status, err)
	}
	c = newClient(t, Options{Server: "http://127.0.0.1:1"})
	if _, err = c.Status(t.Context()); err == nil || strings.Contains(err.Error(), "Get \"") {
		t.Error(err)
	}
}

func TestTrust(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, api.Status{Version: "1"}) }))
	defer s.Close()
	s.Config.ErrorLog = nil
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, Options{Server: s.URL, CAFile: file}).Status(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := newClient(t, Options{Server: s.URL}).Status(t.Context()); err == nil {
		t.Error("an unknown certificate is trusted")
	}
}

func TestWait(t *testing.T) {
	var turn atomic.Int64
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("port") == "1":
			problem(w, http.StatusRequestTimeout, "nothing")
		case r.URL.Query().Get("port") == "x":
			problem(w, http.StatusBadRequest, "port: wrong")
		case turn.Add(1) == 1:
			problem(w, http.StatusServiceUnavailable, "it starts")
		case turn.Load() == 2:
			problem(w, http.StatusRequestTimeout, "nothing")
		default:
			answer(w, api.Ports{Time: time.Now()})
		}
	})
	c := newClient(t, Options{Server: server})
	if _, err := c.Wait(t.Context(), url.Values{"port": {"80"}}, 10*time.Second); err != nil || turn.Load() != 3 {
		t.Errorf("%v after %d turns", err, turn.Load())
	}
	query := url.Values{"port": {"1"}}
	for _, timeout := range []time.Duration{0, 50 * time.Millisecond, 600 * time.Millisecond} {
		if _, err := c.Wait(t.Context(), query, timeout); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
	}
	if query.Has("wait") {
		t.Error("the caller's query is changed")
	}
	var p *api.Problem
	if _, err := c.Wait(t.Context(), url.Values{"port": {"x"}}, time.Minute); !errors.As(err, &p) || p.Status != http.StatusBadRequest {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Wait(ctx, query, time.Minute); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	gone := newClient(t, Options{Server: "http://127.0.0.1:1"})
	if _, err := gone.Wait(t.Context(), nil, 300*time.Millisecond); !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a server that is not there: %v", err)
	}
}

// TestStreamResumes breaks the stream in every way, and wants each event once.
func TestStreamResumes(t *testing.T) {
	var turn atomic.Int64
	var resumed []string
	event := func(w io.Writer, id int) {
		fmt.Fprintf(w, "id: %d\nevent: opened\ndata: {\"id\":%d,\"time\":\"2026-11-22T18:36:28Z\",\"type\":\"opened\",\"transient\":false}\n\n", id, id)
	}
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		resumed = append(resumed, r.Header.Get("Last-Event-ID"))
		n := turn.Add(1)
		if n == 2 {
			problem(w, http.StatusServiceUnavailable, "too many")
			return
		}
		w.Header().Set("Content-Type", api.MediaTypeStream)
		fmt.Fprint(w, "retry: 2000\n\nevent: hello\ndata: {\"last_id\":10,\"version\":\"1\"}\n\n")
		switch n {
		case 1: // breaks off within an event
			event(w, 11)
			fmt.Fprint(w, "id: 12\nevent: opened\ndata: {\"id\":12,")
		case 3: // is ended
			event(w, 12)
			fmt.Fprint(w, ": heartbeat\n\nevent: end\ndata: {\"resume_after\":20,\"reason\":\"slow\"}\n\n")
		case 4: // falls silent
			event(w, 21)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case 5: // its events are not kept any more
			fmt.Fprint(w, "event: reset\ndata: {\"first_id\":31,\"last_id\":40}\n\n")
		case 6:
			event(w, 31)
		default:
			event(w, 32)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	})
	c := newClient(t, Options{Server: server})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	err := c.Stream(ctx, url.Values{"container": {"web"}}, func(m Message) error {
		switch {
		case m.Event != nil:
			got = append(got, fmt.Sprint(m.Event.ID))
			if m.Event.ID == 32 {
				cancel()
			}
		case m.Reset != nil:
			got = append(got, "reset")
		case m.Down != nil:
			got = append(got, "down")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "11 down down 12 down 21 down reset down 31 down 32"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
	if want := ",11,11,20,21,30,31"; !strings.HasPrefix(strings.Join(resumed, ","), want) {
		t.Errorf("resumed after %q, want %q", resumed, want)
	}
}

func TestStreamEndsForGood(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("port") {
			problem(w, http.StatusUnauthorized, "a token is needed")
			return
		}
		w.Header().Set("Content-Type", api.MediaTypeStream)
		fmt.Fprint(w, "event: hello\ndata: {\"last_id\":10,\"version\":\"1\"}\n\n")
	})
	c := newClient(t, Options{Server: server})
	var p *api.Problem
	err := c.Stream(t.Context(), url.Values{"port": {"1"}}, func(Message) error { return nil })
	if !errors.As(err, &p) || p.Status != http.StatusUnauthorized {
		t.Error(err)
	}
	if err := c.Stream(t.Context(), nil, func(Message) error { return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("id: 1\nevent: opened\ndata: {\"id\":1}\n\n"))
	f.Add([]byte("event: end\ndata: {\"resume_after\":5}\n\nevent: reset\ndata: {}\n\n: x\n\ndata\n\n\r\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := &stream{client: &Client{timing: quick}, query: url.Values{}, handle: func(m Message) error {
			if m.Event == nil && m.Hello == nil && m.Reset == nil {
				t.Errorf("%+v", m)
			}
			return nil
		}}
		if err := s.read(strings.NewReader(string(content)), func() {}); err == nil {
			t.Error("a stream has no end without a reason")
		}
	})
}
