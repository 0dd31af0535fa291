package page

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// policy is the content security policy that the real server sends.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

type declared struct {
	Protocol  string   `json:"protocol"`
	Port      int      `json:"port"`
	Published []string `json:"published,omitempty"`
	Exposed   bool     `json:"exposed"`
}

type container struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Image       string     `json:"image"`
	Project     string     `json:"project,omitempty"`
	Service     string     `json:"service,omitempty"`
	Monitored   bool       `json:"monitored"`
	NetworkMode string     `json:"network_mode"`
	Paused      bool       `json:"paused"`
	Stale       bool       `json:"stale"`
	Addresses   []string   `json:"addresses"`
	Declared    []declared `json:"declared"`
	Namespace   string     `json:"namespace,omitempty"`
	Source      string     `json:"source,omitempty"`
}

// fake speaks the API as far as the page uses it.
type fake struct {
	t       testing.TB
	address string

	mu         sync.Mutex
	server     *http.Server
	changed    chan struct{} // closed and made anew with each change
	events     []model.Event
	firstID    uint64
	open       map[model.Endpoint]model.Open
	containers []container
	token      string
	notReady   string
	version    string
	resumed    []string // Last-Event-ID of each stream
	asked      []string // every request's path and query
	drifts     []model.DriftPeriod
	alerts     api.Alerts
	expecting  bool
	portsAfter chan struct{} // the list of ports comes when this is closed; nil: at once
}

func newFake(t testing.TB) *fake {
	f := &fake{t: t, changed: make(chan struct{}), alerts: noAlerts, open: map[model.Endpoint]model.Open{}, firstID: 1, version: "1.0.0"}
	f.start("127.0.0.1:0")
	t.Cleanup(f.stop)
	return f
}

func (f *fake) url(path string) string { return "http://" + f.address + path }

func (f *fake) start(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatalf("fake server: listen on %s: %v", address, err)
	}
	f.address = listener.Addr().String()
	mux := http.NewServeMux()
	mux.Handle("/", Handler())
	mux.HandleFunc("/api/v1/status", f.serveStatus)
	mux.HandleFunc("/api/v1/containers", f.serveContainers)
	mux.HandleFunc("/api/v1/ports", f.servePorts)
	mux.HandleFunc("/api/v1/events", f.serveEvents)
	mux.HandleFunc("/api/v1/explain", f.serveExplain)
	mux.HandleFunc("/api/v1/drift", f.serveDrift)
	mux.HandleFunc("/api/v1/alerts", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.answer(w, f.alerts)
	})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if strings.HasPrefix(r.URL.Path, "/api/") && !f.allowed(w, r) {
			return
		}
		mux.ServeHTTP(w, r)
	})}
	f.mu.Lock()
	f.server = server
	f.mu.Unlock()
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			f.t.Errorf("fake server: %v", err)
		}
	}()
}

// stop ends the server and all its connections.
func (f *fake) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server == nil {
		return
	}
	if err := f.server.Close(); err != nil {
		f.t.Errorf("fake server: close: %v", err)
	}
	f.server = nil
}

func (f *fake) allowed(w http.ResponseWriter, r *http.Request) bool {
	f.mu.Lock()
	f.asked = append(f.asked, r.URL.RequestURI())
	token := f.token
	f.mu.Unlock()
	if token == "" || r.Header.Get("Authorization") == "Bearer "+token {
		return true
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	problem(w, http.StatusUnauthorized, "a valid token is needed")
	return false
}

// set changes the fake's fields and wakes the streams.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.wake()
}

func (f *fake) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// emit gives the events their ids and times (where they have none), applies
// and sends them.
func (f *fake) emit(events ...model.Event) {
	f.set(func() {
		for _, e := range events {
			if len(f.events) > 0 {
				e.ID = f.events[len(f.events)-1].ID + 1
			} else {
				e.ID = max(f.firstID, 1)
			}
			if e.Time.IsZero() {
				e.Time = time.Now().UTC()
			}
			e.Host = "node1"
			f.apply(&e)
			f.events = append(f.events, e)
		}
	})
}

