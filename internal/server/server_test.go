package server

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/server/api"
)

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
		"a folder":              {Options{Listen: ":0", TokenFile: folder}, []string{"--token-file, PORTWATCHER_TOKEN_FILE", folder, "is a folder", "TOKEN_FILE in Compose"}},
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
	s := start(t, func(_ *Options, l *limits) { l.requests, l.patience = 1, 10*time.Millisecond })
	if !s.requests.tryEnter() {
		t.Fatal("no request is allowed")
	}
	s.problem(t, http.StatusServiceUnavailable, "/api/v1/ports")
	s.problem(t, http.StatusServiceUnavailable, "/api/v1/containers")
	// They have their own share.
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		if response, body := s.get(t, path); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s: %s", path, response.Status, body)
		}
	}
	s.requests.leave()
	decode[api.Ports](t, s, "/api/v1/ports")
}
