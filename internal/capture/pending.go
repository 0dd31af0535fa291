package capture

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// Bounds on what waits for its container to be announced. An engine announces a
// container within a second; a busy one may take longer.
const (
	maxPending     = 4096 // facts of one container
	maxPendingIDs  = 1024 // containers
	pendingTime    = 15 * time.Second
	maxPendingKeys = 4096 // counted sockets of one container whose close is to come
)

// pending holds what eBPF reported of containers that the engine has not announced yet,
// by the ids that their cgroups name: each has its own share. The zero value is ready.
type pending struct {
	lists  map[string]*waiting
	opened map[socketID]string // those that wait with their opening, and by which id
	// overflowed are the sockets whose opening was counted in the burst of a container when
	// it became known, and that had not closed.
	overflowed map[socketID]*model.Container
	// Openings and closings of ids that nobody announced: facts, and what was counted.
	dropped, droppedCounts uint64
}

type socketID struct{ netns, cookie uint64 }

// waiting is what waits for one container, in its order.
type waiting struct {
	facts   []waitingFact
	counts  []waitingCount
	began   clock.Instant
	latest  clock.Instant
	opened  uint64 // that found no room
	closed  uint64
	counted map[socketID]struct{} // opened without room, not yet closed
}

type waitingFact struct {
	source.Fact
	paths *source.CgroupPaths
}

type waitingCount struct {
	source.Count
	paths *source.CgroupPaths
}

func (p *pending) list(id string, now clock.Instant) *waiting {
	w := p.lists[id]
	if w == nil {
		if p.lists == nil {
			p.lists, p.opened = map[string]*waiting{}, map[socketID]string{}
		}
		if len(p.lists) >= maxPendingIDs {
			p.dropOldest()
		}
		w = &waiting{began: now}
		p.lists[id] = w
	}
	w.latest = now
	return w
}

// addFact keeps a fact. Beyond the share of its container it is counted.
func (p *pending) addFact(id string, f source.Fact, paths *source.CgroupPaths, now clock.Instant) {
	w := p.list(id, now)
	socket := socketID{f.NetnsCookie, f.Socket.Cookie}
	_, counted := w.counted[socket]
	_, behind := p.opened[socket]
	switch {
	case counted && f.Kind == probe.Closed:
		delete(w.counted, socket)
		delete(p.opened, socket)
		w.closed++
		return
	case f.Kind == probe.Closed && !behind && len(w.facts) >= maxPending:
		w.closed++
		return
	case f.Kind == probe.Opened && len(w.facts) >= maxPending:
		if w.counted == nil {
			w.counted = map[socketID]struct{}{}
		}
		if len(w.counted) < maxPendingKeys {
			w.counted[socket] = struct{}{}
			p.opened[socket] = id
		}
		w.opened++
		return
	}
	w.facts = append(w.facts, waitingFact{f, paths})
	if f.Kind == probe.Opened {
		p.opened[socket] = id
	}
}

// addCount keeps a count. Beyond the share of its container it is added to the last.
func (p *pending) addCount(id string, count source.Count, paths *source.CgroupPaths, now clock.Instant) {
	w := p.list(id, now)
	if len(w.counts) >= maxPending {
		rest := &w.counts[maxPending-1]
		rest.Rest, rest.SameProcess = true, false
		rest.Opened, rest.Closed, rest.Missed = rest.Opened+count.Opened, rest.Closed+count.Closed, rest.Missed+count.Missed
		rest.First, rest.Last = min(rest.First, count.First), max(rest.Last, count.Last)
		return
	}
	w.counts = append(w.counts, waitingCount{count, paths})
}

// waitsBehind reports whether a socket's opening waits, and by which id.
func (p *pending) waitsBehind(netns, cookie uint64) (id string, behind bool) {
	if len(p.opened) == 0 {
		return "", false
	}
	id, behind = p.opened[socketID{netns, cookie}]
	return id, behind
}

