package alert

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"portwatcher/internal/journal"
)

// The kinds of values in the journal.
const (
	kindCondition = "condition"
	kindEntry     = "entry"
	kindSent      = "sent"
	kindCounters  = "counters"
)

func entryKey(e *entry) journal.StateKey {
	return journal.StateKey{Kind: kindEntry, Key: strconv.FormatUint(e.number, 10)}
}

// put notes a value to write; nil removes it.
func (c *core) put(key journal.StateKey, value any) { c.changed[key] = value }

// take returns what has changed since the last call, and forgets it.
func (c *core) take() (put map[journal.StateKey]json.RawMessage, deliveries []journal.Delivery, err error) {
	if len(c.changed) > 0 {
		c.put(journal.StateKey{Kind: kindCounters}, &c.counters)
	}
	put, err = encodeState(c.changed)
	clear(c.changed)
	deliveries, c.deliveries = c.deliveries, nil
	return put, deliveries, err
}

// whole returns everything, as take does for what has changed.
func (c *core) whole() (map[journal.StateKey]json.RawMessage, error) {
	all := map[journal.StateKey]any{{Kind: kindCounters}: &c.counters}
	for key, k := range c.conditions {
		all[journal.StateKey{Kind: kindCondition, Key: key}] = k
	}
	for name, o := range c.receivers {
		all[journal.StateKey{Kind: kindSent, Key: name}] = &sent{Times: o.sent}
		for _, e := range o.all() {
			all[entryKey(e)] = e
		}
	}
	return encodeState(all)
}

func encodeState(values map[journal.StateKey]any) (map[journal.StateKey]json.RawMessage, error) {
	encoded := make(map[journal.StateKey]json.RawMessage, len(values))
	for key, value := range values {
		if value == nil {
			encoded[key] = nil
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encode the %s %s of alerts: %w", key.Kind, key.Key, err)
		}
		encoded[key] = text
	}
	return encoded, nil
}

// load restores what [core.take] and [core.whole] returned. It is called once, on a new core.
// Values that cannot be read are reported and left out.
func (c *core) load(state map[journal.StateKey]json.RawMessage) {
	var entries []*entry
	gone := map[string]int{} // alerts of receivers that are
	for _, key := range slices.SortedFunc(maps.Keys(state), func(a, b journal.StateKey) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	}) {
		value := state[key]
		read := func(into any) bool {
			err := json.Unmarshal(value, into)
			if err != nil {
				c.ask.report(fmt.Errorf("the %s %s of alerts in the journal is damaged: %w", key.Kind, key.Key, err))
			}
			return err == nil
		}
		switch key.Kind {
		case kindCondition:
			k := &condition{at: -1}
			if read(k) && k.Event != nil && c.rule(k.Rule) != nil {
				k.Container.restore(k.Event)
				if k.Endpoints == nil {
					k.Endpoints = map[string]bool{}
				}
				c.add(k)
				continue
			}
			c.put(key, nil)
		case kindEntry:
			e := &entry{}
			number, err := strconv.ParseUint(key.Key, 10, 64)
			if e.number = number; err == nil && read(e) && e.Alert.Event != nil && c.receivers[e.Receiver] != nil {
				e.Container.restore(e.Alert.Event)
				entries = append(entries, e)
				continue
			}
			gone[e.Receiver]++
			c.put(key, nil)
		case kindSent:
			var s sent
			if o := c.receivers[key.Key]; o != nil && read(&s) {
				o.sent = s.Times
			}
		case kindCounters:
			read(&c.counters)
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.number, b.number) })
	for _, e := range entries {
		c.restore(e)
	}
	for receiver, count := range gone {
		if receiver != "" { // else it could not be read, which was reported
			c.abandon(receiver, count)
		}
	}
	c.plan()
}

// restore puts an entry back to where it waited.
func (c *core) restore(e *entry) {
	o := c.receivers[e.Receiver]
	if e.Held {
		o.held = append(o.held, e)
		return
	}
	g := o.groups[e.group()]
	if g == nil {
		g = &gathering{due: e.At.Add(c.config.GroupWait)}
		o.groups[e.group()] = g
	}
	g.entries = append(g.entries, e)
}

// start notes that alerts are switched on for the first time.
func (c *core) start(now time.Time) {
	c.counters.Began, c.counters.Alive = now.UTC(), now.UTC()
	c.put(journal.StateKey{Kind: kindCounters}, &c.counters)
}
