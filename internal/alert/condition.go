package alert

import (
	"time"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// found begins a condition, or continues it.
func (c *core) found(r *Rule, e *model.Event) {
	if e.Ended || r.ofDrift && e.Type == model.Closed && e.Drift != "" {
		return // the drift of the event has ended with it
	}
	if !r.lasts(e) {
		c.alert(r, notify.Alert{
			Key: keyOf(r, e), Rule: r.Name, Severity: r.Severity, Status: notify.Firing, Since: e.Time, Event: e,
		})
		return
	}
	key := keyOf(r, e)
	known := c.conditions[key]
	if known == nil {
		if len(c.conditions) >= maxConditions {
			c.dropped++
			return
		}
		known = &condition{Key: key, Rule: r.Name, Severity: r.Severity, Since: e.Time, Event: e, Container: keep(e), Endpoints: map[string]bool{}, at: -1}
		known.Due = c.now.Add(r.For)
		c.add(known)
	}
	if !known.Ends.IsZero() { // a restart continues it
		known.Ends, known.Closed = time.Time{}, nil
		c.save(known)
	}
	if endpoint := endpointOf(e); endpoint != "" && !known.Endpoints[endpoint] {
		known.Endpoints[endpoint] = true
		c.save(known)
	}
	if r.For == 0 && known.pending() {
		c.fire(known)
	}
}

// ends reports whether an event ends a condition for its endpoint.
func (c *core) ends(k *condition, e *model.Event) bool {
	r := c.rule(k.Rule)
	if r.ofDrift && k.Event.Drift != "" {
		switch {
		case e.Transient || e.Type == model.Bursts:
			return false
		case e.Type == model.Drifted && e.Ended:
			return e.Drift == k.Event.Drift
		case k.Event.Drift == model.DriftMissing:
			return e.Type == model.Opened
		case k.Event.Drift == model.DriftUncovered:
			return false
		case e.Type == model.Closed:
			return true
		case e.Type == model.Opened, e.Type == model.Changed, e.Type == model.Drifted:
			return keyOf(r, e) != k.Key || e.Drift != k.Event.Drift
		}
		return false
	}
	if k.Event.Type == model.Closed {
		return e.Type == model.Opened && !e.Transient
	}
	return e.Type == model.Closed && !e.Transient || e.Type == model.Changed && e.Exposure != k.Event.Exposure
}

// leave ends a condition for the endpoint of an event, and as a whole with its last endpoint.
func (c *core) leave(k *condition, e *model.Event) {
	endpoint := endpointOf(e)
	whole := endpoint == "" || len(k.Endpoints) == 0 || k.Event.Type == model.Closed ||
		k.Event.Drift == model.DriftMissing || k.Event.Drift == model.DriftUncovered
	if !whole {
		if !k.Endpoints[endpoint] {
			return
		}
		delete(k.Endpoints, endpoint)
		if len(k.Endpoints) > 0 {
			c.save(k)
			return
		}
	}
	if e.Type == model.Closed && !k.pending() {
		k.Ends, k.Closed = c.now.Add(lingerTime), e
		c.save(k)
		return
	}
	c.end(k, e, e.Time)
}

// lingerTime is how long what has closed may begin again as the same condition: a container that
// is restarted or recreated ends none. Expectations allow as much.
const lingerTime = time.Minute

// end ends a condition, and notifies that if its beginning was notified.
func (c *core) end(k *condition, e *model.Event, at time.Time) {
	if !k.pending() {
		c.alert(c.rule(k.Rule), notify.Alert{
			Key: k.Key, Rule: k.Rule, Severity: k.Severity, Status: notify.Resolved, Since: k.Since, Until: at, Event: e,
		})
	}
	c.remove(k)
}

// fire notifies a condition: it has lasted for the time of its rule, or is repeated.
func (c *core) fire(k *condition) {
	k.Due, k.Last = time.Time{}, c.now
	c.save(k)
	c.alert(c.rule(k.Rule), c.firing(k))
}

// firing returns the alert of a condition that lasts.
func (c *core) firing(k *condition) notify.Alert {
	return notify.Alert{Key: k.Key, Rule: k.Rule, Severity: k.Severity, Status: notify.Firing, Since: k.Since, Event: k.Event}
}

// nextOf returns when something of a condition is due; zero for never.
func (c *core) nextOf(k *condition) time.Time {
	switch {
	case k.pending():
		return k.Due
	case !k.Ends.IsZero():
		return k.Ends
	case c.config.Repeat > 0:
		return k.Last.Add(c.config.Repeat)
	}
	return time.Time{}
}

// postponed is how long a condition waits for what is not known yet.
const postponed = 5 * time.Second

// duly does what is due of a condition: the end of its for, or a repetition.
func (c *core) duly(k *condition) {
	switch {
	case !k.pending() && !k.Ends.IsZero():
		c.close(k, k.Closed)
		return
	case !k.pending():
		c.fire(k)
		return
	}
	if c.rule(k.Rule).ofRunning && k.Event.Container != nil && c.ask.running != nil {
		if _, known := c.ask.running(k.Event.Container.ID, k.Event.Time); !known {
			k.Due = c.now.Add(postponed)
			c.schedule.set(k, k.Due)
			return
		}
	}
	c.begin(k.Event)
	if !c.matches(c.rule(k.Rule)) {
		c.remove(k)
		return
	}
	c.fire(k)
}

// close ends a condition whose last endpoint has closed, by an event. Where the drift lasts all the
// same, it does so at endpoints of which no event was read: drift events name one of several.
func (c *core) close(k *condition, e *model.Event) {
	if k.Event.Drift != "" && c.ask.drifting != nil && c.ask.drifting(k.Event) {
		k.Ends, k.Closed = time.Time{}, nil
		c.save(k)
		return
	}
	c.end(k, e, k.Closed.Time)
}

// reconcile ends the conditions of drifts that do not last, of which no event reported the end:
// the container is not monitored any more.
func (c *core) reconcile(lasts func(model.DriftKey) bool, ended map[string]bool) (suspects map[string]bool) {
	suspects = map[string]bool{}
	for key, k := range c.conditions {
		if k.Event.Drift == "" || !k.Ends.IsZero() || k.Event.Container == nil || !c.rule(k.Rule).ofDrift || lasts(driftKey(k.Event)) {
			continue
		}
		if !ended[key] {
			suspects[key] = true
			continue
		}
		c.end(k, k.Event, c.now)
	}
	return suspects
}

func driftKey(e *model.Event) model.DriftKey {
	key := model.DriftKey{Drift: e.Drift, Target: e.Container.Target(), Protocol: e.Protocol, Port: e.Port, Exposure: e.Exposure}
	switch e.Drift {
	case model.DriftMissing:
		key.Exposure = ""
	case model.DriftUncovered:
		key.Protocol, key.Port, key.Exposure = 0, 0, ""
	}
	return key
}

func (c *core) add(k *condition) {
	c.conditions[k.Key] = k
	spot := spotOf(k.Event)
	if c.spots[spot] == nil {
		c.spots[spot] = map[*condition]bool{}
	}
	c.spots[spot][k] = true
	c.save(k)
}

func (c *core) save(k *condition) {
	c.put(journal.StateKey{Kind: kindCondition, Key: k.Key}, k)
	c.schedule.set(k, c.nextOf(k))
}

func (c *core) remove(k *condition) {
	c.schedule.remove(k)
	delete(c.conditions, k.Key)
	spot := spotOf(k.Event)
	delete(c.spots[spot], k)
	if len(c.spots[spot]) == 0 {
		delete(c.spots, spot)
	}
	c.put(journal.StateKey{Kind: kindCondition, Key: k.Key}, nil)
}
