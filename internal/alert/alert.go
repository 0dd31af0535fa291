// Package alert evaluates rules over the events of the journal, and delivers what they find.
//
// It reads the journal by a cursor, so that it loses no event and repeats none: the cursor, what
// the rules have found so far, and the deliveries that follow from it change in one transaction.
// Deliveries leave the outbox one after another, each receiver for itself, at least once, with the
// same id at each try.
//
// It observes nothing, and does not judge what is expected: events carry their drift. How a
// message looks, and how it is sent, is the business of package notify.
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
	clock := time.Now
	if o.Now != nil {
		clock = o.Now
	}
	if o.Delays == nil {
		o.Delays = standardDelays
	}
	if o.GiveUp == 0 {
		o.GiveUp = standardGiveUp
	}
	o.Now = func() time.Time { return clock().UTC() }
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
		if !a.sleep(ctx, time.Second) {
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

// questions returns what messages need of the surroundings; any goroutine may ask.
func (a *Alerts) questions() surroundings {
	return surroundings{
		before: func(e *model.Event) (*previous, error) { return before(a.options.Journal, e) },
		entry:  a.entry, report: a.report,
	}
}

// pageLength is how many events are evaluated at a time, and one transaction at most.
const pageLength = 1000

// rest is how long evaluation waits at least before it reads new events: it costs the writer of
// the journal less, and a message waits for its group anyway.
const rest = 100 * time.Millisecond

// evaluate reads events and does what is due, until ctx ends or there is another setup.
func (a *Alerts) evaluate(ctx context.Context, wake func(receiver string)) *Setup {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		if !a.setup.Enabled() {
			select {
			case <-ctx.Done():
				return nil
			case next := <-a.apply:
				return next
			}
		}
		committed := a.options.Journal.Committed()
		more := a.round(ctx)
		if !a.step(ctx, wake) {
			break
		}
		if more {
			continue
		}
		if !a.sleep(ctx, rest) {
			break
		}
		timer.Reset(a.pause())
		select {
		case <-ctx.Done():
		case <-committed:
		case <-timer.C:
		case next := <-a.apply:
			return next
		}
	}
	return nil
}

// round evaluates a page of events, and what is due when there are no more.
func (a *Alerts) round(ctx context.Context) (more bool) {
	count := 0
	a.rounds++
	a.core.waits = !a.complete(a.options.Now())
	for e, err := range a.options.Journal.Events(ctx, journal.Query{AfterID: a.cursor, FromStart: true, Limit: pageLength}) {
		damaged, isDamaged := errors.AsType[*journal.DamagedError](err)
		switch {
		case isDamaged:
			a.report(err)
			a.cursor = damaged.ID
		case err != nil:
			if ctx.Err() == nil {
				a.report(fmt.Errorf("events for the rules of alerts: %w", err))
			}
			return false
		default:
			a.core.event(e)
			a.cursor = e.ID
		}
		count++
	}
	if count == pageLength {
		return true
	}
	if now := a.options.Now(); a.complete(now) {
		a.core.advance(now)
		a.keepHouse(ctx, now)
	}
	return false
}

// settleTime is how long the start of the capture is waited for at most.
const settleTime = time.Minute

// complete reports whether events have come up to now: the capture has compared what is open
// with what was open before the program started.
func (a *Alerts) complete(now time.Time) bool {
	if !a.ready {
		a.ready = a.options.Ready == nil || a.options.Ready() == nil || now.Sub(a.began) > settleTime
	}
	return a.ready
}

// cursorTime is how often the cursor is written where nothing else is: after a kill the events
// since are evaluated again, with the same result.
const cursorTime = time.Second

// step writes what has changed, and wakes the receivers of new deliveries. It returns false where
// ctx ended.
func (a *Alerts) step(ctx context.Context, wake func(receiver string)) bool {
	deliveries := a.core.deliveries
	if len(a.core.changed) == 0 && len(deliveries) == 0 {
		if a.cursor == a.writes.cursor || a.options.Now().Sub(a.writes.at) < cursorTime {
			return true
		}
	}
	if !a.commit(ctx) {
		return false
	}
	for i := range deliveries {
		a.tally.added(deliveries[i].Receiver)
		wake(deliveries[i].Receiver)
	}
	a.publish()
	return true
}

// retryTime is the time between two attempts to write.
const retryTime = time.Second

// commit writes a step, until it is written or ctx ends.
func (a *Alerts) commit(ctx context.Context) bool {
	put, deliveries, err := a.core.take()
	step := &journal.AlertStep{Cursor: CursorName, ID: a.cursor, Put: put, Deliveries: deliveries, Whole: !a.writes.known, Off: !a.setup.Enabled()}
	for {
		if step.Whole && err == nil {
			step.Put, err = a.core.whole()
		}
		if err == nil {
			// The end of the program does not interrupt a write.
			err = a.options.Journal.WriteAlerts(context.WithoutCancel(ctx), step)
		}
		switch {
		case err == nil:
			if a.writes.failed {
				a.log.Warn("Alerts are written to the journal again. Nothing was lost.")
			}
			a.writes = writes{at: a.options.Now(), cursor: a.cursor, known: !step.Off}
			return true
		case errors.Is(err, journal.ErrAlertsLost):
			a.log.WithError(err).Error("The journal is a new one. Messages that had not been delivered are lost; what the rules have found since is not.")
			a.tally.reset()
			step.Whole, err = true, nil
			continue
		case !a.writes.failed:
			a.log.WithError(err).Error("Alerts cannot be written to the journal. Nothing is sent until they can; it is tried every second.")
			a.writes.failed = true
		}
		if !a.sleep(ctx, retryTime) {
			return false
		}
		err = nil
	}
}

