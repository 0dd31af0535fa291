package capture

import (
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/expect"
	"portwatcher/internal/model"
)

// drift compares what is open with what is expected.
type drift struct {
	judge *expect.Judge
	// needed means that all open endpoints are to be judged again, for a reason.
	needed bool
	reason string
	// revision is the tracker's when they last were.
	revision uint64
}

// Expect replaces the file of expectations of a running capture, nil for none, and returns
// before that takes effect. What drifts from then on, or not any more, are drift events.
func (c *Capture) Expect(f *expect.File) {
	select {
	case <-c.files:
	default:
	}
	select {
	case c.files <- f:
	case <-c.over:
	}
}

// The reasons of drift events after the file was replaced, and after the description of a
// container has changed.
const (
	filesChanged = "the expectations have changed"
	ownChanged   = "what is expected of the container has changed"
)

func (c *Capture) replaceFile(f *expect.File) {
	c.now = clock.Now()
	c.drift.judge.SetFile(f, c.wall.Time(c.now))
	c.needJudging(filesChanged)
}

// needJudging has all open endpoints judged again. Of several reasons a change of the file
// counts, else the last.
func (c *Capture) needJudging(reason string) {
	c.drift.needed = true
	if reason != "" && c.drift.reason != filesChanged {
		c.drift.reason = reason
	}
}

func (c *Capture) judgeRunning(m *member) {
	if c.single || m.IsHost() { // the host's own ports are not judged
		return
	}
	if c.drift.judge.Running(m.Ref(), m.monitored, c.now, c.wall.Time(c.now)) {
		c.needJudging(ownChanged)
	}
	c.sendDrifts()
}

func (c *Capture) judgeEnded(id string, at clock.Instant) {
	if c.drift.judge.Ended(id, c.now, c.wall.Time(at)) {
		c.needJudging(ownChanged)
	}
	c.sendDrifts()
}

// judgeScanned applies that what is open in a namespace is known.
func (c *Capture) judgeScanned(n *namespace) {
	if n.inner == nil {
		for id := range n.members {
			c.drift.judge.Scanned(id)
		}
	}
}

// startJudging applies that all running containers are known.
func (c *Capture) startJudging() {
	c.drift.judge.Start(c.now, c.wall.Time(c.now))
	c.needJudging(filesChanged) // since an earlier run
	c.sendDrifts()
}

// judge judges all open endpoints again where that is needed, begins the drifts of required
// ports that are absent for too long, and sets the timer for the next.
func (c *Capture) judge() {
	if c.drift.needed && c.synced && len(c.bursts) == 0 {
		c.judgeAll()
	}
	if c.drift.needed { // what is open is not certain
		return
	}
	next, waits := c.drift.judge.NextExpiry()
	if !waits {
		return
	}
	now := clock.Now()
	if !next.After(now) {
		c.now = now
		c.drift.judge.Expire(now, c.wall.Time(now), c.reportedOf)
		c.sendDrifts()
		if next, waits = c.drift.judge.NextExpiry(); !waits {
			return
		}
	}
	c.timers.drift.Reset(max(next.Sub(now), time.Millisecond))
}

// reportedOf reports whether a port of a container is reported.
func (c *Capture) reportedOf(id string, protocol model.Protocol, number uint16) bool {
	return c.reported(c.find(id), protocol, number)
}

// judgeAll compares the state of the judge with what is open by the events. A burst may hold the event of an
// endpoint: there is none then.
func (c *Capture) judgeAll() {
	c.now = clock.Now()
	reason := c.drift.reason
	c.drift.needed, c.drift.reason, c.drift.revision = false, "", c.tracker.Revision()
	var open []model.Open
	for _, change := range c.tracker.Reported() {
		open = append(open, c.open(&change))
	}
	c.drift.judge.Reconcile(open, reason, c.now, c.wall.Time(c.now))
	c.sendDrifts()
}

// judgeAgain has all judged again where an entry has expired, or where the tracker knows more of
// an endpoint without an event, such as its processes.
func (c *Capture) judgeAgain() {
	crowded := c.drift.judge.Crowded()
	c.reportCrowded(crowded)
	switch {
	case c.drift.judge.Expired(c.wall.Time(c.now)):
		c.needJudging("an expectation has expired")
	case len(crowded) > 0, c.drift.revision != c.tracker.Revision() && c.drift.judge.Active():
		c.needJudging("")
	}
}

// sendDrifts numbers the drift events and offers them, and the periods without an event, to the
// sinks.
func (c *Capture) sendDrifts() {
	events, periods := c.drift.judge.Events(), c.drift.judge.Periods()
	for i, e := range events {
		if c.hostName != "" {
			e.Host = c.hostName
		}
		container := ""
		if e.Container != nil {
			container = e.Container.ID
		}
		c.number(e)
		r := Record{Event: e}
		if i == len(events)-1 {
			r.Drifts, periods = periods, nil
		}
		c.deliver(r, container, true, nil)
		c.changed()
	}
	if len(periods) > 0 {
		c.changed()
		if c.keepsState() && !c.offerState("", Record{Drifts: periods}) {
			c.resume.kept = stateUnknown
		}
	}
}

// reportCrowded logs, one time for each, the targets with more drifts than are listed.
func (c *Capture) reportCrowded(targets []string) {
	for _, target := range targets {
		if !c.env.Notices.First("drifts of " + target) {
			continue
		}
		c.log.Warnf("%s has more drifts than are listed. Each is in its events; declare ports and ranges for it, or ask what opens them.", target)
	}
}

// openDrifts returns the drifts that last. The entries of an uncovered target are those of what
// is open in it.
func (c *Capture) openDrifts(open []model.Open) []model.OpenDrift {
	all := c.drift.judge.Open()
	for i := range all {
		d := &all[i]
		if c.hostName != "" {
			d.Host = c.hostName
		}
		if d.Drift == model.DriftUncovered {
			d.Entry = expect.EntriesFor(d.Target, open)
		}
	}
	return slices.Clip(all)
}
