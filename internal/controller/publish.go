package controller

import (
	"net/netip"
	"slices"
	"time"

	"portwatcher/internal/port"
	"portwatcher/internal/tracker"
)

// publish completes changes and hands them to the sink. The caller holds the
// lock, here and below. The slice is kept to be reused.
func (c *Controller) publish(changes []tracker.Change) {
	for i := range changes {
		change := &changes[i]
		if c.ending(change) {
			continue
		}
		r, known := c.reaches[change.Endpoint]
		switch g := c.groups[change.Namespace]; {
		case known && (g == nil || change.Type == port.Closed):
		case g == nil:
			r = unseen(change)
		default:
			r = reachOf(where(change, g), g.containers())
		}
		c.reaches[change.Endpoint] = r
		if change.Type == port.Closed {
			delete(c.reaches, change.Endpoint)
		}
		c.send(c.event(change, r), c.socketsOf(change))
	}
	if c.CloseGrace > 0 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	clear(changes)
	c.changes = changes[:0]
}

// socketsOf returns what an endpoint that has just opened is recognised by at
// the next start.
func (c *Controller) socketsOf(change *tracker.Change) *port.Sockets {
	if c.Journal == nil || change.Type == port.Closed || change.Transient {
		return nil
	}
	return c.tracker.Sockets(change.Endpoint)
}

// drop has the tracker forget endpoints without an event, and says whether there
// was one.
func (c *Controller) drop(which func(port.Endpoint) bool) (any bool) {
	c.tracker.Drop(func(e port.Endpoint) bool {
		if !which(e) {
			return false
		}
		delete(c.reaches, e)
		any = true
		return true
	})
	return any
}

func where(change *tracker.Change, g *group) listening {
	return listening{
		protocol: change.Endpoint.Protocol, address: change.Endpoint.Address, port: change.Endpoint.Port,
		ipv6Only: change.IPv6Only, host: g != nil && g.host,
	}
}

// unseen is the reach of an endpoint in a namespace that was never looked at:
// nothing is known of its networks.
func unseen(change *tracker.Change) reach {
	if change.Endpoint.Address.IsLoopback() {
		return reach{exposure: port.Loopback}
	}
	return reach{}
}

// reach computes anew who can speak to what is open in a namespace: its
// containers' networks have changed.
func (c *Controller) reach(g *group) {
	members := g.containers()
	for _, open := range c.tracker.OpenIn(g.id) {
		c.reaches[open.Endpoint] = reachOf(where(&open, g), members)
	}
}

func (c *Controller) event(change *tracker.Change, r reach) *port.Event {
	e := &port.Event{
		Time: change.Time.UTC(), Type: change.Type,
		Listener: c.listener(change, r), Transient: change.Transient,
	}
	if change.Type == port.Closed && !change.OpenedAt.IsZero() {
		e.OpenedAt = change.OpenedAt.UTC()
		if change.Source != port.SourceRestart { // else only the latest moment is known
			seconds := max(change.Time.Sub(change.OpenedAt), 0).Seconds()
			e.OpenSeconds = &seconds
		}
	}
	return e
}

func (c *Controller) listener(change *tracker.Change, r reach) port.Listener {
	return port.Listener{
		Host: c.hostName, Container: change.Container.Ref(),
		Protocol: change.Endpoint.Protocol, Address: change.Endpoint.Address, Port: change.Endpoint.Port,
		// A specific IPv6 address never takes IPv4: only of the wildcard it tells something.
		IPv6Only:  change.IPv6Only && change.Endpoint.Address == netip.IPv6Unspecified(),
		Processes: change.Processes, Exposure: r.exposure, Published: r.published, Source: change.Source,
	}
}

// Open returns what is open now, ordered by container name and port.
func (c *Controller) Open() []port.Open {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := time.Now().UTC()
	var open []port.Open
	for _, change := range c.tracker.Open() {
		open = append(open, c.open(&change, now))
	}
	slices.SortStableFunc(open, func(a, b port.Open) int {
		return compareListeners(&a.Listener, &b.Listener)
	})
	return open
}

// open completes an endpoint that is open. The caller holds the lock.
func (c *Controller) open(change *tracker.Change, now time.Time) port.Open {
	r, ok := c.reaches[change.Endpoint]
	if !ok {
		r = unseen(change)
		if g := c.groups[change.Namespace]; g != nil {
			r = reachOf(where(change, g), g.containers())
		}
	}
	return port.Open{Time: now, Listener: c.listener(change, r), OpenedAt: change.OpenedAt.UTC()}
}
