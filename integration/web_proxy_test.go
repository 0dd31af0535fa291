package integration

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"testing"

	"portwatcher/integration/internal/harness"
)

// Behind a reverse proxy under a path, by the proxy's own name, page, stream, API and client work;
// the history of a container that was renamed is whole.
func TestWebBehindAProxy(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "249662c60a09_web", 1, nil, "--tcp", "0.0.0.0:80")
	i := serve(t, serving{more: []string{"--allowed-hosts", "pw.example.com"}})
	i.WaitOpen(t, listening(t, web, 1))
	backend, err := url.Parse(i.url)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(backend)
		r.Out.Host = "pw.example.com"
	}}
	mux := http.NewServeMux()
	mux.Handle("/pw/", http.StripPrefix("/pw", forward))
	proxy := httptest.NewServer(mux)
	t.Cleanup(proxy.Close)

	p := openPage(t, proxy.URL+"/pw/")
	p.shows(web, "open", "80/tcp", "workload")
	harness.Default.MustDocker(t, "rename", web.Name, harness.Name(t, "web-1"))
	web.Refresh(t)
	p.shows(web, "open", "80/tcp")
	web.Exec(t, "listen", "--tcp", "0.0.0.0:81")
	p.shows(web, "open", "81/tcp")
	p.must(p.Click("#groups h3 a"))
	p.must(p.Wait("document.querySelectorAll('#detail .events li').length === 2"))
	p.must(p.Wait(`document.querySelector('#detail .more').innerText.includes('That is all that was kept.')`))
	if folder := os.Getenv("PORTWATCHER_SCREENSHOTS"); folder != "" {
		picture, err := p.Screenshot()
		if err == nil {
			err = os.WriteFile(folder+"/behind-a-proxy.png", picture, 0o644)
		}
		p.must(err)
	}

	// A client of the API follows the link to the next page.
	at := proxy.URL + "/pw/api/v1/events?limit=1&container=" + web.Name
	for _, port := range []int{81, 80} {
		var answer struct {
			Events []struct{ Port int }
			Next   string
		}
		response, err := http.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil {
			err = json.Unmarshal(body, &answer)
		}
		if err != nil || len(answer.Events) != 1 || answer.Events[0].Port != port || (answer.Next != "") != (port == 81) {
			t.Fatalf("%s: %s, %s, error %v; want port %d", at, response.Status, body, err, port)
		}
		next, err := response.Request.URL.Parse(answer.Next)
		if err != nil {
			t.Fatal(err)
		}
		at = next.String()
	}
	result := startWait(t, web.Name+":81", "--server", proxy.URL+"/pw/", "--timeout", "0").end(t)
	if result.Status != 0 {
		t.Errorf("wait through the proxy: status %d, %s", result.Status, result.Stderr)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		request, err := http.NewRequest(http.MethodGet, i.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "any.example.com"
		response, err := i.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s by another name: %s", path, response.Status)
		}
	}
}
