package capture

import (
	"net/netip"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
	"portwatcher/internal/tracker"
)

// publish completes changes and passes them to the sinks, or counts them. It keeps the
// slice, to use it again.
func (c *Capture) publish(changes []tracker.Change) {
	folded := false
	for i := range changes {
		change := &changes[i]
		reach := c.exposureOf(change)
		c.counts.changes.In++
		if c.awaitsForward(change, reach) {
			continue
		}
		if b := c.bursts[change.Container.ID]; b != nil {
			b.shown(change)
		}
		if !change.Transient || change.Type == model.Opened { // both halves of a transient go the same way
			folded = c.folds(change)
		}
		switch b := c.bursts[change.Container.ID]; {
		case folded:
			c.fold(change, reach)
		case b != nil && change.Type == model.Changed && b.held[change.Endpoint].Type == model.Opened:
			held := b.held[change.Endpoint] // its opened event has not been emitted
			held.Processes = change.Processes
			b.held[change.Endpoint] = held
			c.counts.changes.Dropped++
		default:
			c.emit(change, reach, false)
		}
	}
	if len(changes) > 0 {
		c.changed()
	}
	c.compareWoken()
	clear(changes)
	c.changes = changes[:0]
}

// emit makes a change an event of its own, also where the sinks' queues are full if force
// is true.
func (c *Capture) emit(change *tracker.Change, reach exposure.Reach, force bool) {
	c.counts.changes.Out++
	c.detected(change)
	if m := c.containers[change.Container.ID]; m != nil {
		m.lastEvent = max(m.lastEvent, change.Time)
	}
	c.send(c.event(change, reach), c.socketsOf(change), change.Container.ID, force)
}

// lastOf returns the time of a container's last event; zero where there was none.
func (c *Capture) lastOf(container *model.Container) clock.Instant {
	if container != nil && c.containers[container.ID] != nil {
		return c.containers[container.ID].lastEvent
	}
	return 0
}

// socketsOf returns the sockets by which an open endpoint is recognised at the next start.
func (c *Capture) socketsOf(change *tracker.Change) *model.Sockets {
	if change.Type == model.Closed || change.Transient || !c.keepsState() {
		return nil
	}
	return c.tracker.Sockets(change.Endpoint)
}

// drop makes the tracker forget endpoints of a container ("" for all) without an event, and
// reports whether there was one.
func (c *Capture) drop(container string, which func(model.Endpoint) bool) (dropped bool) {
	one := func(e model.Endpoint) bool {
		if !which(e) {
			return false
		}
		delete(c.reaches, e)
		if _, held := c.forwards[e]; held {
			delete(c.forwards, e)
			c.counts.changes.Dropped++
		}
		dropped = true
		return true
	}
	if container == "" {
		c.tracker.Drop(one)
	} else {
		c.tracker.DropOf(container, one)
	}
	if dropped {
		c.changed()
	}
	return dropped
}

func (c *Capture) event(change *tracker.Change, r exposure.Reach) *model.Event {
	e := &model.Event{
		Time: c.wall.Time(change.Time), Type: change.Type,
		Listener: c.listener(change, r), Transient: change.Transient,
	}
	if change.Type == model.Changed {
		e.Change = model.ChangeProcess
	}
	if change.Type == model.Closed && !change.OpenedAt.IsZero() {
		e.OpenedAt = c.wall.Time(change.OpenedAt)
		if change.Source != model.SourceRestart { // else only the latest moment is known
			seconds := max(change.Time.Sub(change.OpenedAt), 0).Seconds()
			e.OpenSeconds = &seconds
		}
	}
	return e
}

func (c *Capture) listener(change *tracker.Change, r exposure.Reach) model.Listener {
	l := model.Listener{
		Host: c.hostName, Container: change.Container.Ref(), Namespace: change.Endpoint.Namespace,
		Protocol: change.Endpoint.Protocol, Address: change.Endpoint.Address, Port: change.Endpoint.Port,
		// A specific IPv6 address never takes IPv4: the flag has a meaning for the wildcard only.
		IPv6Only:  change.IPv6Only && change.Endpoint.Address == netip.IPv6Unspecified(),
		Processes: change.Processes, Source: change.Source,
	}
	l.SetReach(r.Exposure, r.Published)
	l.Forward = r.Forward
	return l
}

// gap emits that something was or may have been missed, in one container or, with nil,
// anywhere. Lost is the number of openings and closings, 0 where it is not known.
func (c *Capture) gap(container *model.Container, reason string, lost uint64) {
	key := ""
	if container != nil {
		key = container.ID
	}
	c.counts.gaps++
	c.send(c.newGap(container, reason, lost), nil, key, true)
}

func (c *Capture) newGap(container *model.Container, reason string, lost uint64) *model.Event {
	e := &model.Event{Time: time.Now().UTC(), Type: model.Gap, Listener: model.Listener{Host: c.hostName}, Reason: reason, Lost: lost}
	if container != nil {
		e.Container = container.Ref()
	}
	return e
}

// leave emits a gap for a running container that is not monitored any more, so that the
// readers of events forget what is open in it. The status does not count it: nothing was
// missed.
func (c *Capture) leave(container *model.Container) {
	reason := "not monitored any more; what it opens and closes is not reported from here on"
	if container.IsHost() {
		reason = "the host's own ports are " + reason
	}
	c.send(c.newGap(container, reason, 0), nil, container.ID, true)
}
