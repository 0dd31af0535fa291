package alert

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/alert/notify"
)

// snapshot is what other goroutines see of the core. It is immutable.
type snapshot struct {
	config     *Config
	rules      map[string]RuleCounts
	conditions []Condition
	held       map[string]int
	dropped    uint64
	cursor     uint64
	made       time.Time
}

// Condition is a condition that lasts, or waits for the end of its for.
type Condition struct {
	Alert notify.Alert
	// To are the receivers. Waiting means that it has not lasted for the time of its rule yet.
	To      []string
	Waiting bool
}

// publishTime bounds how often many conditions are copied.
const publishTime = 2 * time.Second

// publish makes a snapshot.
func (a *Alerts) publish() {
	now := a.options.Now()
	if len(a.core.conditions) > 1000 && now.Sub(a.published.Load().made) < publishTime {
		return
	}
	s := &snapshot{config: a.setup.Config, rules: map[string]RuleCounts{}, held: map[string]int{}, dropped: a.core.dropped, cursor: a.cursor, made: now}
	for name, counts := range a.core.rules {
		s.rules[name] = *counts
	}
	for name, o := range a.core.receivers {
		s.held[name] = len(o.held)
	}
	for _, k := range a.core.conditions {
		s.conditions = append(s.conditions, Condition{Alert: a.core.firing(k), To: a.core.rule(k.Rule).To, Waiting: k.pending()})
	}
	slices.SortFunc(s.conditions, func(x, y Condition) int {
		return cmp.Or(x.Alert.Since.Compare(y.Alert.Since), cmp.Compare(x.Alert.Key, y.Alert.Key))
	})
	if before := a.published.Load().dropped; s.dropped > before {
		a.log.Errorf("%d alerts were dropped: more than %d waited for one receiver, there were more than %d conditions, or a receiver was removed from the settings.",
			s.dropped-before, maxWaiting, maxConditions)
	}
	a.published.Store(s)
}

// lasting returns what a receiver should hold now.
func (s *snapshot) lasting(receiver string, now time.Time) []*notify.Notification {
	var alerts []notify.Alert
	for i := range s.conditions {
		if c := &s.conditions[i]; !c.Waiting && slices.Contains(c.To, receiver) {
			alerts = append(alerts, c.Alert)
		}
	}
	var all []*notify.Notification
	for some := range slices.Chunk(alerts, maxAlerts) {
		host := some[0].Event.Host
		all = append(all, &notify.Notification{ID: fmt.Sprintf("%s/lasting/%d/%d", host, now.Unix(), len(all)), Time: now, Host: host, Severity: some[0].Severity, Alerts: some})
	}
	return all
}

// Status is the condition of alerts.
type Status struct {
	// Enabled means that there is at least one receiver, Standard that the rules are the
	// standard ones.
	Enabled, Standard bool
	GroupWait, Repeat time.Duration
	MaxPerHour        int
	Quiet             []Quiet
	Rules             []RuleStatus
	Receivers         []ReceiverStatus
	// Conditions are those that last or wait, the oldest first.
	Conditions []Condition
	// Dropped counts alerts that were beyond the bounds, since the start.
	Dropped uint64
	// Cursor is the id up to which the rules were evaluated.
	Cursor uint64
}

// RuleStatus is a rule with its counts.
type RuleStatus struct {
	*Rule
	RuleCounts
}

// ReceiverStatus is a receiver with its counts, without its secrets.
type ReceiverStatus struct {
	Name, Kind string
	ReceiverCounts
	// Held is how many alerts quiet hours or the bound on the rate hold back.
	Held int
	// Removed means that the settings have it no more, and the journal has deliveries.
	Removed bool
}

// Status returns the condition of alerts. It does not block.
func (a *Alerts) Status() *Status {
	s := a.published.Load()
	c := s.config
	status := &Status{
		Enabled: c.Enabled(), Standard: c.Standard, GroupWait: c.GroupWait, Repeat: c.Repeat, MaxPerHour: c.MaxPerHour, Quiet: c.Quiet,
		Conditions: s.conditions, Dropped: s.dropped, Cursor: s.cursor,
	}
	for _, r := range c.Rules {
		status.Rules = append(status.Rules, RuleStatus{r, s.rules[r.Name]})
	}
	counts := a.tally.counts()
	for i := range c.Receivers {
		r := &c.Receivers[i]
		status.Receivers = append(status.Receivers, ReceiverStatus{
			Name: r.Name, Kind: kindOfReceiver(r), ReceiverCounts: counts[r.Name], Held: s.held[r.Name],
		})
		delete(counts, r.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts := counts[name]; counts.Pending > 0 {
			status.Receivers = append(status.Receivers, ReceiverStatus{Name: name, ReceiverCounts: counts, Removed: true})
		}
	}
	return status
}
