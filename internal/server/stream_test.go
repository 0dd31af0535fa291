package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

// frame is one block of a stream.
type frame struct{ id, event, data, comment, retry string }

// reader reads a stream as a browser does.
type reader struct {
	t      testing.TB
	lines  *bufio.Scanner
	close  func()
	header http.Header
}

// stream opens the stream, and fails the test where it is refused.
func (r *running) stream(t testing.TB, query string, headers ...string) *reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/api/v1/events?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", api.MediaTypeStream)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != api.MediaTypeStream {
		t.Fatalf("%s: %s", response.Status, response.Header)
	}
	one := &reader{t: t, lines: bufio.NewScanner(response.Body), close: cancel, header: response.Header}
	one.lines.Buffer(nil, 1<<20)
	return one
}

// next returns the next frame; ok is false at the end of the stream.
func (r *reader) next() (f frame, ok bool) {
	any := false
	for r.lines.Scan() {
		line := r.lines.Text()
		if line == "" {
			if any {
				return f, true
			}
			continue
		}
		any = true
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "":
			f.comment = value
		case "id":
			f.id = value
		case "event":
			f.event = value
		case "data":
			f.data = value
		case "retry":
			f.retry = value
		}
	}
	return f, false
}

// expect returns the data of the next frame, which has to be of this event.
func expect[T any](r *reader, event string) T {
	r.t.Helper()
	var value T
	f, ok := r.next()
	for ok && f.event == "" {
		f, ok = r.next() // retry and comments
	}
	if !ok || f.event != event {
		r.t.Fatalf("%+v (%t), want %s", f, ok, event)
	}
	if err := json.Unmarshal([]byte(f.data), &value); err != nil {
		r.t.Fatalf("%+v: %v", f, err)
	}
	return value
}

// expectID wants the next frame to be the event with this id.
func (r *reader) expectID(id uint64) frame {
	r.t.Helper()
	f, ok := r.next()
	for ok && f.event == "" {
		f, ok = r.next()
	}
	if !ok || f.id != strconv.FormatUint(id, 10) {
		r.t.Fatalf("%+v (%t), want the event %d", f, ok, id)
	}
	return f
}

func numbered(i int) *model.Event {
	return event(model.Opened, openPort([]*model.ContainerRef{web, db}[i%2], model.TCP, "0.0.0.0", uint16(i%65535+1), model.Network))
}

func (f *fakeHistory) recordMany(count int) {
	events := make([]*model.Event, count)
	for i := range events {
		events[i] = numbered(i)
	}
	f.record(events...)
}

func TestStreamTellsWhatComes(t *testing.T) {
	s := start(t, nil)
	s.history.recordMany(10)
	one := s.stream(t, "")
	if f, _ := one.next(); f.retry != "2000" {
		t.Errorf("%+v", f)
	}
	if hello := expect[api.Hello](one, api.StreamHello); hello.LastID != 10 || hello.Host != "node1" || hello.Version != "1.2.3" {
		t.Errorf("%+v", hello)
	}
	if one.header.Get("Cache-Control") != "no-store" || one.header.Get("Content-Encoding") != "" {
		t.Errorf("%v", one.header)
	}
	want := numbered(10)
	s.history.record(want)
	f := one.expectID(11)
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if f.event != "opened" || f.data != string(data) {
		t.Errorf("%+v, want %s", f, data)
	}
	s.history.record(gap())
	if got := expect[model.Event](one, "gap"); got.ID != 12 || got.Reason == "" {
		t.Errorf("%+v", got)
	}
}

func TestStreamResumes(t *testing.T) {
	for name, ask := range map[string]struct {
		query   string
		headers []string
		first   uint64
	}{
		"by the header":                     {"", []string{"Last-Event-ID", "7"}, 8},
		"by the query":                      {"after=990", nil, 991},
		"by both, of which the header wins": {"after=990", []string{"Last-Event-ID", "7"}, 8},
		"from the start":                    {"after=0", nil, 1},
		"from a time":                       {"since=2020-01-01T00:00:00Z", nil, 1},
		"at the end":                        {"after=1000", nil, 1001},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(_ *Options, l *limits) { l.batch = 64 })
			s.history.recordMany(1000)
			one := s.stream(t, ask.query, ask.headers...)
			expect[api.Hello](one, api.StreamHello)
			go func() {
				for range 50 {
					s.history.recordMany(2)
				}
			}()
			for id := ask.first; id <= 1100; id++ {
				one.expectID(id)
			}
		})
	}
}

func TestStreamFiltersHistoryAndWhatComes(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) { l.batch = 16 })
	s.history.recordMany(100)
	one := s.stream(t, "after=0&container=db&port=1-1000")
	expect[api.Hello](one, api.StreamHello)
	for id := uint64(2); id <= 100; id += 2 {
		one.expectID(id)
	}
	s.history.recordMany(100)
	for id := uint64(102); id <= 200; id += 2 {
		one.expectID(id)
	}
	old := s.stream(t, "since="+testTime.Add(time.Hour).Format(time.RFC3339))
	expect[api.Hello](old, api.StreamHello)
	s.history.recordMany(1)
	later := numbered(1)
	later.Time = testTime.Add(2 * time.Hour)
	s.history.record(later)
	old.expectID(202) // 201 is before since
}