// take removes and returns what waits for a container.
func (p *pending) take(id string) *waiting {
	w := p.lists[id]
	if w == nil {
		return &waiting{}
	}
	delete(p.lists, id)
	for i := range w.facts {
		delete(p.opened, socketID{w.facts[i].NetnsCookie, w.facts[i].Socket.Cookie})
	}
	for socket := range w.counted {
		delete(p.opened, socket)
	}
	return w
}

// number is how many openings and closings wait, as facts and in counts.
func (w *waiting) number() (facts, counts uint64) {
	for i := range w.counts {
		counts += countOf(&w.counts[i].Count)
	}
	return uint64(len(w.facts)) + w.opened + w.closed, counts
}

// drop forgets what waits for a container in which nobody is interested.
func (p *pending) drop(id string) {
	facts, counts := p.take(id).number()
	p.dropped += facts
	p.droppedCounts += counts
}

// dropAll forgets everything that waits.
func (p *pending) dropAll() {
	p.overflowed = nil
	for id := range p.lists {
		p.drop(id)
	}
}

// end forgets the sockets of a container that has ended.
func (p *pending) end(container string) {
	maps.DeleteFunc(p.overflowed, func(_ socketID, c *model.Container) bool { return c.ID == container })
}

func (p *pending) dropOldest() {
	oldest := slices.MinFunc(slices.Collect(maps.Keys(p.lists)), func(a, b string) int {
		return int(p.lists[a].latest.Sub(p.lists[b].latest))
	})
	p.drop(oldest)
}

// prunePending forgets what waited for a container that the engine does not know: it
// belongs to another engine. While the engine is away everything waits on. A container
// that ended in that time is never announced: what it did is reported by a gap.
func (c *Capture) prunePending() {
	if c.engineIs.lost != nil {
		return
	}
	var facts, counts uint64
	containers := 0
	for id, w := range c.pending.lists {
		switch {
		case c.now.Sub(w.latest) <= pendingTime || c.containers[id] != nil:
		case w.began.Before(c.engineBack):
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
	c.gap(nil, fmt.Sprintf("containers came and went while the Docker Engine was away, %d of them: whether they are monitored is not known", containers), facts+counts)
}

// placePending places what waits for a container that is known now.
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

// placeOverflow reports as a burst what found no room while a container was not known.
func (c *Capture) placeOverflow(id string, w *waiting) {
	if w.opened+w.closed == 0 {
		return
	}
	if c.pending.lists[id] != nil { // it waits on
		again := c.pending.lists[id]
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
	b.opened += w.opened
	b.closed += w.closed
	b.source = model.SourceEBPF
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

// closeOverflowed counts the closing of a socket whose opening was counted while its
// container was not known, unless a scan has made it known since. It returns false for any
// other socket.
func (c *Capture) closeOverflowed(f *source.Fact, known bool) bool {
	socket := socketID{f.NetnsCookie, f.Socket.Cookie}
	container := c.pending.overflowed[socket]
	if container == nil {
		return false
	}
	delete(c.pending.overflowed, socket)
	if !known {
		c.countBeside(container, f).closed++
	}
	return true
}

// placeLast places what waits for a container that has ended. Its namespace may never
// have been seen: n is nil then. Facts of another namespace are those of the container's
// next life, and go on waiting.
func (c *Capture) placeLast(container *model.Container, n *namespace) {
	w := c.pending.take(container.ID)
	if facts, counts := w.number(); facts+counts == 0 {
		return
	}
	unseen := n == nil
	if unseen { // known by nothing but its number in eBPF's events
		n = newNamespace(model.Namespace{Device: unseenDevice})
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
		c.gap(container, fmt.Sprintf("%d ports opened and %d closed before the engine announced the container, more than are kept", w.opened, w.closed), w.opened+w.closed)
	}
	if unseen {
		c.publish(c.tracker.CloseNamespace(c.changes[:0], n.id, c.now, model.SourceEngine))
	}
}

// unseenDevice is the device of namespaces that were never identified; the kernel gives
// no such number.
const unseenDevice = ^uint64(0)
