package journal

import (
	"context"
	"io"
	"iter"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/model"
)

// running is an open journal whose writer runs.
type running struct {
	*Journal
	t    testing.TB
	end  context.CancelFunc
	done chan error
	once sync.Once
}

// start opens a journal and runs it until the test ends, or stop is called.
func start(t testing.TB, o Options) *running {
	t.Helper()
	return startWith(t, o, queueCapacity)
}

// startWith is start with another length of the queue, and of its shares.
func startWith(t testing.TB, o Options, length int) *running {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet()
	}
	j, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	j.queue = newQueue(length, length)
	ctx, end := context.WithCancel(context.Background())
	r := &running{Journal: j, t: t, end: end, done: make(chan error, 1)}
	go func() { r.done <- j.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

// stop ends the journal in order.
func (r *running) stop() {
	r.t.Helper()
	r.once.Do(func() {
		r.end()
		if err := <-r.done; err != nil {
			r.t.Errorf("run: %v", err)
		}
		if err := r.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
	})
}

func (r *running) offer(records ...Record) {
	r.t.Helper()
	for _, record := range records {
		if !r.Offer(record) {
			r.t.Fatalf("refused: %+v", record)
		}
	}
}

// write offers events and waits until they are in the journal.
func (r *running) write(events ...*model.Event) {
	r.t.Helper()
	for _, e := range events {
		r.offer(Record{Event: e})
	}
	r.await(events[len(events)-1].ID)
}

// await waits until an event is in the journal.
func (r *running) await(id uint64) {
	r.t.Helper()
	within(r.t, func() bool {
		committed := r.Committed()
		if r.LastID() >= id {
			return true
		}
		select {
		case <-committed:
		case <-time.After(10 * time.Millisecond):
		}
		return false
	})
}

// within waits until a condition holds.
func within(t testing.TB, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about within a minute")
		}
		time.Sleep(time.Millisecond)
	}
}

func temporary(t testing.TB) string { return filepath.Join(t.TempDir(), "journal.db") }

// source is a [Journal] or a [Reader].
type source interface {
	Events(ctx context.Context, q Query) iter.Seq2[*model.Event, error]
	Follow(ctx context.Context, q Query) iter.Seq2[*model.Event, error]
	At(ctx context.Context, t time.Time, f model.Filter) ([]model.Open, Watching, error)
}

// events reads all that a query selects.
func events(t testing.TB, r source, q Query) []*model.Event {
	t.Helper()
	var all []*model.Event
	for e, err := range r.Events(context.Background(), q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func wantEvents(t testing.TB, what string, got, want []*model.Event) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if g, w := asJSON(t, got[i]), asJSON(t, want[i]); g != w {
			t.Fatalf("%s: event %d of %d is\n%s, want\n%s", what, i, len(want), g, w)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d events, want %d", what, len(got), len(want))
	}
}

// clock is a clock that tests set.
type clock struct {
	mutex sync.Mutex
	now   time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 18, 0, 0, 123456789, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) time.Time {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.now = c.now.Add(d)
	return c.now
}

// quiet returns a logger that discards everything.
func quiet() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}
