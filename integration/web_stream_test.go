package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// A stream that is resumed by Last-Event-ID has the journal's events, each once,
// though portwatcher is stopped and killed meanwhile, in the middle of a storm.
func TestWebStreamResumes(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state, target := t.TempDir()+"/portwatcher.db", loopback(9888)
	stormy := idle(t, "stormy")
	stream := openStream(t, "http://"+target+"/api/v1/events?after=0")
	raging := inStorm(t, stormy, 4000)
	var last uint64
	for _, end := range []string{"stopped", "killed", "at the end"} {
		recording := harness.StartRecordingIn(t, state, harness.Pattern(t), "--listen", target)
		recording.WaitLine(t, `"type":"opened"`)
		stream.waitMore(t, 1000)
		switch end {
		case "stopped":
			recording.Stop(t)
		case "killed":
			recording.Kill(t)
		default:
			raging.stop()
			mark(t, recording, stormy, 1001)
			printed := recording.Printed(t)
			last = harness.LineID(t, printed[len(printed)-1])
			stream.waitID(t, last)
			recording.Stop(t)
			stream.waitFor(t, "the ends of both orderly stops are sent", func() bool { return stream.ends >= 2 })
		}
	}
	// What the last stop reports comes when the stream has ended.
	upToLast := func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool { return harness.LineID(t, line) > last })
	}
	lines := upToLast(stream.close())
	sameLines(t, "the stream", lines, upToLast(harness.JournalLines(t, state)))
	if stream.connections < 3 || stream.resets != 0 {
		t.Errorf("%d connections, %d resets; want 3 or more, and none", stream.connections, stream.resets)
	}
	t.Logf("%d events in %d connections", len(lines), stream.connections)
}

// A stream has what its filter lets through, and begins where it is asked to.
func TestWebStreamFilters(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 2, nil, "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:53")
	i := serve(t, serving{})
	i.WaitOpen(t, listening(t, web, 2))
	all := openStream(t, i.url+"/api/v1/events?since=1h")
	closings := openStream(t, i.url+"/api/v1/events?type=closed&port=1000-1002&after=0")
	others := openStream(t, i.url+"/api/v1/events?container=another&after=0")
	i.Marker(t, web, 1000)
	i.Marker(t, web, 1003)
	i.Marker(t, web, 1001)
	last := i.WaitEvent(t, 0, harness.Closed(web.Name, "tcp", "127.0.0.1", 1001)).ID
	all.waitID(t, last)
	closings.waitID(t, last)
	var want []string
	for _, event := range i.Events(harness.Match{Type: "closed"}) {
		if event.Port != 1003 {
			want = append(want, event.Line)
		}
	}
	sameLines(t, "all", all.close(), i.Lines())
	sameLines(t, "closings", closings.close(), want)
	sameLines(t, "another container", others.close(), nil)
}

// eventStream reads a stream, and connects again whenever it ends, as a browser
// does.
type eventStream struct {
	t      *testing.T
	url    string
	header http.Header
	client *http.Client
	end    context.CancelFunc
	done   chan struct{}

	mu                        sync.Mutex
	lines                     []string
	last                      uint64 // id
	connections, ends, resets int
}

// openStream reads a stream until it is closed, at the end of the test at the
// latest.
func openStream(t *testing.T, url string) *eventStream {
	return openStreamWith(t, url, http.DefaultClient, nil)
}

func openStreamWith(t *testing.T, url string, client *http.Client, header http.Header) *eventStream {
	ctx, end := context.WithCancel(t.Context())
	s := &eventStream{t: t, url: url, client: client, header: header, end: end, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for ctx.Err() == nil {
			// It is connected to again, whatever was wrong.
			_ = s.connect(ctx)
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { s.close() })
	return s
}

// close ends the stream and returns all events that it has had.
func (s *eventStream) close() []string {
	s.end()
	<-s.done
	return s.lines
}

// connect reads one connection to its end. The error is why it ended.
func (s *eventStream) connect(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	for name, values := range s.header {
		request.Header[name] = values
	}
	request.Header.Set("Accept", "text/event-stream")
	if s.last > 0 {
		request.Header.Set("Last-Event-ID", strconv.FormatUint(s.last, 10))
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Errorf("%s: %s %s", s.url, response.Status, response.Header.Get("Content-Type"))
		return nil
	}
	scanner := bufio.NewScanner(response.Body)
	scanner.Buffer(nil, 1<<20)
	fields := map[string]string{}
	for scanner.Scan() {
		name, value, found := strings.Cut(scanner.Text(), ": ")
		switch {
		case found && name != "": // not a comment
			fields[name] = value
		case scanner.Text() == "" && fields["event"] != "":
			s.take(fields["event"], fields["id"], fields["data"])
			fallthrough
		case scanner.Text() == "":
			clear(fields)
		}
	}
	return scanner.Err()
}

// take takes one message. What is wrong with it fails the test.
func (s *eventStream) take(kind, id, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch kind {
	case "hello":
		s.connections++
	case "reset":
		s.resets++
	case "end":
		var end struct {
			ResumeAfter uint64 `json:"resume_after"`
			Reason      string
		}
		err := json.Unmarshal([]byte(data), &end)
		if err != nil || end.ResumeAfter < s.last || end.Reason == "" || id != "" {
			s.t.Errorf("the end of a stream after %d: %s: %v", s.last, data, err)
		}
		s.ends++
	default:
		number, err := strconv.ParseUint(id, 10, 64)
		if err != nil || number <= s.last || !strings.HasPrefix(data, `{"id":`+id+`,`) || !strings.Contains(data, `"type":"`+kind+`"`) {
			s.t.Errorf("after %d: an event %q with the id %q: %s", s.last, kind, id, data)
		}
		s.last = number
		s.lines = append(s.lines, data)
	}
}

func (s *eventStream) waitFor(t *testing.T, what string, enough func() bool) {
	t.Helper()
	harness.Eventually(t, what, func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		if enough() {
			return ""
		}
		return fmt.Sprintf("%d events so far, the last has the id %d, %d connections", len(s.lines), s.last, s.connections)
	})
}

// waitMore waits for so many more events.
func (s *eventStream) waitMore(t *testing.T, count int) {
	t.Helper()
	s.mu.Lock()
	want := len(s.lines) + count
	s.mu.Unlock()
	s.waitFor(t, fmt.Sprintf("%d events come", count), func() bool { return len(s.lines) >= want })
}

// waitID waits until the event with this id has come.
func (s *eventStream) waitID(t *testing.T, id uint64) {
	t.Helper()
	s.waitFor(t, fmt.Sprintf("the event %d comes", id), func() bool { return s.last >= id })
}
