package controller

import (
	"fmt"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/port"
)

// Sink takes an event, or says at once that it cannot.
type Sink func(*port.Event) (accepted bool)

// Journal takes a record, or says at once that it cannot; see
// [journal.Journal.Offer].
type Journal interface {
	Offer(journal.Record) (accepted bool)
}

// outlet is where events go.
type outlet struct {
	name  string
	offer func(*port.Event, *port.Sockets) bool
	// slow says, in a gap, why the outlet did not take events.
	slow    string
	dropped uint64 // events that it did not take since a gap told of them
	// droppedEver is how many it did not take since the start.
	droppedEver uint64
	// fill returns how full its queue is; nil where that is not known here.
	fill func() (length, capacity int)
	// stateful says that it must be told the whole state after a drop.
	stateful bool
}

func newOutlets(o Options) []*outlet {
	var all []*outlet
	if sink := o.Sink; sink != nil {
		all = append(all, &outlet{
			name: "output", fill: o.SinkQueue,
			offer: func(e *port.Event, _ *port.Sockets) bool { return sink(e) },
			slow:  "missing from standard output, which was not read in time",
		})
	}
	if j := o.Journal; j != nil {
		all = append(all, &outlet{
			name: "journal", fill: o.JournalQueue,
			offer: func(e *port.Event, s *port.Sockets) bool { return j.Offer(journal.Record{Event: e, Sockets: s}) },
			slow:  "missing from the journal, which could not be written in time", stateful: true,
		})
	}
	return all
}

// send numbers an event and hands it on. The sockets are those of an endpoint
// that is open from now on. The caller holds the lock, here and below.
func (c *Controller) send(e *port.Event, sockets *port.Sockets) {
	c.tellDropped()
	c.lastID++
	e.ID = c.lastID
	c.deliver(e, sockets, nil)
}

// deliver hands a numbered event to the outlets but one.
func (c *Controller) deliver(e *port.Event, sockets *port.Sockets, but *outlet) {
	for _, o := range c.outlets {
		if o != but && !o.offer(e, sockets) {
			o.dropped++
			o.droppedEver++
			c.counts.lost++
		}
	}
	if c.Observer != nil && e.Source == port.SourceEBPF {
		c.Observer.ObserveDetection(e.Source, time.Since(e.Time))
	}
}

// tellDropped tells by a gap what an outlet did not take, as soon as it takes
// events again.
func (c *Controller) tellDropped() {
	for _, o := range c.outlets {
		if o.dropped == 0 {
			continue
		}
		gap := c.newGap(nil, fmt.Sprintf("%d events are %s", o.dropped, o.slow))
		gap.ID = c.lastID + 1
		if !o.offer(gap, nil) {
			continue
		}
		c.lastID, o.dropped = gap.ID, 0
		c.deliver(gap, nil, o)
		c.counts.gaps++
		if o.stateful {
			c.kept = stateUnknown
		}
	}
}

func (c *Controller) newGap(container *port.Container, reason string) *port.Event {
	e := &port.Event{Time: time.Now().UTC(), Type: port.Gap, Listener: port.Listener{Host: c.hostName}, Reason: reason}
	if container != nil {
		e.Container = container.Ref()
	}
	return e
}

// gap reports that something may have been missed, in one container or
// anywhere.
func (c *Controller) gap(container *port.Container, reason string) {
	c.send(c.newGap(container, reason), nil)
	c.counts.gaps++
}

// leave reports that a container which lives is not monitored any more, to those
// who keep what is open. It is asked for, so the status does not count it with
// what was missed.
func (c *Controller) leave(container *port.Container) {
	c.send(c.newGap(container, "not monitored any more; what it opens and closes is not reported from here on"), nil)
}

// Gap reports that something was missed outside the capture. It must not be
// called by what an outlet's offer waits for.
func (c *Controller) Gap(reason string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.gap(nil, reason)
}
