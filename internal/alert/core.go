package alert

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// core is the state of all rules: events and time in, deliveries out. It is a pure state
// machine but for [surroundings], which it asks; one goroutine uses it. What it changes is
// gathered for one transaction, which take returns.
//
// Invariants:
//
//   - Equal events at equal times give equal deliveries: a replay shows what would have been sent.
//   - Time never goes back: an event from before is handled at the latest time so far.
//   - What it holds is bounded: maxConditions, and maxWaiting for each receiver. What is beyond is
//     counted as dropped, and its owner reports that.
type core struct {
	config *Config
	ask    surroundings

	now time.Time
	// waits means that events do what is due no more: those that follow may change it.
	waits      bool
	counters   counters
	conditions map[string]*condition
	spots      map[string]map[*condition]bool // by spotOf their events
	schedule   schedule
	receivers  map[string]*outbound
	due        time.Time // when a receiver has something to do; zero: never

	machine machine
	facts   facts
	about   *model.Event // the event of the facts
	before  *previous    // of that event; nil: not asked yet
	rules   map[string]*RuleCounts
	dropped uint64 // alerts and conditions beyond the bounds

	changed    map[journal.StateKey]any // values to write; nil: to remove
	deliveries []journal.Delivery
}

// surroundings are what the core asks. Its functions may be nil.
type surroundings struct {
	// before returns what the journal has of the same port of the same target before an event.
	before func(*model.Event) (*previous, error)
	// running reports whether a container has run since a time; known is false where that is
	// not known now.
	running func(id string, since time.Time) (running, known bool)
	// drifting reports whether the drift of an event lasts by the view of the capture.
	drifting func(*model.Event) bool
	// entry returns the line to add to the file of expectations for the drift of an event.
	entry func(*model.Event) string
	// report receives failures: of rules and of questions.
	report func(error)
}

// previous is what the journal has of a port of a target before an event.
type previous struct {
	// Event is the last one; nil for none.
	Event *model.Event
	// Reach is the endpoint that most could reach of the container that had the port last, not
	// counting other addresses of the same opening; nil for none.
	Reach *model.Listener
	// Seen is when the port was last open before, zero for never; Image the image that another
	// container of the target had then, empty where it is not known.
	Seen  time.Time
	Image string
}

const (
	// maxConditions bounds the conditions that last or wait.
	maxConditions = 20_000
	// maxWaiting bounds the alerts that wait for one receiver.
	maxWaiting = 5000
	// maxAlerts bounds the alerts of one message; there are several messages for more.
	maxAlerts = 200
)

// RuleCounts count what became of a rule since the start.
type RuleCounts struct {
	// Evaluated is how many events it was compared with, Matched with how many it matched, and
	// Failed how many evaluations failed.
	Evaluated, Matched, Failed uint64
}

// outbound is what waits for one receiver.
type outbound struct {
	kind   string
	groups map[group]*gathering
	held   []*entry // in the order of their beginning
	sent   []time.Time
}

func (o *outbound) waiting() int {
	count := len(o.held)
	for _, g := range o.groups {
		count += len(g.entries)
	}
	return count
}

// gathering is a group whose message is not made yet.
type gathering struct {
	due     time.Time
	entries []*entry
}

func newCore(config *Config, ask surroundings) *core {
	if ask.report == nil {
		ask.report = func(error) {}
	}
	c := &core{
		ask: ask, conditions: map[string]*condition{}, spots: map[string]map[*condition]bool{}, receivers: map[string]*outbound{},
		rules: map[string]*RuleCounts{}, changed: map[journal.StateKey]any{},
	}
	c.facts.Widened, c.facts.SeenBefore = c.widened, c.seenBefore
	c.configure(config)
	return c
}

// configure replaces the settings. Conditions of rules that are gone are dropped, and so is what
// waits for receivers that are gone.
func (c *core) configure(config *Config) {
	c.config = config
	known := map[string]bool{}
	for _, r := range config.Rules {
		known[r.Name] = true
		if c.rules[r.Name] == nil {
			c.rules[r.Name] = &RuleCounts{}
		}
	}
	maps.DeleteFunc(c.rules, func(name string, _ *RuleCounts) bool { return !known[name] })
	for _, condition := range c.conditions {
		if !known[condition.Rule] {
			c.remove(condition)
		}
	}
	for name, o := range c.receivers {
		if config.kind(name) == "" {
			all := o.all()
			for _, e := range all {
				c.put(entryKey(e), nil)
			}
			c.abandon(name, len(all))
			delete(c.receivers, name)
		}
	}
	for i := range config.Receivers {
		r := &config.Receivers[i]
		if c.receivers[r.Name] == nil {
			c.receivers[r.Name] = &outbound{groups: map[group]*gathering{}}
		}
		c.receivers[r.Name].kind = kindOfReceiver(r)
	}
	for _, condition := range c.conditions {
		c.schedule.set(condition, c.nextOf(condition))
	}
	c.plan()
}

// abandon reports alerts that waited for a receiver that is gone.
func (c *core) abandon(receiver string, count int) {
	if count > 0 {
		c.dropped += uint64(count)
		c.ask.report(fmt.Errorf("%d alerts that waited for the receiver %s are dropped: the settings have it no more", count, receiver))
	}
}

// all returns what waits, in the order of its beginning.
func (o *outbound) all() []*entry {
	all := slices.Clone(o.held)
	for _, g := range o.groups {
		all = append(all, g.entries...)
	}
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(a.number, b.number) })
	return all
}

// rule returns the rule of a name; nil for none.
func (c *core) rule(name string) *Rule {
	for _, r := range c.config.Rules {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// event handles an event. What is due before it is done first.
func (c *core) event(e *model.Event) {
	if !c.waits {
		c.advance(e.Time)
	}
	c.begin(e)
	spot := spotOf(e)
	if here := c.spots[spot]; len(here) > 0 {
		for _, k := range slices.SortedFunc(maps.Keys(here), func(a, b *condition) int { return cmp.Compare(a.Key, b.Key) }) {
			switch {
			case !k.Ends.IsZero():
				// The port is open again, and as it should be.
				if e.Type == model.Opened && !e.Transient && (e.Drift != k.Event.Drift || keyOf(c.rule(k.Rule), e) != k.Key) {
					c.close(k, e)
				}
			case c.ends(k, e):
				c.leave(k, e)
			}
		}
	}
	for _, r := range c.config.Rules {
		if c.matches(r) {
			c.found(r, e)
		}
	}
	if e.Source != model.SourceRestart && e.Type != model.Gap {
		c.counters.Alive = e.Time
	}
}

// previous returns what the journal has before the event that the facts are about.
func (c *core) previous() *previous {
	if c.before == nil {
		c.before = c.ask.previousOf(c.about)
	}
	return c.before
}

// advance does what is due up to a time, in its order.
func (c *core) advance(t time.Time) {
	for {
		k, at := c.schedule.first()
		if receivers := c.due; !receivers.IsZero() && (k == nil || receivers.Before(at)) {
			k, at = nil, receivers
		}
		if at.IsZero() || at.After(t) {
			break
		}
		c.now = latest(c.now, at)
		if k == nil {
			c.dispatch()
			continue
		}
		c.duly(k)
	}
	c.now = latest(c.now, t)
}

// next returns when something is due; zero for never.
func (c *core) next() time.Time {
	_, at := c.schedule.first()
	if at.IsZero() || !c.due.IsZero() && c.due.Before(at) {
		return c.due
	}
	return at
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
