package capture

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// takeCloses applies destroy notifications. A socket that nobody had seen was open
// between two scans, unless it was a client's.
func (c *Capture) takeCloses(o *source.Closes) {
	n := c.namespaceOf(o.Watcher)
	c.countFacts(len(o.List))
	p := &c.counts.notified
	p.In += uint64(len(o.List))
	for i := range o.List {
		if n == nil { // the namespace's last monitored container has gone
			p.Dropped++
			continue
		}
		c.takeClose(n, &o.List[i], o.Time)
	}
	if o.Overrun && n != nil {
		c.counts.overruns++
		p.In += o.Lost
		p.Lost += o.Lost
		n.overrun.add(o.Lost, c.now)
	}
}

// overrun counts destroy notifications that were lost, until a gap reports them. The next
// scan shows which of them were of sockets that are known: their closings are events.
type overrun struct {
	pending   bool
	uncounted bool   // more were lost than lost, and it is not known how many
	lost      uint64 // notifications
	since     clock.Instant
	last      clock.Instant
	// vanished are the sockets that the last scan, or one since, found closed without a
	// notification.
	vanished uint64
}

// overrunTime is how long a gap waits for that scan.
const overrunTime = 10 * time.Second

func (o *overrun) add(lost uint64, now clock.Instant) {
	if !o.pending {
		o.pending, o.since = true, now
	}
	o.last = now
	o.lost += lost
	o.uncounted = o.uncounted || lost == 0
}

// scanned adds what a scan that began at a moment found.
func (o *overrun) scanned(c *Capture, n *namespace, began clock.Instant, vanished uint64) {
	if !o.pending {
		o.vanished = vanished
		return
	}
	o.vanished += vanished
	if began.After(o.last) {
		c.reportOverrun(n)
	}
}

// reportOverrun reports by a gap the lost notifications of sockets that nobody has seen.
func (c *Capture) reportOverrun(n *namespace) {
	o := n.overrun
	n.overrun = overrun{}
	lost := o.lost - min(o.lost, o.vanished)
	if !o.uncounted && lost == 0 {
		return
	}
	container, _ := n.onlyMember()
	reason := "destroy notifications were lost: sockets closed faster than they could be read; the namespace is scanned again"
	if o.uncounted {
		reason += "; how many were lost is not known"
	}
	c.gap(container, reason, 2*lost) // each stands for an opening and a closing
}

// reportOverruns reports what has waited for a scan too long.
func (c *Capture) reportOverruns() {
	for _, n := range c.namespaces {
		if n.overrun.pending && c.now.Sub(n.overrun.since) > overrunTime {
			c.reportOverrun(n)
		}
	}
}

func (c *Capture) takeClose(n *namespace, o *source.Close, at clock.Instant) {
	p := &c.counts.notified
	changes, known := c.tracker.Closed(c.changes[:0], n.id, o.Socket.Cookie, at, model.SourceDestroy)
	if known || !o.Server {
		if known {
			p.Out++
		} else {
			p.Dropped++
		}
		c.publish(changes)
		return
	}
	container, certain := n.onlyMember()
	switch {
	case !certain:
		p.Lost++
		c.noteOwnerless(n, &o.Socket)
	case container == nil || !c.reported(container, o.Socket.Protocol, o.Socket.Port):
		p.Dropped++
	default:
		c.transient(n, &o.Socket, tracker.Owner{Container: container}, at, model.SourceDestroy)
		p.Out++
		return
	}
	c.publish(changes)
}

// transient reports a socket of which only the close is known: as two events, or, where
// another socket holds the endpoint, as one opening and one closing of a burst. Whether
// the other was there beside it (SO_REUSEPORT) or came after it, a close does not say.
func (c *Capture) transient(n *namespace, s *model.Socket, owner tracker.Owner, at clock.Instant, from model.Source) {
	changes, reported := c.tracker.Transient(c.changes[:0], n.id, *s, owner, at, from)
	c.publish(changes)
	if !reported {
		b := c.burstOf(owner.Container)
		b.add(s.Protocol, s.Address, s.Port, owner.Processes, at, at)
		b.opened++
		b.closed++
		b.source = from
	}
}

// doubt counts ports of which the container is not known.
type doubt struct {
	count    uint64 // since a gap reported them
	last     string
	reported clock.Instant // when the last gap was
}

// gapInterval is the least time between two gaps of one kind: an overload is one story.
const gapInterval = time.Second

func (c *Capture) noteOwnerless(n *namespace, s *model.Socket) {
	n.ownerless.count++
	n.ownerless.last = fmt.Sprintf("%d/%s on %s", s.Port, s.Protocol, s.Address)
	c.reportOwnerless(n)
}

// reportOwnerless reports such ports by a gap, at most one a gapInterval.
func (c *Capture) reportOwnerless(n *namespace) {
	d := &n.ownerless
	if d.count > 0 && !d.reported.IsZero() && c.now.Sub(d.reported) < gapInterval {
		n.watcher.Opened() // which leads here again
		return
	}
	c.reportDoubt(n)
}

// reportDoubt reports them at once: a member ends, or portwatcher does.
func (c *Capture) reportDoubt(n *namespace) {
	d := &n.ownerless
	if d.count == 0 {
		return
	}
	c.gap(nil, fmt.Sprintf("ports that opened and closed between two scans in the network namespace of %s: %d, the last %s; whose they were is not known",
		n.names(), d.count, d.last), 2*d.count)
	*d = doubt{reported: c.now}
}

// reportLeadsNowhere warns once of each published port whose only listeners are on
// loopback: the engine forwards to the container's network address.
func (c *Capture) reportLeadsNowhere(n *namespace) {
	containers := n.containers()
	if n.host || !slices.ContainsFunc(containers, func(c *model.Container) bool { return len(c.Ports) > 0 }) {
		return
	}
	type key struct {
		protocol model.Protocol
		port     uint16
	}
	onLoopback := map[key]*model.Container{}
	elsewhere := map[key]bool{}
	for _, open := range c.tracker.OpenIn(n.id) {
		k := key{open.Endpoint.Protocol, open.Endpoint.Port}
		if open.Endpoint.Address.IsLoopback() {
			onLoopback[k] = open.Container
		} else {
			elsewhere[k] = true
		}
	}
	for k, container := range onLoopback {
		published := exposure.Published(k.protocol, k.port, containers, func(netip.AddrPort) bool { return true })
		if elsewhere[k] || len(published) == 0 || !c.env.Notices.First(fmt.Sprint("nowhere ", container.ID, k)) {
			continue
		}
		c.log.WithField("container", container.Name).Warnf(
			"Port %d/%s is published at %s, but only loopback listens inside the container: the published port leads nowhere. Let the server listen on 0.0.0.0 or [::].",
			k.port, k.protocol, strings.Join(published, ", "))
	}
}
