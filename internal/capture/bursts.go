package capture

import (
	"net/netip"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
	"portwatcher/internal/tracker"
)

const (
	// burstInterval is the time between two bursts of one container.
	burstInterval = time.Second
	// maxScanWait is how long a burst waits for a scan that shows its unknown endpoints.
	maxScanWait = 10 * time.Second
	// maxCountedPorts bounds the distinct ports that one burst counts exactly.
	maxCountedPorts = 4096
)

// bursts are the counted openings and closings that were not reported yet, by container
// id. The zero value is ready.
type bursts map[string]*burst

// burst counts the openings and closings of one container since its last burst.
//
// They come from the kernel's counts, and from the capture itself where a sink's queue has
// no room for more of this container, or where it exceeds the burst limit: its changes are
// folded then until the next burst. An endpoint that is open in the end and was not
// before, or the other way round, is an event of its own, so that a burst changes nothing of
// what is open.
type burst struct {
	container      *model.Container
	opened, closed uint64
	first, last    clock.Instant
	source         model.Source
	ports          map[uint16]struct{}
	more           bool // there were other ports
	// unknownOpened and unknownClosed are those at endpoints that are not known, and
	// unknownFirst and unknownLast the times when they were added: a scan that begins later
	// shows which are open.
	unknownOpened, unknownClosed uint64
	unknownFirst, unknownLast    clock.Instant
	place                        place
	processes                    []model.Process
	// folding means that changes are counted until the next burst; held are the last changes
	// of endpoints whose last event differs from their state.
	folding bool
	held    map[model.Endpoint]heldChange
}

// heldChange is a change that may become an event of its own.
type heldChange struct {
	tracker.Change
	reach exposure.Reach
}

// place is what the openings and closings of a burst have in common.
type place struct {
	known, mixed bool // one was added; they differ in the port or the protocol
	protocol     model.Protocol
	address      netip.Addr
	port         uint16
	mixedAddress bool
	mixedOwners  bool // in the processes
}

// rate counts the changes of one container in a second.
type rate struct {
	began clock.Instant
	count int
}

// burstOf returns the burst of a container.
func (c *Capture) burstOf(container *model.Container) *burst {
	b := c.bursts[container.ID]
	if b == nil {
		b = &burst{ports: map[uint16]struct{}{}}
		if c.bursts == nil {
			c.bursts = bursts{}
		}
		c.bursts[container.ID] = b
	}
	b.container = container
	return b
}

// count adds openings and closings that a source observed.
func (b *burst) count(opened, closed uint64, from model.Source) {
	b.opened += opened
	b.closed += closed
	b.source = from
}

// add records where and when sockets opened or closed.
func (b *burst) add(protocol model.Protocol, address netip.Addr, number uint16, processes []model.Process, first, last clock.Instant) {
	b.span(first, last)
	p := &b.place
	if number == 0 {
		return
	}
	if len(b.ports) < maxCountedPorts {
		b.ports[number] = struct{}{}
	} else if _, known := b.ports[number]; !known {
		b.more = true
	}
	if !p.known {
		*p = place{known: true, protocol: protocol, address: address, port: number}
		b.processes = processes
		return
	}
	p.mixed = p.mixed || p.protocol != protocol || p.port != number
	p.mixedAddress = p.mixedAddress || p.address != address
	p.mixedOwners = p.mixedOwners || !sameProcesses(b.processes, processes)
}

// span extends the time of the burst.
func (b *burst) span(first, last clock.Instant) {
	if b.first.IsZero() || first.Before(b.first) {
		b.first = first
	}
	if last.After(b.last) {
		b.last = last
	}
}

// unknown records that some openings and closings were at unknown endpoints.
func (b *burst) unknown(opened, closed uint64, now clock.Instant) {
	b.more = true
	b.place.mixed, b.place.mixedAddress, b.place.mixedOwners = true, true, true
	if b.unknownFirst.IsZero() {
		b.unknownFirst = now
	}
	b.unknownLast = now
	b.unknownOpened += opened
	b.unknownClosed += closed
}

// shown subtracts a change that a scan has found: that is an event of its own.
func (b *burst) shown(change *tracker.Change) {
	switch {
	case change.Source != model.SourceSockDiag && change.Source != model.SourceProc || change.Transient:
	case change.Type == model.Opened && b.unknownOpened > 0:
		b.unknownOpened--
		b.opened--
	case change.Type == model.Closed && b.unknownClosed > 0:
		b.unknownClosed--
		b.closed--
	}
}

func sameProcesses(a, b []model.Process) bool {
	return slices.EqualFunc(a, b, func(p, q model.Process) bool { return p.PID == q.PID && p.Name == q.Name })
}

