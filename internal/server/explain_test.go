package server

import (
	"net/http"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	run := start(t, nil)
	for _, test := range []struct {
		query  string
		status int
		want   string
	}{
		{"?target=web:80", http.StatusOK, `"target":"web:80"`},
		{"?target=web:80&from=db", http.StatusOK, `"from":"db"`},
		{"", http.StatusBadRequest, "target"},
		{"?target=web", http.StatusBadRequest, "allowed is web:80"},
		{"?target=web:80&target=web:81", http.StatusBadRequest, "once"},
		{"?target=busy:80", http.StatusTooManyRequests, "one a second"},
		{"?port=80", http.StatusBadRequest, "allowed are target, from"},
	} {
		response, body := run.get(t, "/api/v1/explain"+test.query)
		if response.StatusCode != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s: %s: %s; want %d and %q", test.query, response.Status, body, test.status, test.want)
		}
		if later := response.Header.Get("Retry-After") != ""; later != (test.status == http.StatusTooManyRequests) {
			t.Errorf("%s: Retry-After is %q", test.query, response.Header.Get("Retry-After"))
		}
	}
	off := start(t, func(o *Options, _ *limits) { o.Explain = nil })
	if response, body := off.get(t, "/api/v1/explain?target=web:80"); response.StatusCode != http.StatusForbidden || !strings.Contains(body, "--explain") {
		t.Errorf("off: %s: %s", response.Status, body)
	}
}
