package page

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

func get(t *testing.T, method, path string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestEveryFileIsServed(t *testing.T) {
	assets, err := load(files)
	if err != nil {
		t.Fatal(err)
	}
	for path, a := range assets {
		answer := get(t, "GET", path, nil)
		if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != a.contentType {
			t.Errorf("%s: %s, %q; want 200, %q", path, answer.Status, answer.Header.Get("Content-Type"), a.contentType)
		}
		if answer.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: Cache-Control %q; want it revalidated", path, answer.Header.Get("Cache-Control"))
		}
		again := get(t, "GET", path, http.Header{"If-None-Match": {answer.Header.Get("ETag")}})
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("%s: %s to its own ETag; want 304", path, again.Status)
		}
		if head := get(t, "HEAD", path, nil); head.StatusCode != http.StatusOK {
			t.Errorf("%s: %s to HEAD", path, head.Status)
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/assets/", 404}, {"GET", "/assets", 404}, {"GET", "/index.html", 404}, {"GET", "/assets/index.html", 404},
		{"GET", "/assets/../page.go", 404}, {"GET", "/static/app.js", 404}, {"GET", "/assets/app.js/", 404},
		{"POST", "/", 405}, {"DELETE", "/assets/app.js", 405}, {"OPTIONS", "/", 405},
	} {
		answer := get(t, test.method, test.path, nil)
		var body struct {
			Status int
			Detail string
		}
		if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
			t.Errorf("%s %s: %v", test.method, test.path, err)
		}
		if answer.StatusCode != test.status || body.Status != test.status || body.Detail == "" {
			t.Errorf("%s %s: %s %+v; want %d with a detail", test.method, test.path, answer.Status, body, test.status)
		}
		if kind := answer.Header.Get("Content-Type"); kind != "application/problem+json" {
			t.Errorf("%s %s: Content-Type %q", test.method, test.path, kind)
		}
		if test.status == 405 && answer.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow %q", test.method, test.path, answer.Header.Get("Allow"))
		}
	}
}

// What the page refers to is there, and nothing comes from elsewhere or is
// inline: the security policy would stop it in the browser.
func TestFilesKeepToThePolicy(t *testing.T) {
	assets, err := load(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(string(assets["/"].body), -1) {
		if _, is := assets["/"+found[1]]; !is && !strings.HasPrefix(found[1], "#") {
			t.Errorf("index.html refers to %q, which is not there", found[1])
		}
	}
	forbidden := regexp.MustCompile(`(?i)<style|style=|<script>|\bon[a-z]+="|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|@import|(?-i:url\()`)
	for path, a := range assets {
		if bad := forbidden.Find(a.body); bad != nil {
			t.Errorf("%s has %q", path, bad)
		}
		for _, found := range regexp.MustCompile(`from '([^']*)'`).FindAllStringSubmatch(string(a.body), -1) {
			if _, is := assets["/assets/"+strings.TrimPrefix(found[1], "./")]; !is {
				t.Errorf("%s imports %q, which is not there", path, found[1])
			}
		}
	}
}

func TestLoadRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"content type": {"static/index.html": {}, "static/font.woff2": {}},
		"index.html":   {"static/app.js": {}},
		"read":         {},
	} {
		if _, err := load(files); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("load: %v; want an error about %q", err, name)
		}
	}
}