func TestStreamTellsThatAnIDIsGone(t *testing.T) {
	s := start(t, nil)
	s.history.recordMany(100)
	s.history.forget(40)
	for query, want := range map[string]api.Reset{
		"after=10":  {FirstID: 41, LastID: 100},
		"after=101": {FirstID: 41, LastID: 100}, // another journal's
	} {
		one := s.stream(t, query)
		expect[api.Hello](one, api.StreamHello)
		if got := expect[api.Reset](one, api.StreamReset); got != want {
			t.Errorf("%s: %+v", query, got)
		}
		one.expectID(41)
	}
	one := s.stream(t, "after=40") // nothing is missing
	expect[api.Hello](one, api.StreamHello)
	one.expectID(41)
	s.history.forget(100)
	one = s.stream(t, "after=100")
	expect[api.Hello](one, api.StreamHello)
	s.history.recordMany(1)
	one.expectID(101)
}

func TestStreamHeartbeat(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) { l.heartbeat = 10 * time.Millisecond })
	one := s.stream(t, "")
	expect[api.Hello](one, api.StreamHello)
	for range 3 {
		if f, ok := one.next(); !ok || f.comment != "heartbeat" || f.id != "" {
			t.Fatalf("%+v", f)
		}
	}
	s.history.recordMany(1)
	one.expectID(1)
}

func TestStreamEndsWithTheServer(t *testing.T) {
	s := start(t, nil)
	s.history.recordMany(5)
	one := s.stream(t, "container=nobody")
	expect[api.Hello](one, api.StreamHello)
	s.history.recordMany(5)
	kernel.Eventually(t, "the feed has read", func() bool { last, _ := s.feed.position(); return last == 10 })
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %s", took)
	}
	end := expect[api.End](one, api.StreamEnd)
	if end.ResumeAfter < 5 || end.Reason == "" {
		t.Errorf("%+v", end)
	}
	if f, ok := one.next(); ok {
		t.Errorf("after the end: %+v", f)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := start(t, func(_ *Options, l *limits) { l.streams = 2 })
	first, second := s.stream(t, ""), s.stream(t, "")
	expect[api.Hello](first, api.StreamHello)
	expect[api.Hello](second, api.StreamHello)
	response, body := s.get(t, "/api/v1/events", "Accept", api.MediaTypeStream)
	asProblem(t, http.StatusServiceUnavailable, response, body)
	if response.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	first.close()
	kernel.Eventually(t, "one has left", func() bool { return len(s.streams) == 1 })
	expect[api.Hello](s.stream(t, ""), api.StreamHello)
}

func TestStreamParameters(t *testing.T) {
	s := start(t, nil)
	for query, parameter := range map[string]string{"until=1h": "until", "before=5": "before", "limit=5": "limit", "port=x": "port"} {
		if p := s.problem(t, http.StatusBadRequest, "/api/v1/events?"+query, "Accept", api.MediaTypeStream); p.Parameter != parameter {
			t.Errorf("%s: %+v", query, p)
		}
	}
	if p := s.problem(t, http.StatusBadRequest, "/api/v1/events", "Accept", api.MediaTypeStream, "Last-Event-ID", "x"); p.Parameter != "Last-Event-ID" {
		t.Errorf("%+v", p)
	}
	response, body := s.request(t, http.MethodHead, "/api/v1/events", nil, "Accept", "text/html, "+api.MediaTypeStream+";q=0.9")
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != api.MediaTypeStream || body != "" {
		t.Errorf("HEAD: %s %q", response.Status, body)
	}
	if len(s.streams) != 0 {
		t.Error("HEAD keeps a stream open")
	}
}

func TestStreamOutlivesAJournalThatCannotBeRead(t *testing.T) {
	s := start(t, nil)
	one := s.stream(t, "")
	expect[api.Hello](one, api.StreamHello)
	s.history.fail(errors.New("no disk"))
	s.history.recordMany(1)
	kernel.Eventually(t, "it is logged", func() bool { return logged(s, "cannot be read for the event streams") == 1 })
	s.history.fail(nil)
	one.expectID(1)
	s.history.recordMany(1)
	one.expectID(2)
	if got := logged(s, "can be read again"); got != 1 {
		t.Errorf("logged %d times", got)
	}
}

func logged(s *running, text string) (count int) {
	for _, entry := range s.logs.AllEntries() {
		if strings.Contains(entry.Message, text) {
			count++
		}
	}
	return count
}

func TestNobodyReadsTheJournalForNobody(t *testing.T) {
	s := start(t, nil)
	one := s.stream(t, "")
	expect[api.Hello](one, api.StreamHello)
	s.history.recordMany(1)
	one.expectID(1)
	one.close()
	kernel.Eventually(t, "the reader has left", func() bool { _, wanted := s.feed.position(); return !wanted })
	before := s.queriesMade()
	for range 10 {
		s.history.recordMany(1)
	}
	// The feed has woken when it waits for readers again; a new one starts it.
	again := s.stream(t, "")
	expect[api.Hello](again, api.StreamHello)
	s.history.recordMany(1)
	again.expectID(12)
	if got := s.queriesMade() - before; got > 5 {
		t.Errorf("%d queries", got)
	}
}

func (r *running) queriesMade() int {
	r.history.mutex.Lock()
	defer r.history.mutex.Unlock()
	return r.history.queries
}
