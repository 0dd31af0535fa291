package alert

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/alert/notify"
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

// begin makes the facts those of an event.
func (c *core) begin(e *model.Event) {
	c.about, c.before = e, nil
	c.facts.set(e)
	if e.Container == nil {
		return
	}
	c.facts.ContainerAge = c.age(e)
	c.facts.Running = true
	if c.ask.running != nil {
		if running, known := c.ask.running(e.Container.ID, e.Time); known {
			c.facts.Running = running
		}
	}
	if e.Type == model.Closed && e.Source == model.SourceEngine {
		c.facts.Running = false
	}
}

// age returns the seconds from the start of a container to an event; -1 where that is not known.
// What ran before alerts were switched on counts from then, so that nothing is new at first.
func (c *core) age(e *model.Event) float64 {
	started := e.Container.StartedAt
	switch {
	case started.IsZero() || started.After(e.Time):
		return -1
	case e.Source == model.SourceRestart && started.After(c.counters.Alive):
		return 0 // it started while portwatcher did not run
	case started.Before(c.counters.Began):
		started = c.counters.Began
	}
	return max(e.Time.Sub(started).Seconds(), 0)
}

// matches evaluates a rule for the facts. A failure counts as no match.
func (c *core) matches(r *Rule) bool {
	counts := c.rules[r.Name]
	counts.Evaluated++
	matches, err := c.machine.matches(r, &c.facts)
	if err != nil {
		counts.Failed++
		c.ask.report(err)
	}
	if matches {
		counts.Matched++
	}
	return matches
}

// previous returns what the journal has before the event that the facts are about.
func (c *core) previous() *previous {
	if c.before == nil {
		c.before = c.ask.previousOf(c.about)
	}
	return c.before
}

func (s *surroundings) previousOf(e *model.Event) *previous {
	if s.before != nil && e.Container != nil && e.Port != 0 {
		found, err := s.before(e)
		if err == nil {
			return found
		}
		s.report(err)
	}
	return &previous{}
}

func (c *core) seenBefore() bool { return c.previous().Event != nil }

// widened is the function of rules.
func (c *core) widened() bool {
	e := c.about
	var before model.Listener
	switch {
	case e.Type == model.Changed && e.Change == model.ChangeExposure:
		before.SetReach(e.PreviousExposure, e.PreviousPublished)
	case e.Type == model.Opened && c.previous().Reach != nil:
		before = *c.previous().Reach
	default:
		return false
	}
	if before.Exposure == "" || before.Outside == nil || e.Outside == nil {
		return false
	}
	return further(&e.Listener, &before)
}

// further reports whether more can reach a than b. Both have an exposure.
func further(a, b *model.Listener) bool {
	return *a.Outside && !*b.Outside || *a.Outside == *b.Outside && model.CompareReach(a.Exposure, b.Exposure) < 0
}

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

// fire notifies a condition: it has lasted for the time of its rule, or lasts still.
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

// next returns when something is due; zero for never.
func (c *core) next() time.Time {
	_, at := c.schedule.first()
	if at.IsZero() || !c.due.IsZero() && c.due.Before(at) {
		return c.due
	}
	return at
}

// reconcile ends the conditions of drifts that do not last, of which no event reported the end:
// the container is not monitored any more.
func (c *core) reconcile(lasting map[model.DriftKey]bool, ended map[string]bool) (suspects map[string]bool) {
	suspects = map[string]bool{}
	for key, k := range c.conditions {
		if k.Event.Drift == "" || !k.Ends.IsZero() || k.Event.Container == nil || !c.rule(k.Rule).ofDrift || lasting[driftKey(k.Event)] {
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

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
