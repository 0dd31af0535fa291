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

// takeCloses applies destroy notifications. A socket that is not known was open between
// two scans, unless it was a client's.
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

func (c *Capture) takeClose(n *namespace, o *source.Close, at clock.Instant) {
	p := &c.counts.notified
	changes, known := c.tracker.Closed(c.changes[:0], n.id, o.Socket.Cookie, at, model.SourceDestroy)
	container, certain := n.onlyMember()
	switch {
	case known:
		p.Out++
	case !o.Server:
		p.Dropped++
	case !certain:
		p.Lost++
		n.ownerless.count++
		n.ownerless.last = fmt.Sprintf("%d/%s on %s", o.Socket.Port, o.Socket.Protocol, o.Socket.Address)
		c.reportOwnerless(n)
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
// another socket holds the endpoint, as one opening and one closing of a burst. A close
// does not show whether the other was open beside it (SO_REUSEPORT) or opened after it.
func (c *Capture) transient(n *namespace, s *model.Socket, owner tracker.Owner, at clock.Instant, from model.Source) {
	changes, reported := c.tracker.Transient(c.changes[:0], n.id, *s, owner, at, from)
	c.publish(changes)
	if !reported {
		b := c.burstOf(owner.Container)
		b.add(s.Protocol, s.Address, s.Port, owner.Processes, at, at)
		b.count(1, 1, from)
	}
}

// doubt counts ports whose container is not known.
type doubt struct {
	count    uint64 // since the last gap
	last     string
	reported clock.Instant // the time of the last gap
}

// gapInterval is the least time between two gaps of one kind in a namespace.
const gapInterval = time.Second

// reportOwnerless reports the ownerless ports by a gap, at most one a gapInterval.
func (c *Capture) reportOwnerless(n *namespace) {
	d := &n.ownerless
	if d.count > 0 && !d.reported.IsZero() && c.now.Sub(d.reported) < gapInterval {
		n.watcher.Opened() // the lookup calls this again
		return
	}
	c.reportDoubt(n)
}

// reportDoubt reports the ownerless ports now: a member ends, or portwatcher stops.
func (c *Capture) reportDoubt(n *namespace) {
	d := &n.ownerless
	if d.count == 0 {
		return
	}
	c.gap(nil, fmt.Sprintf("ports that opened and closed between two scans in the network namespace of %s: %d, the last %s; their containers are not known",
		n.names(), d.count, d.last), 2*d.count)
	*d = doubt{reported: c.now}
}

// reportUnreachable warns, one time for each, of published ports whose only listeners are on
// loopback: the engine forwards to the container's network address.
func (c *Capture) reportUnreachable(n *namespace) {
	containers := n.containers()
	if n.host || n.inner != nil || !slices.ContainsFunc(containers, func(c *model.Container) bool { return len(c.Ports) > 0 }) {
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
		if elsewhere[k] || len(published) == 0 || !c.env.Notices.First(fmt.Sprint("unreachable ", container.ID, k)) {
			continue
		}
		c.log.WithField("container", container.Name).Warnf(
			"Port %d/%s is published at %s, but the server inside the container listens on loopback only: the published port does not reach it. Let the server listen on 0.0.0.0 or [::].",
			k.port, k.protocol, strings.Join(published, ", "))
	}
}
