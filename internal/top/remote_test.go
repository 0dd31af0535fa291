package top

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/client"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

// fakeInstance speaks the HTTP API as far as the view needs it.
type fakeInstance struct {
	t      *testing.T
	server *httptest.Server

	mutex   sync.Mutex
	open    []model.Open
	past    []*model.Event
	refuse  bool // the token is wrong
	failing int  // how many questions for the list fail
	lists   int
	streams chan *fakeStream
}

// fakeStream is an event stream that a client reads.
type fakeStream struct {
	lines chan string
	cut   chan struct{}
}

func newFakeInstance(t *testing.T) *fakeInstance {
	f := &fakeInstance{t: t, streams: make(chan *fakeStream, 10)}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fakeInstance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Accept") == api.MediaTypeStream && !f.refused() {
		f.stream(w, r)
		return
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	switch {
	case f.refuse:
		f.answer(w, http.StatusUnauthorized, api.Problem{Status: 401, Title: "Unauthorized"})
	case r.URL.Path == api.PathStatus:
		f.answer(w, http.StatusOK, api.Status{Host: "node1", Containers: 3, Ready: true})
	case r.URL.Path == api.PathPorts && f.failing > 0:
		f.failing--
		f.answer(w, http.StatusServiceUnavailable, api.Problem{Status: 503, Title: "Service Unavailable"})
	case r.URL.Path == api.PathPorts:
		f.lists++
		f.answer(w, http.StatusOK, api.Ports{Time: time.Now(), Ports: f.open})
	case r.URL.Path == api.PathEvents:
		var chosen []*model.Event
		for _, e := range f.past {
			if name := r.URL.Query().Get("container"); name == "" || e.Container.Name == name {
				chosen = append(chosen, e)
			}
		}
		f.answer(w, http.StatusOK, api.Events{Events: chosen})
	}
}

func (f *fakeInstance) refused() bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.refuse
}

