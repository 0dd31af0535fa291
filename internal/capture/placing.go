package capture

import (
	"fmt"

	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// prunePending forgets what has waited for a container that the engine does not report: it
// belongs to another engine. While the engine cannot be reached everything waits, and
// afterwards for the events that it repeats. Where it has forgotten some, the container may
// be one of its own: a gap stands for it.
func (c *Capture) prunePending() {
	if c.link.lost != nil {
		return
	}
	var facts, counts uint64
	containers := 0
	for id, w := range c.pending.lists {
		switch {
		case c.now.Sub(max(w.latest, c.engineBack)) <= pendingTime || c.containers[id] != nil:
		case w.began.Before(c.engineMissed):
			one, counted := c.pending.take(id).number()
			facts, counts, containers = facts+one, counts+counted, containers+1
		default:
			c.pending.drop(id)
		}
	}
	if containers == 0 {
		return
	}
	c.counts.ring.Lost += facts
	c.counts.counted.Lost += counts
	c.gap(nil, fmt.Sprintf("containers started and ended while the Docker Engine could not be reached, or it has forgotten their events, %d of them: it is not known whether they are monitored", containers), facts+counts)
}

// placePending places what waits for a container that the engine has reported.
func (c *Capture) placePending(id string) {
	if c.pending.lists[id] == nil {
		return
	}
	w := c.pending.take(id)
	for i := range w.facts {
		c.takeFact(&w.facts[i].Fact, w.facts[i].paths, w.latest)
	}
	for i := range w.counts {
		c.takeCount(&w.counts[i].Count, w.counts[i].paths, w.latest)
	}
	c.placeOverflow(id, w)
}

// placeOverflow adds what was counted beyond the share to the container's burst.
func (c *Capture) placeOverflow(id string, w *waiting) {
	if w.opened+w.closed == 0 {
		return
	}
	if again := c.pending.lists[id]; again != nil { // it waits again
		again.opened += w.opened
		again.closed += w.closed
		again.counted = w.counted
		for socket := range w.counted {
			c.pending.opened[socket] = id
		}
		return
	}
	m := c.containers[id]
	if m == nil || !m.monitored {
		c.counts.ring.Dropped += w.opened + w.closed
		return
	}
	c.counts.ring.Out += w.opened + w.closed
	b := c.burstOf(m.Container)
	b.span(w.began, w.latest)
	b.count(w.opened, w.closed, model.SourceEBPF)
	b.unknown(w.opened, w.closed, c.now)
	for socket := range w.counted {
		if c.pending.overflowed == nil {
			c.pending.overflowed = map[socketID]*model.Container{}
		}
		c.pending.overflowed[socket] = m.Container
	}
	if m.namespace != nil && m.namespace.watcher != nil {
		m.namespace.watcher.Poke()
	}
}

// closeOverflowed counts the closing of an overflowed socket, unless a scan has made the
// socket known since. It returns false for any other socket.
func (c *Capture) closeOverflowed(f *source.Fact, known bool) bool {
	socket := socketID{f.NetnsCookie, f.Socket.Cookie}
	container := c.pending.overflowed[socket]
	if container == nil {
		return false
	}
	delete(c.pending.overflowed, socket)
	if !known {
		c.countBeside(container, f, 0, 1)
	}
	return true
}

// placeLast places what waits for a container that has ended. n is nil where its namespace
// was never identified. Facts of another namespace are of the container's next life, and
// wait.
func (c *Capture) placeLast(container *model.Container, n *namespace) {
	w := c.pending.take(container.ID)
	if facts, counts := w.number(); facts+counts == 0 {
		return
	}
	unseen := n == nil
	if unseen { // only its cookie in eBPF's events is known
		n = newNamespace(model.Namespace{Device: model.UnseenDevice})
		n.members[container.ID] = &member{Container: container, monitored: true}
	}
	for i := range w.facts {
		f := &w.facts[i]
		if f.Kind == probe.Opened && n.netnsCookie == 0 {
			n.netnsCookie = f.NetnsCookie
			if unseen {
				n.id.Inode = f.NetnsCookie
				c.tracker.OpenNamespace(n.id)
			}
		}
		switch {
		case f.NetnsCookie != n.netnsCookie:
			c.pending.addFact(container.ID, f.Fact, f.paths, w.latest)
			continue
		case f.Kind == probe.Opened:
			c.placeOpen(n, &f.Fact, tracker.Owner{Container: container, Processes: f.Processes})
		default:
			c.placeClose(n, &f.Fact)
		}
		c.counts.ring.Out++
	}
	for i := range w.counts {
		count := &w.counts[i].Count
		if n.netnsCookie == 0 {
			n.netnsCookie = count.NetnsCookie
		}
		if count.NetnsCookie != n.netnsCookie {
			c.pending.addCount(container.ID, *count, w.counts[i].paths, w.latest)
			continue
		}
		c.applyCount(n, count, tracker.Owner{Container: container, Processes: count.Processes})
		c.counts.counted.Out += countOf(count)
	}
	if w.opened+w.closed > 0 {
		c.counts.ring.Out += w.opened + w.closed
		c.gap(container, fmt.Sprintf("%d ports opened and %d closed before the engine reported the container, more than are kept", w.opened, w.closed), w.opened+w.closed)
	}
	if unseen {
		c.publish(c.tracker.CloseNamespace(c.changes[:0], n.id, c.now, model.SourceEngine))
	}
}

// placeWaiting places, when portwatcher stops, what waits for the first session of a
// namespace. What waits for a container that the engine has not reported belongs to another
// engine, as far as is known.
func (c *Capture) placeWaiting() {
	for id := range c.pending.lists {
		if m := c.containers[id]; m != nil && m.monitored {
			c.seeUnseen(m, c.now)
			c.placeLast(m.Container, m.namespace)
		}
	}
}
