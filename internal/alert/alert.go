// Package alert evaluates rules over the events of the journal, and delivers what they find.
//
// It reads the journal by a cursor, so that it loses no event and repeats none: the cursor, what
// the rules have found so far, and the deliveries that follow from it change in one transaction.
// Deliveries leave the outbox one after another, each receiver for itself, at least once, with the
// same id at each try.
//
// It observes nothing, and does not judge what is expected: events carry their drift. How a
// message is written and sent is the business of package notify.
//
// Invariants:
//
//   - DO write a delivery before it is tried, and its result before the next one is tried. DON'T
//     keep a message in memory alone.
//   - DON'T wait for a receiver while rules are evaluated, nor for one receiver in another's
//     goroutine. The capture waits for neither: it only fills the journal.
//   - DO bound what is in memory; see the constants of core. What is beyond is counted, logged
//     and shown.
//   - DON'T put a secret into a log, the journal or the status: receivers keep them.
package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/clock"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// CursorName is the name of the cursor in the journal.
const CursorName = "alert"

// Options are the arguments of [New].
type Options struct {
	Journal *journal.Journal
	// Setup are the first settings; see [Alerts.Apply].
	Setup *Setup
	// View returns the state of the capture, and Ready nil once it is complete. Both may be nil
	// in tests.
	View  func() *model.View
	Ready func() error
	// Logger receives what an operator must know.
	Logger logrus.FieldLogger
	// Now is the clock; nil is [time.Now].
	Now func() time.Time
	// Jitter returns a number from 0 to 1 by which a retry is delayed; nil is at random.
	Jitter func() float64
	// Delays are the times between the tries of a delivery, of which the last one repeats; nil
	// means 5 s, 1 min, 5 min, 30 min, 2 h.
	Delays []time.Duration
	// GiveUp is how old a delivery is when it is not tried again; 0 means 3 days.
	GiveUp time.Duration
}

// Setup are settings with the receivers that they describe.
type Setup struct {
	*Config
	// Targets has a receiver for each of Config.Receivers, in their order.
	Targets []notify.Receiver
}