func (f *fakeInstance) answer(w http.ResponseWriter, status int, body any) {
	if status == http.StatusOK {
		w.Header().Set("Content-Type", "application/json")
	} else {
		w.Header().Set("Content-Type", api.MediaTypeProblem)
	}
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeInstance) stream(w http.ResponseWriter, r *http.Request) {
	s := &fakeStream{lines: make(chan string, 100), cut: make(chan struct{})}
	s.send(f.t, api.StreamHello, api.Hello{LastID: 2, Host: "node1"})
	f.streams <- s
	w.Header().Set("Content-Type", api.MediaTypeStream)
	for {
		select {
		case line := <-s.lines:
			fmt.Fprint(w, line)
			w.(http.Flusher).Flush()
		case <-s.cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (s *fakeStream) send(t *testing.T, name string, data any) {
	t.Helper()
	text, err := json.Marshal(data)
	if err != nil {
		t.Error(err)
	}
	s.lines <- fmt.Sprintf("event: %s\ndata: %s\n\n", name, text)
}

func (f *fakeInstance) set(change func()) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	change()
}

// nextStream waits for a reader of the stream.
func (f *fakeInstance) nextStream() *fakeStream {
	f.t.Helper()
	select {
	case s := <-f.streams:
		return s
	case <-time.After(20 * time.Second):
		f.t.Fatal("the stream has no reader")
		return nil
	}
}

// watch runs the source until the end of the test.
func (f *fakeInstance) watch() (*Board, Source, <-chan error) {
	f.t.Helper()
	c, err := client.New(client.Options{Server: f.server.URL})
	if err != nil {
		f.t.Fatal(err)
	}
	board, source, ended := NewBoard(), Remote(c), make(chan error, 1)
	ctx, cancel := context.WithCancel(f.t.Context())
	var running sync.WaitGroup
	running.Go(func() { ended <- source.Run(ctx, board) })
	f.t.Cleanup(func() { cancel(); running.Wait(); c.Close() })
	return board, source, ended
}

// eventually waits until the board is as wanted.
func eventually(t *testing.T, b *Board, what string, condition func(s *snapshot) bool) {
	t.Helper()
	kernel.Await(t, what, func() string {
		s, _ := b.snapshot(^uint64(0))
		if condition(&s) {
			return ""
		}
		return fmt.Sprintf("%+v", s)
	})
}

func has(number uint16) func(s *snapshot) bool {
	return func(s *snapshot) bool {
		for _, r := range s.open {
			if r.Port == number {
				return true
			}
		}
		return false
	}
}

func TestRemote(t *testing.T) {
	f := newFakeInstance(t)
	f.open = []model.Open{openAt(web, begin)}
	f.past = []*model.Event{event(1, model.Opened, web), event(2, model.Opened, db)}
	f.failing = 1 // which does not end it
	board, source, _ := f.watch()
	s := f.nextStream()
	eventually(t, board, "list, past and status", func(s *snapshot) bool {
		return has(80)(s) && len(s.events) == 2 && s.status.Host == "node1" && s.status.Containers == 3 && s.link.lost == nil
	})
	s.send(t, "opened", event(3, model.Opened, back))
	eventually(t, board, "the event", has(9000))

	f.set(func() { f.open = []model.Open{openAt(db, begin)} })
	close(s.cut)
	s = f.nextStream()
	eventually(t, board, "the list after the connection was lost", func(s *snapshot) bool {
		return has(5432)(s) && !has(80)(s) && s.link.lost == nil
	})

	f.set(func() { f.open, f.past = []model.Open{openAt(web, begin)}, []*model.Event{event(1, model.Closed, db)} })
	s.send(t, api.StreamReset, api.Reset{FirstID: 1, LastID: 1})
	eventually(t, board, "another journal", func(s *snapshot) bool {
		return has(80)(s) && len(s.events) == 1 && s.events[0].Type == model.Closed
	})

	history, err := source.History(t.Context(), &db)
	if err != nil || len(history) != 1 {
		t.Errorf("history %v, error %v; want one event", history, err)
	}
}

func TestRemoteSaysThatItIsAway(t *testing.T) {
	f := newFakeInstance(t)
	f.open = []model.Open{openAt(web, begin)}
	board, _, _ := f.watch()
	s := f.nextStream()
	eventually(t, board, "the list", has(80))
	f.set(func() { f.failing = 1 << 30 })
	close(s.cut)
	eventually(t, board, "the loss", func(s *snapshot) bool { return s.link.lost != nil && has(80)(s) })
}

// A wrong token does not get better by trying.
func TestRemoteRefused(t *testing.T) {
	f := newFakeInstance(t)
	f.refuse = true
	_, _, ended := f.watch()
	select {
	case err := <-ended:
		var problem *api.Problem
		if !errors.As(err, &problem) || problem.Status != http.StatusUnauthorized {
			t.Errorf("error %v, want 401", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}

// fakeCapture is a capture that scans nothing.
type fakeCapture struct {
	open []model.Open
	err  error
}

func (c *fakeCapture) Run(ctx context.Context) error {
	if c.err != nil {
		return c.err
	}
	<-ctx.Done()
	return nil
}

func (c *fakeCapture) View() *model.View {
	return &model.View{
		Open: c.open, Containers: []model.ContainerState{{Monitored: true}, {Monitored: false}}, Status: model.CaptureStatus{Host: "node1"},
	}
}

func (c *fakeCapture) Ready() error { return errors.New("not yet") }

func TestLocal(t *testing.T) {
	board := NewBoard()
	source := Local(&fakeCapture{open: []model.Open{openAt(web, begin)}}, board, "--local")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx, board) }()
	eventually(t, board, "the list", func(s *snapshot) bool {
		return has(80)(s) && reflect.DeepEqual(s.status, watchStatus{Host: "node1", Containers: 1, NotReady: "not yet"})
	})
	board.Event(event(1, model.Opened, db))
	board.Event(event(2, model.Closed, web))
	if history, err := source.History(ctx, &web); err != nil || len(history) != 1 || history[0].ID != 2 {
		t.Errorf("history %v, error %v; want the one event", history, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("error %v", err)
	}
	failed := errors.New("no host pid namespace")
	if err := Local(&fakeCapture{err: failed}, board, "").Run(t.Context(), board); !errors.Is(err, failed) {
		t.Errorf("error %v, want %v", err, failed)
	}
}