// pause returns how long there is nothing to do without new events.
func (a *Alerts) pause() time.Duration {
	if !a.ready || a.cursor != a.writes.cursor {
		return time.Second
	}
	next := a.janitor
	if due := a.core.next(); !due.IsZero() && due.Before(next) {
		next = due
	}
	return max(next.Sub(a.options.Now()), time.Millisecond)
}

func (a *Alerts) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
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

// running returns the function of that name of surroundings, by the view of the capture; nil
// where there is none.
func (a *Alerts) running() func(id string, since time.Time) (running, known bool) {
	if a.options.View == nil {
		return nil
	}
	var of *model.View
	round := uint64(0)
	started := map[string]time.Time{}
	return func(id string, since time.Time) (bool, bool) {
		if round != a.rounds || of == nil { // a view for each event would cost more than the rules
			view := a.options.View()
			if view == nil || !a.ready || !view.Status.Engine.Connected {
				return false, false
			}
			if of == nil || of.Version != view.Version {
				clear(started)
				for i := range view.Containers {
					started[view.Containers[i].ID] = view.Containers[i].StartedAt
				}
			}
			of, round = view, a.rounds
		}
		at, running := started[id]
		return running && !at.After(since), true
	}
}

// entry returns the lines to add to the file of expectations for the drift of an event.
func (a *Alerts) entry(e *model.Event) string {
	if d := a.openDrift(e); d != nil {
		return d.Entry
	}
	return ""
}

func (a *Alerts) drifting(e *model.Event) bool { return a.openDrift(e) != nil }

// openDrift returns the drift of an event while it lasts; nil where it does not, or that is not
// known.
func (a *Alerts) openDrift(e *model.Event) *model.OpenDrift {
	if a.options.View == nil || e.Container == nil {
		return nil
	}
	view, key := a.options.View(), driftKey(e)
	if view == nil {
		return nil
	}
	for i := range view.Drifts {
		if d := &view.Drifts[i]; d.Key() == key {
			return d
		}
	}
	return nil
}

const (
	// houseTime is how often old deliveries are deleted, and drifts compared with the view.
	houseTime = time.Minute
	// keepTime and keepCount bound the deliveries that are kept after their end.
	keepTime, keepCount = 30 * 24 * time.Hour, 10_000
)

// keepHouse does what is due from time to time.
func (a *Alerts) keepHouse(ctx context.Context, now time.Time) {
	if now.Before(a.janitor) {
		return
	}
	a.janitor = now.Add(houseTime)
	deleted, err := a.options.Journal.TrimDeliveries(ctx, now.Add(-keepTime), keepCount)
	if err != nil && ctx.Err() == nil {
		a.report(err)
	}
	if deleted > 0 {
		a.tally.countDead(ctx, a.options.Journal)
	}
	a.abandon(ctx, now)
	if a.options.View == nil {
		return
	}
	view := a.options.View()
	if view == nil || !view.Status.Engine.Connected {
		return
	}
	lasting := make(map[model.DriftKey]bool, len(view.Drifts))
	for i := range view.Drifts {
		lasting[view.Drifts[i].Key()] = true
	}
	a.suspects = a.core.reconcile(lasting, a.suspects)
}

// abandon ends the deliveries to receivers that the settings have no more, after the time for
// which they would have been tried.
func (a *Alerts) abandon(ctx context.Context, now time.Time) {
	for _, receiver := range a.tally.pendingOf() {
		if a.setup.kind(receiver) != "" {
			continue
		}
		for {
			d, err := a.options.Journal.NextDelivery(ctx, receiver)
			if err != nil || d == nil || now.Sub(d.Made) < a.options.GiveUp {
				break
			}
			d.State, d.Finished = journal.DeliveryDead, now
			d.Tries = append(d.Tries, journal.Try{Time: now, Error: "the settings have no receiver of this name any more"})
			if err := a.options.Journal.RecordTry(ctx, d); err != nil {
				break
			}
			a.tally.finished(receiver, journal.DeliveryDead)
			a.log.Errorf("The message %s to the receiver %s is given up: the settings have no receiver of this name any more.", d.ID, receiver)
		}
	}
}

// decode reads the notification of a delivery.
func decode(d *journal.Delivery) (*notify.Notification, error) {
	n := &notify.Notification{}
	if err := json.Unmarshal(d.Notification, n); err != nil {
		return nil, fmt.Errorf("the notification %s in the journal is damaged: %w", d.ID, err)
	}
	return n, nil
}
