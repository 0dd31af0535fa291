package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// TestLongPages has pages of many chunks.
func TestLongPages(t *testing.T) {
	s := start(t, nil)
	s.history.recordMany(5 * chunkEvents)
	for _, test := range []struct {
		query       string
		first, last uint64
		next        string
	}{
		{"limit=1250", 1, 1250, ""},
		{"limit=1249", 2, 1250, "before=2"},
		{"limit=600", 651, 1250, "before=651"},
		{"limit=600&before=601", 1, 600, ""},
		{"limit=600&before=600", 1, 599, ""},
		{"limit=500&after=0", 1, 500, "after=500"},
		{"limit=750&after=500", 501, 1250, ""},
		{"limit=751&after=499", 500, 1250, ""},
		{"limit=749&after=500", 501, 1249, "after=1249"},
		{"limit=250&after=0", 1, 250, "after=250"},
	} {
		for _, encoding := range []string{"identity", "gzip"} {
			response, body := s.get(t, "/api/v1/events?"+test.query, "Accept-Encoding", encoding)
			if response.Header.Get("Content-Encoding") == "gzip" {
				body = unpack(t, body)
			} else if encoding == "gzip" {
				t.Errorf("%s: not compressed", test.query)
			}
			var page api.Events
			if err := json.Unmarshal([]byte(body), &page); err != nil {
				t.Fatalf("%s: %v", test.query, err)
			}
			if page.FirstID != 1 || page.LastID != 1250 || !strings.Contains(page.Next, test.next) || (page.Next == "") != (test.next == "") {
				t.Errorf("%s: %d to %d, next %q", test.query, page.FirstID, page.LastID, page.Next)
			}
			if want := int(test.last - test.first + 1); len(page.Events) != want || page.Events[0].ID != test.first || page.Events[want-1].ID != test.last {
				t.Errorf("%s: %d events, want %d", test.query, len(page.Events), want)
			}
			// Byte for byte what is made of it at once.
			var whole strings.Builder
			encoder := json.NewEncoder(&whole)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(page); err != nil || whole.String() != body {
				t.Errorf("%s: another form than that of the API (%v)", test.query, err)
			}
		}
	}
	response, body := s.request(t, http.MethodHead, "/api/v1/events?limit=1000", nil)
	if response.StatusCode != http.StatusOK || body != "" {
		t.Errorf("HEAD: %s %q", response.Status, body)
	}
}

// TestThePageIsOfOneMoment records events between two chunks.
func TestThePageIsOfOneMoment(t *testing.T) {
	history := &interrupted{fakeHistory: newFakeHistory()}
	history.between = func(query int) error {
		if query == 2 {
			history.recordMany(10)
		}
		return nil
	}
	s := start(t, func(o *Options, _ *limits) { o.History = history })
	history.recordMany(3 * chunkEvents)
	page := decode[api.Events](t, s, "/api/v1/events?limit=5000")
	if len(page.Events) != 3*chunkEvents || page.LastID != 3*chunkEvents || history.LastID() == page.LastID {
		t.Errorf("%d events, the last is reported as %d", len(page.Events), page.LastID)
	}
}

// interrupted does something before each query after the first.
type interrupted struct {
	*fakeHistory
	queries int
	between func(query int) error
	damaged uint64 // the id of an event
}

func (h *interrupted) Events(ctx context.Context, q journal.Query) iter.Seq2[*model.Event, error] {
	h.queries++
	return func(yield func(*model.Event, error) bool) {
		if err := h.between(h.queries); err != nil {
			yield(nil, err)
			return
		}
		for e, err := range h.fakeHistory.Events(ctx, q) {
			if e != nil && e.ID == h.damaged {
				e, err = nil, &journal.DamagedError{ID: h.damaged}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// TestAPageThatCannotBeCompletedIsBrokenOff has a journal that fails between two
// chunks: the client must not take the beginning for all.
func TestAPageThatCannotBeCompletedIsBrokenOff(t *testing.T) {
	history := &interrupted{fakeHistory: newFakeHistory(), between: func(query int) error {
		if query >= 3 { // after the first chunk, and the query for an older page
			return errors.New("no disk")
		}
		return nil
	}}
	s := start(t, func(o *Options, _ *limits) { o.History = history })
	history.recordMany(3 * chunkEvents)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/v1/events?limit=700", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept-Encoding", "identity")
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if content, err := io.ReadAll(response.Body); err == nil || len(content) == 0 {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	for _, entry := range s.logs.AllEntries() {
		if entry.Level <= logrus.WarnLevel {
			t.Errorf("logged: %s", entry.Message)
		}
	}
}

// TestDamagedEventsAreLeftOut has one at each end of pages and chunks.
func TestDamagedEventsAreLeftOut(t *testing.T) {
	for _, damaged := range []uint64{1, 2, 100, chunkEvents, chunkEvents + 1, 700} {
		history := &interrupted{fakeHistory: newFakeHistory(), between: func(int) error { return nil }, damaged: damaged}
		s := start(t, func(o *Options, _ *limits) { o.History = history })
		history.recordMany(700)
		for _, query := range []string{"limit=1", "limit=99", "limit=350", "limit=350&after=0", "limit=1&after=0", "limit=700", "limit=5000"} {
			seen := map[uint64]bool{}
			for next := "/api/v1/events?" + query; next != ""; {
				page := decode[api.Events](t, s, next)
				for _, e := range page.Events {
					if seen[e.ID] {
						t.Fatalf("%s: event %d comes twice", query, e.ID)
					}
					seen[e.ID] = true
				}
				if next = nextPage(t, next, &page); strings.HasPrefix(query, "limit=1") && len(seen) > 5 {
					break
				}
			}
			if !strings.HasPrefix(query, "limit=1") && (len(seen) != 699 || seen[damaged]) {
				t.Errorf("%s, event %d is damaged: %d events", query, damaged, len(seen))
			}
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}
}
