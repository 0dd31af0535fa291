package expect

import (
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// period is a drift that lasts, or that ended less than lingerTime ago.
type period struct {
	since    time.Time
	expected string
	// open are the endpoints that drift, each with its description. A missing port has one
	// without an endpoint, and an uncovered target one for each container.
	open map[model.Endpoint]*model.Listener
	last *model.Listener // the description of the last that ended
	// ended and linger are set while none is open: when the last one ended, and until when the
	// period may begin again.
	ended  time.Time
	linger clock.Instant
	// restored means that it is of an earlier run, and that no endpoint was found for it yet.
	restored bool
}

// begin adds an endpoint to a period, and reports whether the period is new.
func (j *Judge) begin(key model.DriftKey, endpoint model.Endpoint, l *model.Listener, expected string, at time.Time) bool {
	p := j.periods[key]
	if p == nil {
		if j.perTarget[key.Target] >= MaxPeriods {
			j.crowded[key.Target] = true
			return true
		}
		p = &period{since: at.UTC(), expected: expected, open: map[model.Endpoint]*model.Listener{endpoint: l}}
		j.periods[key] = p
		j.perTarget[key.Target]++
		j.change(key, p)
		return true
	}
	again := len(p.open) == 0
	p.open[endpoint] = l
	changed := again && !p.restored || p.expected != expected
	p.ended, p.restored, p.expected = time.Time{}, false, expected
	if changed {
		j.change(key, p)
	}
	return false
}

// end removes an endpoint from a period, which lingers without one.
func (j *Judge) end(key model.DriftKey, endpoint model.Endpoint, now clock.Instant, at time.Time) {
	p := j.periods[key]
	if p == nil || p.open[endpoint] == nil {
		return
	}
	p.last = p.open[endpoint]
	delete(p.open, endpoint)
	if len(p.open) > 0 {
		return
	}
	p.ended, p.linger = at.UTC(), lingerUntil(now)
	j.next.earlier(p.linger)
	if key.Drift != model.DriftUncovered { // its end is known when it does not run again
		j.change(key, p)
	}
}

// lingerUntil returns until when a period that ends now may begin again: at a full second, so that
// many periods are forgotten together.
func lingerUntil(now clock.Instant) clock.Instant {
	const second = clock.Instant(time.Second)
	return (now.Add(lingerTime) + second - 1) / second * second
}

// finish ends a period for good, at a time.
func (j *Judge) finish(key model.DriftKey, p *period, at time.Time) {
	if p.ended.IsZero() {
		p.ended = at.UTC()
		j.change(key, p)
	}
	j.drop(key)
}

func (j *Judge) drop(key model.DriftKey) {
	delete(j.periods, key)
	if j.perTarget[key.Target]--; j.perTarget[key.Target] <= 0 {
		delete(j.perTarget, key.Target)
	}
}

// change notes that a period has begun, ended or begun again.
func (j *Judge) change(key model.DriftKey, p *period) {
	j.changed = append(j.changed, model.DriftPeriod{OpenDrift: p.describe(key), Ended: p.ended})
}

// expirePeriods forgets the periods that may not begin again. That a target without any
// container is not uncovered any more is an event then.
func (j *Judge) expirePeriods(now clock.Instant, wall time.Time) {
	for key, p := range j.periods {
		if len(p.open) > 0 || now.Before(p.linger) {
			continue
		}
		if key.Drift == model.DriftUncovered {
			at := p.ended
			if at.IsZero() { // of an earlier run
				at = wall
			}
			p.ended = time.Time{}
			reason := "no container of it runs"
			if j.runs(key.Target) {
				reason = "an expectation covers it now"
			}
			j.emit(key.Drift, true, p.last, "", reason, wall)
			j.finish(key, p, at)
			continue
		}
		j.finish(key, p, wall)
	}
}

// describe returns the period for readers.
func (p *period) describe(key model.DriftKey) model.OpenDrift {
	l := p.last
	var first model.Endpoint
	for endpoint, one := range p.open {
		if l == p.last || endpoint.Compare(first) < 0 {
			first, l = endpoint, one
		}
	}
	d := model.OpenDrift{Drift: key.Drift, Since: p.since, Target: key.Target, Expected: p.expected}
	if l != nil {
		d.Listener = *l
	}
	if key.Drift != model.DriftMissing && key.Drift != model.DriftUncovered {
		d.Endpoints = len(p.open)
	}
	d.Entry = EntryFor(&d)
	return d
}

// restorePeriod adds a period of an earlier run.
func (j *Judge) restorePeriod(d *model.DriftPeriod) {
	key := d.Key()
	if j.periods[key] != nil || !d.Ended.IsZero() || j.perTarget[key.Target] >= MaxPeriods {
		return
	}
	p := &period{since: d.Since, expected: d.Expected, open: map[model.Endpoint]*model.Listener{}, last: &d.Listener, restored: true}
	if key.Drift == model.DriftMissing {
		p.open[model.Endpoint{}], p.restored = &d.Listener, false
	}
	j.periods[key] = p
	j.perTarget[key.Target]++
}

// Restored applies that an endpoint of an earlier run is open, with the drift that it had then.
func (j *Judge) Restored(o *model.Open, wall time.Time) {
	if o.Drift == "" || o.Container == nil {
		return
	}
	key := keyOf(o.Drift, &o.Listener)
	endpoint := o.Endpoint()
	p := j.periods[key]
	expected := ""
	if p != nil {
		expected = p.expected
	}
	since := o.DriftSince
	if since.IsZero() {
		since = wall
	}
	j.begin(key, endpoint, &o.Listener, expected, since)
	j.endpoints[endpoint] = &judged{drift: o.Drift, key: key}
}
