package server

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// FuzzParameters sends any value in every parameter of every route.
func FuzzParameters(f *testing.F) {
	logger, _ := quietLogger()
	capture, history := realisticCapture(), newFakeHistory()
	history.record(event(model.Opened, capture.open[0]), gap(), event(model.Closed, capture.open[0]))
	s, err := newServer(Options{Listen: "127.0.0.1:0", Capture: capture, History: history, Logger: logger, Explain: fakeExplain}, defaultLimits)
	if err != nil {
		f.Fatal(err)
	}
	for _, route := range s.apiRoutes() {
		for _, name := range append(slices.Clone(route.parameters), "unknown") {
			for _, value := range []string{
				"", "0", "1", "-1", "80/tcp", "65535-1", "99999", "web", "shop/web", "*", "a,b,,c", "aaaaaaaaaaaaaaaa", "[a-", "..", "true", "opened", "published",
				"2026-11-22T18:36:28Z", "1h", "-7d", "1e9h", "9223372036854775807", "18446744073709551616", "NaN", "\x00", "ü", "\xff", "%", "0s",
			} {
				f.Add(route.path, name, value, false)
			}
		}
	}
	f.Add(api.PathEvents, "after", "1", true)
	f.Fuzz(func(t *testing.T, path, name, value string, twice bool) {
		if name == "wait" && value != "0" && value != "0s" {
			value = "x" + value // no test waits for ten minutes
		}
		query := url.Values{name: {value}}
		if twice {
			query.Add(name, value)
		}
		known := slices.ContainsFunc(s.apiRoutes(), func(r route) bool { return r.path == path })
		if !known {
			path = api.PathPorts
		}
		request := httptest.NewRequest(http.MethodGet, path+"?"+query.Encode(), nil)
		request.Host = "localhost"
		checkAnswer(t, s, request, http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusRequestTimeout, http.StatusRequestURITooLong)

		request = httptest.NewRequest(http.MethodHead, api.PathEvents+"?"+query.Encode(), nil)
		request.Host = "localhost"
		request.Header.Set("Accept", api.MediaTypeStream)
		request.Header.Set("Last-Event-ID", value)
		checkAnswer(t, s, request, http.StatusOK, http.StatusBadRequest, http.StatusRequestURITooLong)
	})
}

// FuzzRawQuery sends a query that no client would.
func FuzzRawQuery(f *testing.F) {
	logger, _ := quietLogger()
	s, err := newServer(Options{Listen: "127.0.0.1:0", Capture: realisticCapture(), History: newFakeHistory(), Logger: logger, Explain: fakeExplain}, defaultLimits)
	if err != nil {
		f.Fatal(err)
	}
	for _, query := range []string{"", "a", "&&", "=", "a=%", "port=80;b", "port[]=80", "container=a&container=b", "?port=1", "port=80#x"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err == nil && values.Has("wait") {
			return // it would wait for that time, which other tests try
		}
		request := httptest.NewRequest(http.MethodGet, api.PathPorts, nil)
		request.Host = "localhost"
		request.URL.RawQuery = query
		checkAnswer(t, s, request, http.StatusOK, http.StatusBadRequest, http.StatusNotFound)
	})
}

func checkAnswer(t *testing.T, s *Server, request *http.Request, statuses ...int) {
	t.Helper()
	recorder := httptest.NewRecorder()
	s.handler.ServeHTTP(recorder, request)
	if !slices.Contains(statuses, recorder.Code) {
		t.Fatalf("%s: %d: %s", request.URL, recorder.Code, recorder.Body)
	}
	if recorder.Code == http.StatusOK {
		if recorder.Header().Get("Content-Type") == "application/json" && !json.Valid(recorder.Body.Bytes()) {
			t.Fatalf("%s: %s", request.URL, recorder.Body)
		}
		return
	}
	var p api.Problem
	if err := json.Unmarshal(recorder.Body.Bytes(), &p); err != nil || p.Status != recorder.Code || p.Title == "" || p.Detail == "" || p.Type != "about:blank" {
		t.Fatalf("%s: %d: %v: %s", request.URL, recorder.Code, err, recorder.Body)
	}
}
