package server

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/server/api"
)

func writeFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// expire makes the next request check the files again.
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

func TestHostsThatArePartOfRebinding(t *testing.T) {
	s := start(t, func(o *Options, _ *limits) { o.AllowedHosts = []string{"Watch.example.com"} })
	for host, allowed := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:9888": true, "[::1]:9888": true, "[::1]": true, "localhost:80": true, "a.localhost": true,
		"portwatcher:9888": true, "watch.example.com": true, "WATCH.example.com.:1": true, "192.168.1.5": true,
		"evil.example.com": false, "evil.example.com:9888": false, "127.0.0.1.nip.io": false, "localhost.evil.com": false,
	} {
		response, body := s.get(t, "/api/v1/ports", "Host", host)
		if !allowed {
			asProblem(t, http.StatusForbidden, response, body)
		} else if response.StatusCode != http.StatusOK {
			t.Errorf("at %s: %s", host, response.Status)
		}
		// What scrapes and probes by the name of a service or a proxy is not refused.
		for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
			if response, body := s.get(t, path, "Host", host); response.StatusCode != http.StatusOK {
				t.Errorf("%s at %s: %s: %s", path, host, response.Status, body)
			}
		}
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
