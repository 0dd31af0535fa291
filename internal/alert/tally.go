package alert

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/journal"
)

// tally counts deliveries. Its zero value is ready; it is safe for concurrent use.
type tally struct {
	mutex     sync.Mutex
	receivers map[string]*ReceiverCounts
}

// ReceiverCounts count the deliveries of one receiver.
type ReceiverCounts struct {
	// Pending and Dead are how many there are in the journal. Delivered, Failed (tries) and
	// GivenUp are since the start.
	Pending, Dead              int
	Delivered, Failed, GivenUp uint64
	// LastTry is when the last try ended, LastDelivered when the last one succeeded; zero: none
	// since the start.
	LastTry, LastDelivered time.Time
	// Problem is why the last try failed; empty after one that succeeded.
	Problem string
}

func (t *tally) of(receiver string) *ReceiverCounts {
	if t.receivers == nil {
		t.receivers = map[string]*ReceiverCounts{}
	}
	if t.receivers[receiver] == nil {
		t.receivers[receiver] = &ReceiverCounts{}
	}
	return t.receivers[receiver]
}

// load counts what the journal has.
func (t *tally) load(ctx context.Context, j *journal.Journal, log logrus.FieldLogger) {
	counts, err := j.CountDeliveries(ctx)
	if err != nil {
		log.WithError(err).Warn("The deliveries of alerts in the journal cannot be counted.")
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, c := range counts {
		switch c.State {
		case journal.DeliveryPending:
			t.of(c.Receiver).Pending = c.Count
		case journal.DeliveryDead:
			t.of(c.Receiver).Dead = c.Count
		}
	}
}

// countDead counts the dead deliveries of the journal again: some were deleted for their age.
func (t *tally) countDead(ctx context.Context, j *journal.Journal) {
	counts, err := j.CountDeliveries(ctx)
	if err != nil {
		return // the next time
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, c := range t.receivers {
		c.Dead = 0
	}
	for _, c := range counts {
		if c.State == journal.DeliveryDead {
			t.of(c.Receiver).Dead = c.Count
		}
	}
}

// reset forgets what the journal had: it is a new one.
func (t *tally) reset() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, c := range t.receivers {
		c.Pending, c.Dead = 0, 0
	}
}

func (t *tally) added(receiver string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.of(receiver).Pending++
}

// finished notes the end of a delivery.
func (t *tally) finished(receiver string, state journal.DeliveryState) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.end(t.of(receiver), state)
}

func (t *tally) end(c *ReceiverCounts, state journal.DeliveryState) {
	if c.Pending > 0 {
		c.Pending--
	}
	if state == journal.DeliveryDead {
		c.Dead++
		c.GivenUp++
	} else {
		c.Delivered++
	}
}

// tried notes a try.
func (t *tally) tried(receiver string, d *journal.Delivery, try *journal.Try) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	c := t.of(receiver)
	c.LastTry, c.Problem = try.Time, try.Error
	if try.Delivered {
		c.LastDelivered = try.Time
	} else {
		c.Failed++
	}
	if d.State != journal.DeliveryPending {
		t.end(c, d.State)
	}
}

// problem notes a failure that is no try of a delivery.
func (t *tally) problem(receiver string, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.of(receiver).Problem = err.Error()
}

// pendingOf returns the receivers that have pending deliveries, sorted.
func (t *tally) pendingOf() []string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(t.receivers)) {
		if t.receivers[name].Pending > 0 {
			names = append(names, name)
		}
	}
	return names
}

// counts returns a copy.
func (t *tally) counts() map[string]ReceiverCounts {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	all := make(map[string]ReceiverCounts, len(t.receivers))
	for name, c := range t.receivers {
		all[name] = *c
	}
	return all
}