func (f *fake) apply(e *model.Event) {
	if e.Type == model.Gap || e.Type == model.Bursts || e.Transient || e.Type == model.Drifted && !e.Address.IsValid() {
		return
	}
	endpoint := e.Endpoint()
	before, was := f.open[endpoint]
	switch e.Type {
	case model.Closed:
		if was {
			e.OpenedAt = before.OpenedAt
			e.OpenSeconds = new(e.Time.Sub(before.OpenedAt).Seconds())
		}
		delete(f.open, endpoint)
	case model.Opened:
		f.open[endpoint] = model.Open{Time: e.Time, Listener: e.Listener, OpenedAt: e.Time, Drift: e.Drift}
	case model.Changed:
		f.open[endpoint] = model.Open{Time: e.Time, Listener: e.Listener, OpenedAt: before.OpenedAt, Drift: e.Drift}
	case model.Drifted:
		f.open[endpoint] = *model.Fold(&before, e)
	}
}

func (f *fake) answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // a page that has gone needs no answer
}

func (f *fake) serveStatus(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body := map[string]any{"version": f.version, "host": "node1", "ready": f.notReady == "", "engine": map[string]any{"connected": true}, "alerts": f.alerts.AlertsSummary}
	if f.notReady != "" {
		body["not_ready"] = f.notReady
	}
	f.answer(w, body)
}

func (f *fake) serveContainers(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer(w, map[string]any{"containers": append([]container{}, f.containers...)})
}

