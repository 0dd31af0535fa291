package capture

import (
	"fmt"

	"portwatcher/internal/model"
)

// Record is one thing for a sink. Exactly one of Event, State (with or without Full) and
// Forget is meant; see journal.Record.
type Record struct {
	// Event is immutable. Sockets go with an opened or changed event; nil for others.
	Event   *model.Event
	Sockets *model.Sockets
	// State are endpoints that are open; Full means that these are all.
	State []model.State
	Full  bool
	// Forget is the id of a container that is not monitored any more.
	Forget string
}

// Sink takes records, at once: behind it is a bounded queue that gives each container
// its own share.
type Sink struct {
	// Name is the consumer: output, journal or live.
	Name string
	// Offer takes a record of a container ("" for none), or returns false where the queue
	// has no room for more of it. Force is for what must not be counted instead: it uses
	// a reserve.
	Offer func(container string, r Record, force bool) bool
	// Room reports whether a record of a container would be taken within its share.
	Room func(container string) bool
	// Status returns how full the queue is.
	Status func() (length, capacity int)
	// State means that the sink keeps what is open: it takes State and Forget, and
	// everything anew after it has lost something.
	State bool
	// Lossy means that the sink can do without some events: what it does not take is in
	// its status, and no gap reports it.
	Lossy bool
	// Slow is the reason, in a gap, why the sink has no room for events.
	Slow string
}

// outlet is a sink with what it did not take.
type outlet struct {
	Sink
	// lost are openings and closings by container that no gap has reported yet, 0 where
	// something else was lost. Since the start, events counts all that was lost, changes
	// the openings and closings.
	lost    map[string]loss
	events  uint64
	changes uint64
	offered uint64 // openings and closings
}

// loss is what a sink did not take of a container, which may have ended since.
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

// send numbers an event and hands it on. The sockets are those of an endpoint that is
// open from now on.
func (c *Capture) send(e *model.Event, sockets *model.Sockets, container string, force bool) {
	c.reportLost()
	c.lastID++
	e.ID = c.lastID
	c.deliver(e, sockets, container, force, nil)
}

// deliver hands a numbered event to the sinks but one.
func (c *Capture) deliver(e *model.Event, sockets *model.Sockets, container string, force bool, but *outlet) {
	c.counts.events[model.EventKind{Type: e.Type, Source: e.Source}]++
	weight := weightOf(e)
	for _, o := range c.sinks {
		if o == but {
			continue
		}
		o.offered += weight
		if !o.Offer(container, Record{Event: e, Sockets: sockets}, force) {
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

// weightOf is how many openings and closings an event stands for.
func weightOf(e *model.Event) uint64 {
	switch {
	case e.Type == model.Opened || e.Type == model.Closed:
		return 1
	case e.Burst != nil:
		return e.Burst.Opened + e.Burst.Closed
	}
	return 0
}

// hasRoom reports whether all sinks have room for another event of a container.
func (c *Capture) hasRoom(container string) bool {
	for _, o := range c.sinks {
		if !o.Room(container) {
			return false
		}
	}
	return true
}

// reportLost reports by a gap what a sink did not take, as soon as it takes events
// again.
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
			others := *gap // they have what is lost here: their sums do not need the number
			others.Lost = 0
			c.deliver(&others, nil, id, true, o)
			if o.State {
				c.resume.kept = stateUnknown
			}
		}
	}
}

// keepsState reports whether a sink keeps what is open.
func (c *Capture) keepsState() bool {
	for _, o := range c.sinks {
		if o.State {
			return true
		}
	}
	return false
}

// offerState hands the state to the sinks that keep it, and reports whether all took it.
func (c *Capture) offerState(container string, r Record) bool {
	all := true
	for _, o := range c.sinks {
		all = (!o.State || o.Offer(container, r, true)) && all
	}
	return all
}
