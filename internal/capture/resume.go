package capture

import (
	"portwatcher/internal/clock"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
)

// Resume is what an earlier run left. The zero value means that there was none.
type Resume struct {
	// FirstID is the id of this run's first event; 0 is 1.
	FirstID uint64
	// Again means that the state of an earlier run is known: what has changed since is
	// reported with the source "restart", and the rest not at all.
	Again bool
	// SameBoot means that the host was not started again since: sockets may still be the
	// same.
	SameBoot bool
	Open     []model.State
	// Gap reports what was missed since, or is empty.
	Gap string
}

// memory is what is left to compare of an earlier run.
type memory struct {
	open     map[string][]model.State // by container id
	reported bool                     // the gap
	kept     uint64                   // the tracker's revision that the journal has
}

// stateUnknown is a revision that the tracker never has: the journal has to get
// everything.
const stateUnknown = ^uint64(0)

// recall applies what an earlier run left.
func (c *Capture) recall() {
	r := &c.options.Resume
	c.lastID = max(r.FirstID, 1) - 1
	c.resume = memory{open: map[string][]model.State{}, kept: stateUnknown}
	for _, s := range r.Open {
		if s.Container != nil {
			c.resume.open[s.Container.ID] = append(c.resume.open[s.Container.ID], s)
		}
	}
}

// reportAway reports once that portwatcher did not run for a while.
func (c *Capture) reportAway() {
	if c.options.Resume.Gap != "" && !c.resume.reported {
		c.gap(nil, c.options.Resume.Gap, 0)
	}
	c.resume.reported = true
}

// resumes reports whether what a first scan finds is compared with an earlier run.
func (c *Capture) resumes() bool { return c.options.Resume.Again && !c.synced }

// restore has the tracker compare what was open in a container with what it is about to
// see. What cannot be the same any more is closed.
func (c *Capture) restore(m *member) {
	states := c.resume.open[m.ID]
	delete(c.resume.open, m.ID)
	if len(states) > 0 && !m.monitored {
		c.leave(m.Container)
		c.forget(m.ID)
		return
	}
	for i := range states {
		s := &states[i]
		if !c.reported(m.Container, s.Protocol, s.Port) {
			continue // the journal learns of it by the next whole state
		}
		same := c.options.Resume.SameBoot && s.Sockets != nil && s.Sockets.Namespace == m.namespace.id
		if !same || !c.tracker.Restore(m.Container, s, c.wall.Instant(s.OpenedAt)) {
			c.closeForgotten(s, c.now, model.SourceRestart)
			continue
		}
		key := model.Endpoint{Container: m.ID, Protocol: s.Protocol, Address: s.Address, Port: s.Port}
		c.reaches[key] = exposure.Reach{Exposure: s.Exposure, Published: s.Published}
	}
}

// closeForgone closes what was open in containers that do not run any more. Those whose
// namespace could not be identified keep what is known of them.
func (c *Capture) closeForgone() {
	for id := range c.resume.open {
		if c.containers[id] == nil {
			c.closeRemembered(id, c.now, model.SourceRestart)
		}
	}
}

// closeRemembered closes what is left to compare of a container that has ended.
func (c *Capture) closeRemembered(id string, at clock.Instant, source model.Source) {
	states := c.resume.open[id]
	delete(c.resume.open, id)
	for i := range states {
		c.closeForgotten(&states[i], at, source)
	}
}

// closeForgotten closes an endpoint of which only the journal knows.
func (c *Capture) closeForgotten(s *model.State, at clock.Instant, source model.Source) {
	e := &model.Event{Time: c.wall.Time(at), Type: model.Closed, Listener: s.Listener, OpenedAt: s.OpenedAt}
	e.Source = source
	if c.hostName != "" {
		e.Host = c.hostName
	}
	c.send(e, nil, s.Container.ID, true)
}

// forget has the journal forget a container that is not monitored any more.
func (c *Capture) forget(id string) {
	if !c.offerState(id, Record{Forget: id}) {
		c.resume.kept = stateUnknown
	}
}

// keepState has the journal learn what is open now, if that has changed otherwise than by
// events, and reports what was dropped.
func (c *Capture) keepState() {
	c.reportLost()
	revision := c.tracker.Revision()
	if !c.keepsState() || c.resume.kept == revision || !c.synced || len(c.bursts) > 0 {
		return
	}
	if c.offerState("", Record{State: c.states(), Full: true}) {
		c.resume.kept = revision
	}
}

// states returns what is open now, with its sockets.
func (c *Capture) states() []model.State {
	now := c.wall.Time(c.now)
	var all []model.State
	for _, change := range c.tracker.Open() {
		s := model.State{Open: c.open(&change), Sockets: c.tracker.Sockets(change.Endpoint)}
		s.Time = now
		all = append(all, s)
	}
	for _, states := range c.resume.open {
		all = append(all, states...)
	}
	return all
}
