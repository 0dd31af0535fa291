package alert

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/journal"
)

// alert puts an alert on its way to the receivers of its rule.
func (c *core) alert(r *Rule, a notify.Alert) {
	for _, name := range r.To {
		o := c.receivers[name]
		if o == nil {
			continue
		}
		if o.waiting() >= maxWaiting {
			c.dropped++
			continue
		}
		c.counters.Entry++
		e := &entry{Receiver: name, At: c.now, Alert: a, Container: keep(a.Event), number: c.counters.Entry}
		to := e.group()
		g := o.groups[to]
		if g == nil {
			g = &gathering{due: c.now.Add(c.config.GroupWait)}
			o.groups[to] = g
			c.sooner(g.due)
		}
		g.entries = c.join(g.entries, e)
		c.put(entryKey(e), e)
	}
}

// join appends an entry. Of one condition it keeps the latest alert alone: what has begun and
// ends before it is sent is one alert, its end.
func (c *core) join(entries []*entry, e *entry) []*entry {
	if e.Alert.Status == notify.Firing && c.conditions[e.Alert.Key] == nil {
		return append(entries, e) // a moment
	}
	entries = slices.DeleteFunc(entries, func(before *entry) bool {
		a, b := &before.Alert, &e.Alert
		same := before != e && a.Key == b.Key && a.Since.Equal(b.Since) &&
			(a.Event.ID == b.Event.ID || a.Status == notify.Resolved || b.Status == notify.Resolved)
		if same {
			c.put(entryKey(before), nil)
		}
		return same
	})
	return append(entries, e)
}

// sooner makes the receivers due at a time at the latest.
func (c *core) sooner(at time.Time) {
	if c.due.IsZero() || at.Before(c.due) {
		c.due = at
	}
}

// dispatch makes messages of what is due: groups, and what was held back.
func (c *core) dispatch() {
	for _, name := range slices.Sorted(maps.Keys(c.receivers)) {
		o := c.receivers[name]
		c.release(name, o)
		groups := slices.SortedFunc(maps.Keys(o.groups), func(a, b group) int {
			return cmp.Or(o.groups[a].due.Compare(o.groups[b].due), cmp.Compare(a.host, b.host), cmp.Compare(a.project, b.project))
		})
		for _, key := range groups {
			if g := o.groups[key]; !g.due.After(c.now) {
				delete(o.groups, key)
				c.send(name, o, g.entries)
			}
		}
	}
	c.plan()
}

// send makes a message of a group, and holds back what quiet hours or the bound on the rate
// hold.
func (c *core) send(name string, o *outbound, entries []*entry) {
	var now []*entry
	full := c.full(o)
	for _, e := range entries {
		if o.kind != notify.KindAlertmanager && (full || c.config.quietly(c.now, e.Alert.Severity)) {
			c.hold(o, e)
			continue
		}
		now = append(now, e)
	}
	c.message(name, o, now, false)
}

// hold keeps an alert until it may be sent.
func (c *core) hold(o *outbound, e *entry) {
	e.Held = true
	o.held = c.join(o.held, e)
	c.put(entryKey(e), e)
}

// full reports whether a receiver was sent all that it may be sent within an hour.
func (c *core) full(o *outbound) bool {
	hour := c.now.Add(-time.Hour)
	o.sent = slices.DeleteFunc(o.sent, func(t time.Time) bool { return !t.After(hour) })
	return len(o.sent) >= c.config.MaxPerHour
}

// release makes one message of all that was held back and may be sent now.
func (c *core) release(name string, o *outbound) {
	if len(o.held) == 0 || c.full(o) && o.kind != notify.KindAlertmanager {
		return
	}
	var now []*entry
	o.held = slices.DeleteFunc(o.held, func(e *entry) bool {
		free := o.kind == notify.KindAlertmanager || !c.config.quietly(c.now, e.Alert.Severity)
		if free {
			now = append(now, e)
		}
		return free
	})
	slices.SortFunc(now, func(a, b *entry) int { return cmp.Compare(a.number, b.number) })
	c.message(name, o, now, true)
}

// message writes deliveries, of which each has some of the entries. Those for which there is no
// room in the hour are held back.
func (c *core) message(name string, o *outbound, entries []*entry, digest bool) {
	for some := range slices.Chunk(entries, maxAlerts) {
		if c.full(o) && o.kind != notify.KindAlertmanager {
			for _, e := range some {
				c.hold(o, e)
			}
			continue
		}
		o.sent = append(o.sent, c.now)
		c.put(journal.StateKey{Kind: kindSent, Key: name}, &sent{Times: slices.Clone(o.sent)})
		n := &notify.Notification{Time: c.now, Digest: digest, Severity: notify.Info}
		first := some[0].group()
		n.Host, n.Project = first.host, first.project
		for _, e := range some {
			n.Alerts = append(n.Alerts, e.Alert)
		}
		urgent := notify.Urgent(n.Alerts, maxEnriched)
		for i, e := range some {
			c.put(entryKey(e), nil)
			if e.Alert.Severity.Compare(n.Severity) > 0 {
				n.Severity = e.Alert.Severity
			}
			if e.group().project != n.Project {
				n.Project = ""
			}
			c.ask.enrich(c.config, &n.Alerts[i], urgent[i])
		}
		c.deliver(name, n)
	}
}

// deliver adds a delivery.
func (c *core) deliver(name string, n *notify.Notification) {
	c.counters.Delivery++
	n.ID = fmt.Sprintf("%s/%d/%d", n.Host, n.Alerts[0].Event.ID, c.counters.Delivery)
	c.put(journal.StateKey{Kind: kindCounters}, &c.counters)
	encoded, err := json.Marshal(n)
	if err != nil {
		c.dropped += uint64(len(n.Alerts))
		c.ask.report(fmt.Errorf("encode the notification %s: %w", n.ID, err))
		return
	}
	c.deliveries = append(c.deliveries, journal.Delivery{
		Seq: c.counters.Delivery, ID: n.ID, Receiver: name, State: journal.DeliveryPending, Made: c.now, Due: c.now, Alerts: len(n.Alerts), Notification: encoded,
		Title: notify.Render(n).Title, Severity: string(n.Severity), Digest: n.Digest,
	})
}

// plan sets when receivers are due.
func (c *core) plan() {
	c.due = time.Time{}
	for _, o := range c.receivers {
		for _, g := range o.groups {
			c.sooner(g.due)
		}
		if len(o.held) > 0 {
			c.sooner(c.freeAt(o))
		}
	}
}

// quietStep is how often what quiet hours hold back is compared with the time of day: they
// begin and end at full minutes.
const quietStep = time.Minute

// freeAt returns when something that is held back may be free: when there is room in the hour,
// or at the next full minute.
func (c *core) freeAt(o *outbound) time.Time {
	if c.full(o) && len(o.sent) > 0 {
		return o.sent[0].Add(time.Hour)
	}
	return c.now.Truncate(quietStep).Add(quietStep)
}