func (f *fake) servePorts(w http.ResponseWriter, r *http.Request) {
	if f.portsAfter != nil {
		select {
		case <-f.portsAfter:
		case <-r.Context().Done():
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []model.Open{}
	for _, open := range f.open {
		list = append(list, open)
	}
	slices.SortFunc(list, func(a, b model.Open) int {
		return cmp.Or(cmp.Compare(a.ContainerName(), b.ContainerName()), cmp.Compare(a.Port, b.Port), a.Address.Compare(b.Address))
	})
	f.answer(w, map[string]any{"time": time.Now().UTC(), "ports": list})
}

// serveDrift lists the drifts without an end, and with since= all.
func (f *fake) serveDrift(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	open, past := []model.OpenDrift{}, []model.DriftPeriod{}
	for _, d := range f.drifts {
		if d.Ended.IsZero() {
			open = append(open, d.OpenDrift)
		}
		past = append(past, d)
	}
	body := map[string]any{"time": time.Now().UTC(), "expecting": f.expecting, "drifts": open}
	if r.URL.Query().Has("since") {
		body["history"] = past
	}
	f.answer(w, body)
}

// serveExplain knows one container.
func (f *fake) serveExplain(w http.ResponseWriter, r *http.Request) {
	if target := r.URL.Query().Get("target"); target != "web:80/tcp" {
		problem(w, http.StatusForbidden, "explanations are off (--explain)")
		return
	}
	f.answer(w, map[string]any{
		"target": "web:80/tcp", "diagnosis": "loopback only", "reachable": false, "remedy": "Let the program listen on 0.0.0.0.",
		"links": []map[string]any{{"ok": true, "text": "container web runs"}, {"ok": false, "text": "it listens on loopback only"}},
	})
}

func (f *fake) serveEvents(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		f.serveStream(w, r)
		return
	}
	query := r.URL.Query()
	before, limit := uint64(1<<62), 500
	for name, parse := range map[string]func(string) error{
		"before": func(s string) (err error) { before, err = strconv.ParseUint(s, 10, 64); return err },
		"limit":  func(s string) (err error) { limit, err = strconv.Atoi(s); return err },
	} {
		if value := query.Get(name); value != "" && parse(value) != nil {
			problem(w, http.StatusBadRequest, fmt.Sprintf("%s: %q", name, value))
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	found := []model.Event{}
	body := map[string]any{"first_id": f.firstID, "last_id": f.lastID()}
	for _, e := range slices.Backward(f.events) {
		if e.ID < f.firstID || e.ID >= before || !f.matches(&e, query) {
			continue
		}
		if len(found) == limit {
			body["next"] = fmt.Sprintf("events?before=%d", found[limit-1].ID)
			break
		}
		found = append(found, e)
	}
	slices.Reverse(found)
	body["events"] = found
	f.answer(w, body)
}

func (f *fake) lastID() uint64 {
	if len(f.events) == 0 {
		return 0
	}
	return f.events[len(f.events)-1].ID
}

// named returns the names that the container of an event has or had.
func (f *fake) named(e *model.Event) []string {
	if e.Container == nil {
		return []string{model.HostName}
	}
	names := []string{e.Container.Name}
	for _, c := range f.containers {
		if c.ID == e.Container.ID {
			names = append(names, c.Name)
		}
	}
	return names
}

func (f *fake) matches(e *model.Event, query map[string][]string) bool {
	one := func(name string, values ...string) bool {
		wanted := query[name]
		if len(wanted) == 0 {
			return true
		}
		return slices.ContainsFunc(strings.Split(wanted[0], ","), func(w string) bool { return slices.Contains(values, w) })
	}
	if !one("type", string(e.Type)) || !one("transient", strconv.FormatBool(e.Transient)) {
		return false
	}
	if e.Type == model.Gap {
		// As the journal does it; the page asks for gaps by themselves.
		return len(query["container"])+len(query["project"])+len(query["protocol"])+len(query["exposure"])+len(query["outside"])+len(query["port"]) == 0
	}
	number := strconv.Itoa(int(e.Port))
	// As the journal does it: in a burst of several ports or protocols any of them may be.
	several := e.Type == model.Bursts
	project := ""
	if e.Container != nil {
		project = e.Container.Project
	}
	return one("container", f.named(e)...) && one("project", project) && one("exposure", string(e.Exposure)) &&
		(len(query["outside"]) == 0 || e.Outside != nil && one("outside", strconv.FormatBool(*e.Outside))) &&
		(several && e.Protocol == 0 || one("protocol", e.Protocol.String())) &&
		(several && e.Port == 0 || one("port", number, number+"/"+e.Protocol.String()))
}

func (f *fake) serveStream(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	if err != nil {
		problem(w, http.StatusBadRequest, "Last-Event-ID: "+err.Error())
		return
	}
	f.mu.Lock()
	f.resumed = append(f.resumed, r.Header.Get("Last-Event-ID"))
	hello := fmt.Sprintf("retry: 100\n: last %d\n\nevent: hello\ndata: {\"last_id\":%d,\"host\":\"node1\",\"version\":%q}\n\n", f.lastID(), f.lastID(), f.version)
	if after+1 < f.firstID {
		hello += fmt.Sprintf("event: reset\ndata: {\"first_id\":%d}\n\n", f.firstID)
	}
	f.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	f.follow(r.Context(), w, after, hello)
}

func (f *fake) follow(ctx context.Context, w http.ResponseWriter, after uint64, text string) {
	flush := http.NewResponseController(w).Flush
	for {
		if _, err := fmt.Fprint(w, text); err != nil || flush() != nil {
			return // the page is gone
		}
		f.mu.Lock()
		changed := f.changed
		var batch strings.Builder
		from, _ := slices.BinarySearchFunc(f.events, after+1, func(e model.Event, id uint64) int { return cmp.Compare(e.ID, id) })
		for _, e := range f.events[from:] {
			data, err := json.Marshal(e)
			if err != nil {
				f.t.Errorf("fake server: event: %v", err)
			}
			fmt.Fprintf(&batch, "id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Type, data)
			after = e.ID
		}
		f.mu.Unlock()
		text = batch.String()
		if text != "" {
			continue
		}
		text = ": heartbeat\n\n"
		select {
		case <-ctx.Done():
			return
		case <-changed:
			text = ""
		case <-time.After(15 * time.Second):
		}
	}
}

// add makes a container and has it listed.
func (f *fake) add(c container) container {
	c.ID = fmt.Sprintf("%064x", len(f.containers)+0xabc000)
	c.Monitored = true
	c.NetworkMode = cmp.Or(c.NetworkMode, "bridge")
	f.set(func() { f.containers = append(f.containers, c) })
	return c
}

// event makes an event of a container's port; options change it.
func event(kind model.Type, c container, address string, number int, options ...func(*model.Event)) model.Event {
	e := model.Event{Type: kind, Listener: model.Listener{
		Container: &model.ContainerRef{ID: c.ID, Name: c.Name, Image: c.Image, Project: c.Project, Service: c.Service},
		Protocol:  model.TCP, Address: netip.MustParseAddr(address), Port: uint16(number), Exposure: model.Network, Source: model.SourceEBPF,
	}}
	if e.Address.IsLoopback() {
		e.Exposure = model.Loopback
	}
	for _, option := range options {
		option(&e)
	}
	e.SetReach(e.Exposure, e.Published)
	return e
}

func by(name string, pid int) func(*model.Event) {
	return func(e *model.Event) {
		e.Processes = append(e.Processes, model.Process{PID: pid, ContainerPID: 1, Name: name, Executable: "/usr/sbin/" + name, UID: new(uint32(0))})
	}
}

func published(at ...string) func(*model.Event) {
	return func(e *model.Event) { e.Exposure, e.Published = model.Published, at }
}

func ago(d time.Duration) func(*model.Event) {
	return func(e *model.Event) { e.Time = time.Now().UTC().Add(-d) }
}