// folds reports whether a change is counted instead of being reported now.
func (c *Capture) folds(change *tracker.Change) bool {
	if change.Type == model.Changed {
		return false
	}
	id := change.Container.ID
	if b := c.bursts[id]; b != nil && b.folding {
		return true
	}
	if !c.exceeds(id) && c.hasRoom(id) {
		return false
	}
	b := c.burstOf(change.Container)
	b.folding = true
	return true
}

// exceeds counts a change, and reports whether its container exceeds the burst limit.
func (c *Capture) exceeds(id string) bool {
	limit := c.tuning.BurstLimit
	if limit <= 0 {
		return false
	}
	m := c.containers[id]
	if m == nil {
		return false
	}
	r := &m.listed.rate
	if c.now.Sub(r.began) >= time.Second {
		*r = rate{began: c.now}
	}
	r.count++
	return r.count > limit
}

// fold counts a change. It holds the last change of an endpoint whose state differs from
// its last event: two changes that cancel each other are only counted.
func (c *Capture) fold(change *tracker.Change, reach exposure.Reach) {
	b := c.burstOf(change.Container)
	e := change.Endpoint
	b.add(e.Protocol, e.Address, e.Port, change.Processes, change.Time, change.Time)
	if change.Type == model.Opened {
		b.count(1, 0, change.Source)
	} else {
		b.count(0, 1, change.Source)
	}
	if change.Transient {
		return // its other half cancels it
	}
	if held, ok := b.held[e]; ok && held.Type != change.Type {
		delete(b.held, e)
		if held.Type == model.Closed && !held.reach.Equal(reach) { // the events have it open as before
			c.emitReach(change, held.reach, reach, change.Time, change.Source)
		}
		return
	}
	if b.held == nil {
		b.held = map[model.Endpoint]heldChange{}
	}
	b.held[e] = heldChange{*change, reach}
}

// flushReadyBursts emits the bursts except those that wait for a scan: what the scan finds
// is an event of its own, and would be accounted for twice.
func (c *Capture) flushReadyBursts() {
	for id, b := range c.bursts {
		if !c.awaitsScan(id, b) {
			c.flushBurst(id)
		}
	}
}

func (c *Capture) awaitsScan(id string, b *burst) bool {
	m := c.containers[id]
	return b.unknownOpened+b.unknownClosed > 0 && m != nil && m.namespace != nil && m.namespace.watcher != nil &&
		m.namespace.scanned.Before(b.unknownLast) && c.now.Sub(b.unknownFirst) < maxScanWait
}

// flushBursts emits all bursts.
func (c *Capture) flushBursts() {
	c.now = clock.Now()
	for id := range c.bursts {
		c.flushBurst(id)
	}
}

// flushBurst emits what was counted of a container: the held changes as events of their
// own, and the rest as a burst.
func (c *Capture) flushBurst(id string) {
	b := c.bursts[id]
	if b == nil {
		return
	}
	delete(c.bursts, id)
	held := make([]heldChange, 0, len(b.held))
	for _, change := range b.held {
		held = append(held, change)
	}
	slices.SortFunc(held, func(x, y heldChange) int { return int(x.Time.Sub(y.Time)) })
	for i := range held {
		if held[i].Type == model.Opened {
			b.opened -= min(b.opened, 1)
		} else {
			b.closed -= min(b.closed, 1)
		}
		c.emit(&held[i].Change, held[i].reach, true)
	}
	if b.opened+b.closed == 0 {
		return
	}
	c.counts.burstOpened += b.opened
	c.counts.burstClosed += b.closed
	c.send(c.burstEvent(b), nil, id, true)
}

func (c *Capture) burstEvent(b *burst) *model.Event {
	e := &model.Event{
		Type: model.Bursts, Time: c.wall.Time(b.last),
		Listener: model.Listener{Host: c.hostName, Container: b.container.Ref(), Source: b.source},
		Burst: &model.Burst{
			Opened: b.opened, Closed: b.closed, First: c.wall.Time(b.first), Last: c.wall.Time(b.last), PortCount: len(b.ports),
		},
	}
	for number := range b.ports {
		e.Ports = append(e.Ports, number)
	}
	slices.Sort(e.Ports)
	e.Ports = e.Ports[:min(len(e.Ports), model.MaxBurstPorts)]
	if b.more {
		e.PortCount = max(e.PortCount, 1)
	}
	if p := &b.place; p.known {
		if !p.mixed {
			e.Protocol, e.Port = p.protocol, p.port
		}
		if !p.mixedAddress {
			e.Address = p.address
		}
		if !p.mixedOwners {
			e.Processes = b.processes
		}
	}
	return e
}

// setBurstTimer makes the bursts be emitted within burstInterval.
func (c *Capture) setBurstTimer() {
	if len(c.bursts) > 0 && !c.timers.burstSet {
		c.timers.burstSet = true
		c.timers.burst.Reset(burstInterval)
	}
}
