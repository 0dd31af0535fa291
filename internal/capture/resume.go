package capture

import (
	"slices"

	"portwatcher/internal/clock"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
)

// Resume is the state of an earlier run. The zero value means that there was none.
type Resume struct {
	// FirstID is the id of this run's first event; 0 is 1.
	FirstID uint64
	// Again means that the state of an earlier run is known: only the changes since are
	// reported, with the source [model.SourceRestart].
	Again bool
	// SameBoot means that the host was not started again since: sockets may be the same.
	SameBoot bool
	Open     []model.State
	// Drifts are those that lasted at its end.
	Drifts []model.DriftPeriod
	// Gap is the reason of a gap for the time since; empty for none.
	Gap string
}

// memory is the part of an earlier run's state that was not compared yet.
type memory struct {
	open     map[string][]model.State // by container id
	reported bool                     // the gap
	kept     uint64                   // the tracker's revision that the journal has
}

// stateUnknown is a revision that the tracker never has: the journal needs the whole state.
const stateUnknown = ^uint64(0)

// recall takes the state of an earlier run from the options.
func (c *Capture) recall() {
	r := &c.options.Resume
	c.lastID = max(r.FirstID, 1) - 1
	c.resume = memory{open: map[string][]model.State{}, kept: stateUnknown}
	for _, s := range r.Open {
		c.resume.open[ownerOf(&s)] = append(c.resume.open[ownerOf(&s)], s)
	}
}

// ownerOf returns the id under which the capture has the owner of what was open.
func ownerOf(s *model.State) string {
	if s.Container == nil {
		return model.HostID
	}
	return s.Container.ID
}

// reportAway emits, one time, the gap for the time when portwatcher did not run.
func (c *Capture) reportAway() {
	if c.options.Resume.Gap != "" && !c.resume.reported {
		c.gap(nil, c.options.Resume.Gap, 0)
	}
	c.resume.reported = true
}

// resumes reports whether the first scan of a namespace is compared with an earlier run.
func (c *Capture) resumes() bool { return c.options.Resume.Again && !c.synced }

// restore gives the tracker what was open in a container, to compare it with the first
// scan. It closes what cannot be the same any more.
func (c *Capture) restore(m *member) {
	states := c.resume.open[m.ID]
	delete(c.resume.open, m.ID)
	if m.monitored { // those of inner namespaces wait for the first search
		own := func(s model.State) bool { return s.Namespace == "" }
		if waiting := slices.DeleteFunc(slices.Clone(states), own); len(waiting) > 0 {
			c.resume.open[m.ID] = waiting
		}
		states = slices.DeleteFunc(states, func(s model.State) bool { return !own(s) })
	}
	if len(states) > 0 && !m.monitored {
		c.leave(m.Container)
		c.forget(m.ID)
		return
	}
	for i := range states {
		s := &states[i]
		if !c.reported(m.Container, s.Protocol, s.Port) {
			continue // the next full state has it removed from the journal
		}
		if !c.restoreState(m.namespace, m, s) {
			c.closeState(s, c.now, model.SourceRestart)
		}
	}
}

// restoreState restores what was open in a namespace. It returns false where that cannot be
// the same any more.
func (c *Capture) restoreState(n *namespace, m *member, s *model.State) bool {
	same := c.options.Resume.SameBoot && s.Sockets != nil && s.Sockets.Namespace == n.id
	if !same || !c.tracker.Restore(m.Container, s, c.wall.Instant(s.OpenedAt)) {
		return false
	}
	key := s.Endpoint()
	key.Container = m.ID
	c.reaches[key] = exposure.Reach{Exposure: s.Exposure, Published: s.Published, Forward: s.Forward}
	c.drift.judge.Restored(&s.Open, c.wall.Time(c.now))
	return true
}

// closeEnded closes what was open in containers that do not run any more. What is known of
// containers whose namespace could not be identified stays.
func (c *Capture) closeEnded() {
	for id := range c.resume.open {
		if id == model.HostID && !c.options.Host {
			delete(c.resume.open, id)
			c.leave(model.HostOwner(0, model.Namespace{}))
			c.forget(id)
		} else if c.containers[id] == nil {
			c.closeRemembered(id, c.now, model.SourceRestart)
		}
	}
}

// closeRemembered closes what was open in an earlier run of a container that has ended.
func (c *Capture) closeRemembered(id string, at clock.Instant, source model.Source) {
	states := c.resume.open[id]
	delete(c.resume.open, id)
	for i := range states {
		c.closeState(&states[i], at, source)
	}
}

// closeState emits the close of an endpoint that the tracker does not have.
func (c *Capture) closeState(s *model.State, at clock.Instant, source model.Source) {
	e := &model.Event{Time: c.wall.Time(at), Type: model.Closed, Listener: s.Listener, OpenedAt: s.OpenedAt}
	e.Source = source
	if c.hostName != "" {
		e.Host = c.hostName
	}
	c.send(e, nil, ownerOf(s), true)
}

// forget makes the journal forget a container that is not monitored any more.
func (c *Capture) forget(id string) {
	if !c.offerState(id, Record{Forget: id}) {
		c.resume.kept = stateUnknown
	}
}

// recordName gives the journal the name of a container, by which its events are found, also those
// under an earlier name.
func (c *Capture) recordName(container *model.Container) {
	named := &model.Listener{Host: c.hostName, Container: container.Ref()}
	if !c.offerState(container.ID, Record{Named: named}) {
		c.resume.kept = stateUnknown
	}
}

// keepState gives the journal what is open now, if that has changed without an event, and
// reports what was dropped.
func (c *Capture) keepState() {
	c.reportLost()
	revision := c.tracker.Revision()
	if !c.keepsState() || c.resume.kept == revision || !c.synced || len(c.bursts) > 0 {
		return
	}
	if c.offerState("", Record{State: c.states(), Full: true, Drifts: c.drift.judge.Lasting()}) {
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
		s.Drift, s.DriftSince = c.drift.judge.Of(change.Endpoint)
		all = append(all, s)
	}
	for _, states := range c.resume.open {
		all = append(all, states...)
	}
	return all
}
