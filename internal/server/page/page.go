// Package page has the live page: static files, embedded, and the handler that serves them. The
// page reads the API under /api/v1 from the browser.
//
// The files contain nothing secret and are served without the token. There is no build step: the
// browser receives static/ as it is. The server sets the security headers around this handler;
// the files have no inline script, no inline style and load nothing from elsewhere.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"time"

	"portwatcher/internal/server/api"
)

//go:embed static
var files embed.FS

// contentTypes are the types of the files in static; mime.TypeByExtension depends on the machine.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

type asset struct {
	body        []byte
	contentType string
	etag        string
}

// Handler serves the page at "/" and its files at "/assets/<name>", to GET and HEAD. Every answer
// has an ETag of its content and has to be revalidated, so that a new version shows at once and
// an unchanged one costs no transfer. It is safe for concurrent use. It panics if the embedded
// files are wrong, which the tests rule out.
func Handler() http.Handler {
	assets, err := load(files)
	if err != nil {
		panic(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			problem(w, http.StatusMethodNotAllowed, fmt.Sprintf("method %q: allowed are GET and HEAD", r.Method))
			return
		}
		a, found := assets[r.URL.Path]
		if !found {
			problem(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %q; the page is at \"/\"", r.URL.Path))
			return
		}
		header := w.Header()
		header.Set("Content-Type", a.contentType)
		header.Set("Cache-Control", "no-cache")
		header.Set("ETag", a.etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
	})
}

// load reads every file once and returns them by URL path.
func load(files fs.FS) (map[string]asset, error) {
	entries, err := fs.ReadDir(files, "static")
	if err != nil {
		return nil, fmt.Errorf("read the page's files: %w", err)
	}
	assets := make(map[string]asset, len(entries))
	for _, entry := range entries {
		name := entry.Name()
		body, err := fs.ReadFile(files, path.Join("static", name))
		if err != nil {
			return nil, fmt.Errorf("read the page's file %s: %w", name, err)
		}
		contentType, found := contentTypes[path.Ext(name)]
		if !found {
			return nil, fmt.Errorf("the page's file %s: its content type is missing in contentTypes", name)
		}
		sum := sha256.Sum256(body)
		at := "/assets/" + name
		if name == "index.html" {
			at = "/"
		}
		assets[at] = asset{body: body, contentType: contentType, etag: `"` + hex.EncodeToString(sum[:16]) + `"`}
	}
	if _, found := assets["/"]; !found {
		return nil, fmt.Errorf("the page's files: index.html is missing")
	}
	return assets, nil
}

// problem answers with an error of the API.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", api.MediaTypeProblem)
	w.WriteHeader(status)
	// The client may have left.
	_ = json.NewEncoder(w).Encode(api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail})
}
