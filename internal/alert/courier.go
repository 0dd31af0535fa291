package alert

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/clock"
	"portwatcher/internal/journal"
)

const (
	standardGiveUp = 72 * time.Hour
	// maxAsked bounds how long a receiver can ask to wait.
	maxAsked = 24 * time.Hour
	// jitter is the part of a delay by which it is longer at most.
	jitter = 0.1
	// resendTime is how often an Alertmanager receives what lasts: less than half of
	// [notify.StandardHold]. Its deliveries are repeated as often: their identity is that of the
	// alert, and what it does not hold it forgets.
	resendTime = time.Minute
)

// standardDelays are Options.Delays where there are none.
var standardDelays = []time.Duration{5 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}

// delayAfter returns the time until the next try after so many.
func delayAfter(delays []time.Duration, tried int, asked time.Duration, random float64) time.Duration {
	delay := delays[min(max(tried, 1), len(delays))-1]
	delay += time.Duration(float64(delay) * jitter * random)
	return max(delay, min(asked, maxAsked))
}

// courier delivers to one receiver, in its own goroutine.
type courier struct {
	alerts *Alerts
	target notify.Receiver
	wake   chan struct{}
	fresh  bool // the first delivery is tried at once: the receiver may be another one now
}

func newCourier(a *Alerts, target notify.Receiver) *courier {
	return &courier{alerts: a, target: target, wake: make(chan struct{}, 1), fresh: true}
}

// awake makes the courier read the outbox.
func (c *courier) awake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run delivers until ctx ends.
func (c *courier) run(ctx context.Context) {
	var resend <-chan time.Time
	if c.target.Kind() == notify.KindAlertmanager {
		ticker := time.NewTicker(resendTime)
		defer ticker.Stop()
		resend = ticker.C
	}
	for ctx.Err() == nil {
		pause := c.deliver(ctx)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-timer.C:
		case <-resend:
			c.resend(ctx)
		}
		timer.Stop()
	}
}

// idle is how long an empty outbox is not read without a signal.
const idle = time.Hour

// deliver tries what is due, one after another, and returns the time until something is.
func (c *courier) deliver(ctx context.Context) time.Duration {
	a := c.alerts
	for ctx.Err() == nil {
		d, err := a.options.Journal.NextDelivery(ctx, c.target.Name())
		if err != nil {
			if ctx.Err() == nil {
				a.tally.problem(c.target.Name(), err)
			}
			return retryTime
		}
		if d == nil {
			return idle
		}
		if wait := d.Due.Sub(a.options.Now()); wait > 0 && !c.fresh {
			return wait
		}
		c.fresh = false
		if !c.try(ctx, d) {
			return retryTime
		}
	}
	return idle
}

// try makes one try, and records it. It returns false where ctx ended before there was a result.
func (c *courier) try(ctx context.Context, d *journal.Delivery) bool {
	a := c.alerts
	outcome := notify.Outcome{Gone: true}
	var n *notify.Notification
	if n, outcome.Err = decode(d); outcome.Err == nil {
		bounded, cancel := context.WithTimeout(ctx, notify.Timeout+time.Second)
		outcome = c.target.Send(bounded, n)
		cancel()
	}
	if ctx.Err() != nil && !outcome.Delivered {
		return false // the end of the program ended it
	}
	now := a.options.Now()
	d.Tried++
	try := journal.Try{Time: now.UTC(), Status: outcome.Status, Delivered: outcome.Delivered, Response: outcome.Response}
	if try.Error = outcome.Warning; outcome.Err != nil {
		try.Error = outcome.Err.Error()
	}
	d.Tries = append(d.Tries, try)
	switch {
	case outcome.Delivered:
		d.State, d.Finished = journal.DeliveryDelivered, now
	case outcome.Gone, now.Sub(d.Made) >= a.options.GiveUp:
		d.State, d.Finished = journal.DeliveryDead, now
	default:
		d.Due = now.Add(c.delay(d.Tried, outcome.RetryAfter))
	}
	if !c.record(ctx, d) {
		return false
	}
	c.report(d, &try)
	return true
}

func (c *courier) delay(tried int, asked time.Duration) time.Duration {
	random := rand.Float64
	if c.alerts.options.Jitter != nil {
		random = c.alerts.options.Jitter
	}
	delay := delayAfter(c.alerts.options.Delays, tried, asked, random())
	if c.target.Kind() == notify.KindAlertmanager {
		delay = min(delay, resendTime)
	}
	return delay
}

// record writes the result of a try, until it is written. Where ctx ends it makes one attempt
// more: without the result the delivery is tried again after the next start, with the same id.
func (c *courier) record(ctx context.Context, d *journal.Delivery) bool {
	a := c.alerts
	for {
		ended := ctx.Err() != nil
		err := a.options.Journal.RecordTry(context.WithoutCancel(ctx), d)
		if err == nil {
			return true
		}
		a.tally.problem(c.target.Name(), err)
		a.report(err)
		if ended {
			return false
		}
		clock.Sleep(ctx, retryTime)
	}
}

// report counts and logs a try.
func (c *courier) report(d *journal.Delivery, try *journal.Try) {
	a, name := c.alerts, c.target.Name()
	a.tally.tried(name, d, try)
	log := a.log.WithFields(map[string]any{"receiver": name, "id": d.ID})
	message := "A message with one alert"
	if d.Alerts != 1 {
		message = fmt.Sprintf("A message with %d alerts", d.Alerts)
	}
	switch {
	case d.State == journal.DeliveryDelivered && try.Error != "":
		log.Warnf("%s was delivered in part: %s", message, try.Error)
	case d.State == journal.DeliveryDelivered:
		log.Info(message + " was delivered.")
	case d.State == journal.DeliveryDead:
		log.Errorf("%s is given up after %d tries: %s", message, d.Tried, try.Error)
	case d.Tried == 1:
		log.Warnf("%s was not delivered: %s. It is tried again for up to 3 days.", message, try.Error)
	default:
		log.Debugf("%s was not delivered by try %d: %s", message, d.Tried, try.Error)
	}
}

// resend sends an Alertmanager what lasts, so that it does not take it for ended. A failure is
// counted; the next time repeats it.
func (c *courier) resend(ctx context.Context) {
	a := c.alerts
	ask, known := a.questions(), a.published.Load()
	for _, n := range known.lasting(c.target.Name(), a.options.Now()) {
		urgent := notify.Urgent(n.Alerts, maxEnriched)
		for i := range n.Alerts {
			ask.enrich(known.config, &n.Alerts[i], urgent[i])
		}
		bounded, cancel := context.WithTimeout(ctx, notify.Timeout+time.Second)
		outcome := c.target.Send(bounded, n)
		cancel()
		if outcome.Err != nil && ctx.Err() == nil {
			a.tally.problem(c.target.Name(), outcome.Err)
			return
		}
	}
}
