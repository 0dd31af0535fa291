package capture

import (
	"fmt"
	"slices"

	"portwatcher/internal/model"
)

// Record is one value for a sink: an Event, a State (with or without Full) or a Forget; see
// journal.Record.
type Record struct {
	// Event is immutable. Sockets belong to an opened or changed event; else nil.
	Event   *model.Event
	Sockets *model.Sockets
	// State are open endpoints; Full means that these are all.
	State []model.State
	Full  bool
	// Forget is the id of a container that is not monitored any more.
	Forget string
	// Drifts are periods of drifts that begin or end with the record; with Full, all that last.
	Drifts []model.DriftPeriod
	// Named has the host and the container of a container that may have been renamed.
	Named *model.Listener
}

// Sink consumes records. Its functions do not block: behind them is a bounded queue that
// gives each container its own share.
type Sink struct {
	// Name is the consumer: output, journal or live.
	Name string
	// Offer takes a record of a container ("" for none), or returns false where the queue
	// has no room for more of it. With force, which is for records that cannot be counted
	// instead, it uses a reserve.
	Offer func(container string, r Record, force bool) bool
	// Room reports whether the queue has room within the container's share; nil is always.
	Room func(container string) bool
	// Status returns the fill of the queue; nil is none.
	Status func() (length, capacity int)
	// State means that the sink keeps what is open: it takes State, Forget and Named, and a full
	// State after it has lost something.
	State bool
	// Lossy means that the sink does not need every event: no gap reports what it drops.
	Lossy bool
	// Slow completes, in a gap, the sentence "openings and closings are …".
	Slow string
}

// outlet is a sink with the numbers of what it has dropped.
type outlet struct {
	Sink
	// lost has what no gap has reported yet, by container id.
	lost    map[string]loss
	events  uint64 // dropped since the start
	changes uint64 // dropped openings and closings since the start
	offered uint64 // openings and closings since the start
}

// loss is the number of dropped openings and closings of a container, which may have ended
// since; 0 where something else was dropped.
type loss struct {
	number    uint64
	container *model.ContainerRef // nil for what is of none
}

func newOutlet(s Sink) *outlet {
	if s.Room == nil {
		s.Room = func(string) bool { return true }
	}
	if s.Status == nil {
		s.Status = func() (int, int) { return 0, 0 }
	}
	return &outlet{Sink: s, lost: map[string]loss{}}
}

// send numbers an event and offers it to the sinks. The sockets are those of an endpoint
// that has opened or changed.
func (c *Capture) send(e *model.Event, sockets *model.Sockets, container string, force bool) {
	c.reportLost()
	c.drift.judge.Apply(e, c.now)
	c.number(e)
	c.deliver(Record{Event: e, Sockets: sockets, Drifts: c.drift.judge.Periods()}, container, force, nil)
	c.sendDrifts()
}

func (c *Capture) number(e *model.Event) {
	c.lastID++
	e.ID = c.lastID
}

// deliver offers a numbered event to all sinks but one.
func (c *Capture) deliver(r Record, container string, force bool, but *outlet) {
	e := r.Event
	c.counts.events[model.EventKind{Type: e.Type, Source: e.Source}]++
	weight := weightOf(e)
	for _, o := range c.sinks {
		if o == but {
			continue
		}
		o.offered += weight
		if !o.Offer(container, r, force) {
			o.events++
			o.changes += weight
			if o.Lossy {
				continue
			}
			o.lost[container] = loss{o.lost[container].number + weight + e.Lost, e.Container}
			c.counts.lost++
		}
	}
}

// weightOf returns how many openings and closings an event stands for.
func weightOf(e *model.Event) uint64 {
	switch {
	case e.Type == model.Opened || e.Type == model.Closed:
		return 1
	case e.Burst != nil:
		return e.Burst.Opened + e.Burst.Closed
	}
	return 0
}

func (c *Capture) hasRoom(container string) bool {
	return !slices.ContainsFunc(c.sinks, func(o *outlet) bool { return !o.Room(container) })
}

// reportLost reports by a gap what a sink has dropped, as soon as it takes events again.
func (c *Capture) reportLost() {
	for _, o := range c.sinks {
		for id, lost := range o.lost {
			gap := c.newGap(nil, fmt.Sprintf("openings and closings are %s", o.Slow), lost.number)
			gap.Container = lost.container
			gap.ID = c.lastID + 1
			if !o.Offer(id, Record{Event: gap}, true) {
				break
			}
			delete(o.lost, id)
			c.lastID = gap.ID
			c.counts.gaps++
			others := *gap // the other sinks have taken what this one lost: no number for them
			others.Lost = 0
			c.deliver(Record{Event: &others}, id, true, o)
			if o.State {
				c.resume.kept = stateUnknown
			}
		}
	}
}

func (c *Capture) keepsState() bool {
	return slices.ContainsFunc(c.sinks, func(o *outlet) bool { return o.State })
}

func (c *Capture) offerState(container string, r Record) bool {
	all := true
	for _, o := range c.sinks {
		all = (!o.State || o.Offer(container, r, true)) && all
	}
	return all
}
