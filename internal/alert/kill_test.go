package alert

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// stormVariable makes the test binary a process that records events and delivers alerts until it
// is killed: the path of the journal and the address of the receiver, with a blank between.
const stormVariable = "PORTWATCHER_TEST_ALERT_STORM"

func TestMain(m *testing.M) {
	if arguments := os.Getenv(stormVariable); arguments != "" {
		path, address, _ := strings.Cut(arguments, " ")
		if err := storm(path, address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// stormRules notify each opening, and each drift with its end.
const stormRules = `
group_wait: 0s
max_per_hour: 3600
rules:
  - {name: new, when: 'type == "opened"', to: [ops]}
  - {name: drift, when: 'drift != ""', to: [ops]}
receivers: [{name: ops, webhook: {url: "http://localhost"}}]
`

// poster posts notifications as they are.
type poster struct{ address string }

func (p *poster) Name() string { return "ops" }
func (p *poster) Kind() string { return notify.KindWebhook }
func (p *poster) Close() error { return nil }

func (p *poster) Send(ctx context.Context, n *notify.Notification) notify.Outcome {
	body, err := json.Marshal(n)
	if err != nil {
		return notify.Outcome{Err: err}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.address, bytes.NewReader(body))
	if err != nil {
		return notify.Outcome{Err: err}
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return notify.Outcome{Err: err}
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return notify.Outcome{Status: answer.StatusCode, Err: fmt.Errorf("answered %s", answer.Status)}
	}
	return notify.Outcome{Delivered: true, Status: answer.StatusCode}
}

// open opens the journal at path with alerts to a receiver, and runs both until ctx ends.
func openStorm(ctx context.Context, path, address string) (*journal.Journal, *Alerts, func() error, error) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	j, err := journal.Open(journal.Options{Path: path, Logger: log})
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := parseText(stormRules)
	if err != nil {
		return nil, nil, nil, err
	}
	setup, err := Prepare(c, func(notify.ReceiverConfig) (notify.Receiver, error) { return &poster{address}, nil })
	if err != nil {
		return nil, nil, nil, err
	}
	a := New(Options{Journal: j, Setup: setup, Logger: log, Delays: []time.Duration{10 * time.Millisecond}})
	recording, stop := context.WithCancel(context.Background())
	recorded, evaluated := make(chan error, 1), make(chan error, 1)
	go func() { recorded <- j.Run(recording) }()
	go func() { evaluated <- a.Run(ctx) }()
	for found := false; !found; {
		if _, found, err = j.Cursor(CursorName); err != nil {
			stop()
			return nil, nil, nil, err
		}
		time.Sleep(time.Millisecond)
	}
	return j, a, func() error {
		err := <-evaluated
		stop()
		<-recorded
		if failed := j.Close(); err == nil {
			err = failed
		}
		return err
	}, nil
}

// storm records openings, drifts and their ends as fast as the rate of messages allows.
func storm(path, address string) error {
	ctx, end := context.WithTimeout(context.Background(), time.Minute) // at the latest
	defer end()
	j, _, wait, err := openStorm(ctx, path, address)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for id := j.NextID(); ctx.Err() == nil; id++ {
		e := &model.Event{ID: id, Time: time.Now().UTC(), Type: model.Opened, Listener: model.Listener{
			Host: "node1", Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: uint16(id%50) + 1, Exposure: model.Network,
			Container: &model.ContainerRef{ID: "aaaabbbbcccc", Name: "web"},
		}}
		switch id % 3 {
		case 1:
			e.Type, e.Drift = model.Changed, model.DriftUnexpected
		case 2:
			e.Type, e.Port, e.Drift = model.Closed, uint16((id-1)%50)+1, model.DriftUnexpected
		}
		for !j.Offer(journal.Record{Event: e}) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Millisecond)
	}
	return wait()
}

// inbox is what a receiver has got.
type inbox struct {
	mutex  sync.Mutex
	bodies map[string]string            // by id
	events map[uint64]map[string]string // the notification of each rule and status
	tries  int
	wrong  []string
}

// ServeHTTP takes a notification, or fails: one of four tries, after or before it was taken.
func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the process was killed
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.tries++
	chance := rand.IntN(8)
	if chance == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var n notify.Notification
	if err := json.Unmarshal(body, &n); err != nil {
		b.wrong = append(b.wrong, err.Error())
		return
	}
	if before, known := b.bodies[n.ID]; known && before != string(body) {
		b.wrong = append(b.wrong, "two notifications have the id "+n.ID)
	}
	b.bodies[n.ID] = string(body)
	for i := range n.Alerts {
		id := n.Alerts[i].Event.ID
		if b.events[id] == nil {
			b.events[id] = map[string]string{}
		}
		what := n.Alerts[i].Rule + " " + string(n.Alerts[i].Status)
		if before := b.events[id][what]; before != "" && before != n.ID {
			b.wrong = append(b.wrong, fmt.Sprintf("the event %d is in %s and in %s: %s", id, before, n.ID, what))
		}
		b.events[id][what] = n.ID
	}
	if chance == 1 {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// TestKillNine kills the process again and again while it evaluates and delivers. In the end the
// receiver has the ids of the outbox and no others, each event that was due is in one
// notification, and the same id has always had the same content.
func TestKillNine(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	path := filepath.Join(t.TempDir(), "journal.db")
	got := &inbox{bodies: map[string]string{}, events: map[uint64]map[string]string{}}
	server := httptest.NewServer(got)
	defer server.Close()
	for range rounds {
		killStorm(t, path, server.URL, time.Duration(rand.Int64N(int64(600*time.Millisecond))))
	}
	ctx, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	j, _, wait, err := openStorm(ctx, path, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	drained(ctx, t, j)
	all, err := j.Deliveries(ctx, journal.DeliveryQuery{})
	if err != nil {
		t.Fatal(err)
	}
	got.mutex.Lock()
	for i := range all {
		if got.bodies[all[i].ID] == "" {
			t.Errorf("%s is in the outbox (%s), and was not received", all[i].ID, all[i].State)
		}
	}
	if len(all) != len(got.bodies) || len(all) == 0 {
		t.Errorf("%d are in the outbox, %d were received, want the same, and some", len(all), len(got.bodies))
	}
	for _, text := range got.wrong {
		t.Error(text)
	}
	due := 0
	for e, err := range j.Events(ctx, journal.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == model.Opened {
			due++
			if got.events[e.ID]["new firing"] == "" {
				t.Errorf("the opening %d is in no notification", e.ID)
			}
		}
	}
	t.Logf("%d openings in %d notifications by %d tries", due, len(all), got.tries)
	got.mutex.Unlock()
	end()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// drained waits until all events are evaluated, and nothing is pending.
func drained(ctx context.Context, t *testing.T, j *journal.Journal) {
	t.Helper()
	for {
		id, _, err := j.Cursor(CursorName)
		if err != nil {
			t.Fatal(err)
		}
		pending, err := j.Deliveries(ctx, journal.DeliveryQuery{State: journal.DeliveryPending, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		state, err := j.AlertState(ctx)
		if err != nil {
			t.Fatal(err)
		}
		waiting := false
		for key := range state {
			waiting = waiting || key.Kind == kindEntry
		}
		if id == j.LastID() && len(pending) == 0 && !waiting {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// killStorm lets a process work for a while and kills it.
func killStorm(t *testing.T, path, address string, after time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), stormVariable+"="+path+" "+address)
	var failure strings.Builder
	child.Stderr = &failure
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the child: %v: %s", child.Wait(), failure.String())
	}
	timer := time.AfterFunc(after, func() { child.Process.Kill() })
	defer timer.Stop()
	for lines.Scan() {
	}
	child.Wait() // it was killed
}
