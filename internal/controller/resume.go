package controller

import (
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/port"
)

// Resume is what an earlier run left. The zero value says that there was none.
type Resume struct {
	// FirstID is the id of this run's first event; 0 is 1.
	FirstID uint64
	// Again says that the state of an earlier run is known: what has changed
	// since is reported with the source "restart", and the rest not at all.
	Again bool
	// SameBoot says that the host was not started again since: sockets may still
	// be the same.
	SameBoot bool
	Open     []port.State
	// Gap says what was missed since, or is empty.
	Gap string
}

// memory is what is left to compare of an earlier run.
type memory struct {
	open map[string][]port.State // by container id
	told bool                    // the gap
}

// stateUnknown is a revision that the tracker never has: the journal has to be
// told everything.
const stateUnknown = ^uint64(0)

// recall takes over what an earlier run left.
func (c *Controller) recall() {
	c.lastID = max(c.Resume.FirstID, 1) - 1
	c.resume.open = map[string][]port.State{}
	for _, s := range c.Resume.Open {
		if s.Container != nil {
			c.resume.open[s.Container.ID] = append(c.resume.open[s.Container.ID], s)
		}
	}
	c.kept = stateUnknown
}

// tellAway reports once that portwatcher did not run for a while. The caller
// holds the lock, here and below.
func (c *Controller) tellAway() {
	if c.Resume.Gap != "" && !c.resume.told {
		c.gap(nil, c.Resume.Gap)
	}
	c.resume.told = true
}

// resumes says whether what a first scan finds is compared with an earlier run.
func (c *Controller) resumes() bool { return c.Resume.Again && !c.synced }

// restore has the tracker compare what was open in a container with what it is
// about to see. What cannot be the same any more is closed.
func (c *Controller) restore(m *member) {
	states := c.resume.open[m.ID]
	delete(c.resume.open, m.ID)
	if len(states) > 0 && !c.Monitored(m.Container) {
		c.leave(m.Container)
		c.forget(m.ID)
		return
	}
	for i := range states {
		s := &states[i]
		if !c.reported(m.Container, s.Protocol, s.Port) {
			continue // the journal learns of it by the next whole state
		}
		same := c.Resume.SameBoot && s.Sockets != nil && s.Sockets.Namespace == m.group.id
		if !same || !c.tracker.Restore(m.Container, s) {
			c.closeForgotten(s, time.Now(), port.SourceRestart)
			continue
		}
		key := port.Endpoint{Container: m.ID, Protocol: s.Protocol, Address: s.Address, Port: s.Port}
		c.reaches[key] = reach{exposure: s.Exposure, published: s.Published}
	}
}

// closeForgone closes what was open in containers that do not run any more.
// Those whose namespace could not be identified keep what is known of them.
func (c *Controller) closeForgone() {
	for id := range c.resume.open {
		if c.containers[id] == nil {
			c.closeRemembered(id, time.Now(), port.SourceRestart)
		}
	}
}

// closeRemembered closes what is left to compare of a container that has ended.
func (c *Controller) closeRemembered(id string, at time.Time, source port.Source) {
	states := c.resume.open[id]
	delete(c.resume.open, id)
	for i := range states {
		c.closeForgotten(&states[i], at, source)
	}
}

// closeForgotten closes an endpoint of which only the journal knows.
func (c *Controller) closeForgotten(s *port.State, at time.Time, source port.Source) {
	e := &port.Event{Time: at.UTC(), Type: port.Closed, Listener: s.Listener, OpenedAt: s.OpenedAt}
	e.Source = source
	if c.hostName != "" {
		e.Host = c.hostName
	}
	c.send(e, nil)
}

// forget tells the journal that a container is not monitored any more.
func (c *Controller) forget(id string) {
	if c.Journal != nil && !c.Journal.Offer(journal.Record{Forget: id}) {
		c.kept = stateUnknown
	}
}

// keepState has the journal learn what is open now, if that has changed
// otherwise than by events, and tells of what was dropped. The caller does not
// hold the lock.
func (c *Controller) keepState() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.tellDropped()
	revision := c.tracker.Revision()
	if c.Journal == nil || c.kept == revision || !c.synced {
		return
	}
	if c.Journal.Offer(journal.Record{State: c.states(), Full: true}) {
		c.kept = revision
	}
}

// states returns what is open now, with its sockets.
func (c *Controller) states() []port.State {
	now := time.Now().UTC()
	var all []port.State
	for _, change := range c.tracker.Open() {
		s := port.State{Open: c.open(&change, now), Sockets: c.tracker.Sockets(change.Endpoint)}
		all = append(all, s)
	}
	for _, states := range c.resume.open {
		all = append(all, states...)
	}
	return all
}