// Prepare makes the receivers of settings. The error joins those of each.
func Prepare(c *Config, make func(notify.ReceiverConfig) (notify.Receiver, error)) (*Setup, error) {
	s := &Setup{Config: c}
	var problems []error
	for _, r := range c.Receivers {
		target, err := make(r)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		s.Targets = append(s.Targets, target)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes the receivers. Nobody uses the setup then.
func (s *Setup) Close() error {
	var problems []error
	for _, target := range s.Targets {
		problems = append(problems, target.Close())
	}
	return errors.Join(problems...)
}

// Alerts evaluates and delivers. Its methods are safe for concurrent use; Run is called once.
type Alerts struct {
	options Options
	log     logrus.FieldLogger
	apply   chan *Setup
	// These belong to the goroutine of Run.
	setup  *Setup
	core   *core
	cursor uint64
	writes writes

	rounds   uint64
	ready    bool // the capture was complete once
	began    time.Time
	suspects map[string]bool // see core.reconcile
	janitor  time.Time       // when old deliveries are deleted next

	reportMutex sync.Mutex
	reported    map[string]time.Time // when a failure was logged

	published atomic.Pointer[snapshot]
	tally     tally
}

// writes is what the last step left to write.
type writes struct {
	at     time.Time // of the last write
	cursor uint64    // that it wrote
	known  bool      // the journal has a state
	failed bool
}

// New returns alerts that begin with Run.
func New(o Options) *Alerts {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	if o.Delays == nil {
		o.Delays = standardDelays
	}
	if o.GiveUp == 0 {
		o.GiveUp = standardGiveUp
	}
	o.Now = func() time.Time { return now().UTC() }
	a := &Alerts{options: o, log: o.Logger, setup: o.Setup, apply: make(chan *Setup, 1), reported: map[string]time.Time{}}
	a.published.Store(&snapshot{config: o.Setup.Config})
	return a
}

// Apply replaces the settings, and takes the setup over: Run closes it. It does not block.
func (a *Alerts) Apply(s *Setup) {
	for {
		select {
		case a.apply <- s:
			return
		case old := <-a.apply: // nobody has seen it yet
			a.close(old)
		}
	}
}

func (a *Alerts) close(s *Setup) {
	if err := s.Close(); err != nil {
		a.log.WithError(err).Debug("A receiver of alerts could not be closed.")
	}
}

// Run evaluates and delivers until ctx ends. The state of all that it has done is then in the
// journal.
func (a *Alerts) Run(ctx context.Context) error {
	a.began = a.options.Now()
	a.tally.load(ctx, a.options.Journal, a.log)
	for ctx.Err() == nil {
		next := a.with(ctx)
		a.close(a.setup)
		if next == nil {
			break
		}
		a.setup = next
	}
	select {
	case unused := <-a.apply:
		a.close(unused)
	default:
	}
	return nil
}

// with runs with one setup, and returns the one that replaces it; nil when ctx ends.
func (a *Alerts) with(ctx context.Context) (next *Setup) {
	if a.setup.Enabled() {
		a.log.Infof("Alerts: %s.", a.setup.Summary())
	}
	for _, warning := range a.setup.Warnings {
		a.log.Warn(warning)
	}
	if !a.begin(ctx) {
		return nil
	}
	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	couriers := map[string]*courier{}
	for _, target := range a.setup.Targets {
		c := newCourier(a, target)
		couriers[target.Name()] = c
		running.Go(func() { c.run(ctx) })
	}
	return a.evaluate(ctx, func(receiver string) {
		if c := couriers[receiver]; c != nil {
			c.awake()
		}
	})
}

// begin makes the core ready for a setup. It returns false where ctx ended before.
func (a *Alerts) begin(ctx context.Context) bool {
	if a.core != nil && a.setup.Enabled() && a.writes.known {
		a.core.configure(a.setup.Config)
		a.publish()
		return true
	}
	ask := a.questions()
	ask.running, ask.drifting = a.running(), a.drifting
	core := newCore(a.setup.Config, ask)
	state, err := a.options.Journal.AlertState(ctx)
	for err != nil {
		a.report(fmt.Errorf("what the rules of alerts have found before cannot be read: %w", err))
		if !clock.Sleep(ctx, time.Second) {
			return false
		}
		state, err = a.options.Journal.AlertState(ctx)
	}
	core.load(state)
	id, found, err := a.options.Journal.Cursor(CursorName)
	if err != nil { // the name is wrong
		panic(err)
	}
	a.core, a.writes = core, writes{known: state != nil && found, cursor: id}
	if a.cursor = id; !found || !a.setup.Enabled() {
		// Nothing from before is news.
		a.core = newCore(a.setup.Config, core.ask)
		a.core.counters = core.counters
		a.core.start(a.options.Now())
		a.cursor, a.writes.known = a.options.Journal.LastID(), false
	}
	a.core.now = a.options.Now()
	a.publish()
	return state == nil && !a.setup.Enabled() || a.writes.known || a.commit(ctx)
}

// reportTime is the time between two lines of the log about the same failure.
const reportTime = time.Hour

// report logs a failure, unless the same was logged not long ago.
func (a *Alerts) report(err error) {
	if text := err.Error(); a.fresh(text) {
		a.log.Errorf("Alerts: %s", text)
	}
}

// fresh reports whether a failure was not logged for a while, and notes that it is now.
func (a *Alerts) fresh(text string) bool {
	now := a.options.Now()
	a.reportMutex.Lock()
	defer a.reportMutex.Unlock()
	if now.Sub(a.reported[text]) < reportTime {
		return false
	}
	if len(a.reported) > 1000 {
		clear(a.reported)
	}
	a.reported[text] = now
	return true
}

// decode reads the notification of a delivery.
func decode(d *journal.Delivery) (*notify.Notification, error) {
	n := &notify.Notification{}
	if err := json.Unmarshal(d.Notification, n); err != nil {
		return nil, fmt.Errorf("the notification %s in the journal is damaged: %w", d.ID, err)
	}
	return n, nil
}
