package alert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// taker is a receiver that follows a script.
type taker struct {
	name, kind string
	// answer returns the outcome of a try; nil delivers.
	answer func(try int, n *notify.Notification) notify.Outcome

	mutex sync.Mutex
	tries []string // id and time of each
	taken []*notify.Notification
	ended bool
}

func (k *taker) Name() string { return k.name }

func (k *taker) Kind() string {
	if k.kind == "" {
		return notify.KindWebhook
	}
	return k.kind
}

func (k *taker) Send(ctx context.Context, n *notify.Notification) notify.Outcome {
	k.mutex.Lock()
	try := len(k.tries)
	k.tries = append(k.tries, n.ID+" "+time.Now().UTC().Format("15:04:05"))
	k.mutex.Unlock()
	outcome := notify.Outcome{Delivered: true, Status: 200}
	if k.answer != nil {
		outcome = k.answer(try, n)
	}
	if outcome.Delivered {
		k.mutex.Lock()
		k.taken = append(k.taken, n)
		k.mutex.Unlock()
	}
	return outcome
}

func (k *taker) Close() error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.ended = true
	return nil
}

// rules returns what was taken, as "rule port".
func (k *taker) rules() []string {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	var all []string
	for _, n := range k.taken {
		all = append(all, describe(n))
	}
	return all
}

func (k *taker) count() int {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return len(k.tries)
}

func refuse(text string) notify.Outcome {
	return notify.Outcome{Status: 500, Err: errors.New(text)}
}

// world is a journal with alerts, which can be stopped and started again.
type world struct {
	t       *testing.T
	path    string // empty: in memory
	config  string
	takers  []*taker
	journal *journal.Journal
	alerts  *Alerts
	view    atomic.Pointer[model.View]
	id      uint64
	stop    func()
	log     logged
	giveUp  time.Duration
	unready atomic.Bool // the capture is
}

// logged is what was logged.
type logged struct {
	mutex sync.Mutex
	text  strings.Builder
}

func (l *logged) Write(text []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(text)
}

func (l *logged) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

func newWorld(t *testing.T, path, config string, takers ...*taker) *world {
	w := &world{t: t, path: path, config: config, takers: takers, giveUp: 6 * time.Hour}
	w.drifting()
	w.start()
	return w
}

// drifting makes the view one in which ports are unexpected.
func (w *world) drifting(ports ...uint16) {
	view := &model.View{}
	view.Status.Engine.Connected = true
	for _, port := range ports {
		view.Drifts = append(view.Drifts, model.OpenDrift{Drift: model.DriftUnexpected, Target: "web", Listener: model.Listener{Protocol: model.TCP, Port: port}})
	}
	w.view.Store(view)
}

func (w *world) ready() error {
	if w.unready.Load() {
		return errors.New("the containers are not known yet")
	}
	return nil
}

func (w *world) setup() *Setup {
	w.t.Helper()
	c := parse(w.t, w.config)
	s, err := Prepare(c, func(r notify.ReceiverConfig) (notify.Receiver, error) {
		for _, k := range w.takers {
			if k.name == r.Name {
				return k, nil
			}
		}
		return nil, fmt.Errorf("no receiver %s", r.Name)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// start starts the journal and the alerts on a clock of the test's own, and waits until they rest.
func (w *world) start() {
	w.t.Helper()
	w.begin()
	synctest.Wait()
}

func (w *world) begin() {
	w.t.Helper()
	log := logrus.New()
	log.SetOutput(&w.log)
	log.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true})
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	j, err := journal.Open(journal.Options{Path: w.path, Logger: quiet})
	if err != nil {
		w.t.Fatal(err)
	}
	w.journal, w.id = j, max(w.id, j.NextID()-1)
	w.alerts = New(Options{
		Journal: j, Setup: w.setup(), Logger: log, View: w.view.Load, Ready: w.ready,
		Jitter: func() float64 { return 0 }, GiveUp: w.giveUp,
	})
	recording, endRecord := context.WithCancel(w.t.Context())
	ctx, end := context.WithCancel(w.t.Context())
	var recorder, evaluator sync.WaitGroup
	recorder.Go(func() {
		if err := j.Run(recording); err != nil {
			w.t.Errorf("journal: %v", err)
		}
	})
	evaluator.Go(func() {
		if err := w.alerts.Run(ctx); err != nil {
			w.t.Errorf("alerts: %v", err)
		}
	})
	w.stop = sync.OnceFunc(func() {
		end()
		evaluator.Wait()
		endRecord()
		recorder.Wait()
		if err := j.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(w.stop)
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// opened records the opening of a port.
func (w *world) opened(port int, change ...func(*model.Event)) {
	w.t.Helper()
	w.id++
	e := &model.Event{ID: w.id, Time: time.Now().UTC(), Type: model.Opened, Listener: model.Listener{
		Host: "node1", Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: uint16(port),
		Container: &model.ContainerRef{ID: "aaaabbbbcccc", Name: "web", StartedAt: time.Now().UTC()},
	}}
	for _, f := range change {
		f(e)
	}
	if !w.journal.Offer(journal.Record{Event: e}) {
		w.t.Fatal("refused")
	}
}

func wantList(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
