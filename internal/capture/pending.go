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

// Bounds of what waits until the engine reports its container, which takes less than a
// second, or longer where the engine is busy.
const (
	maxPending     = 4096 // facts of one container
	maxPendingIDs  = 1024 // containers
	pendingTime    = 15 * time.Second
	maxPendingKeys = 4096 // counted open sockets of one container
)

// pending holds eBPF's reports of containers that the engine has not reported yet, by the
// ids in their cgroups. Each container has its own share. The zero value is ready.
type pending struct {
	lists  map[string]*waiting
	opened map[socketID]string // the ids by which the openings of sockets wait
	// overflowed are the open sockets whose opening was counted in the burst of a container
	// when the engine had reported that.
	overflowed map[socketID]*model.Container
	// dropped are openings and closings, in facts and in counts, of ids that the engine has
	// not reported.
	dropped, droppedCounts uint64
}

type socketID struct{ netns, cookie uint64 }

// waiting is what waits for one container, in its order.
type waiting struct {
	facts   []waitingFact
	counts  []waitingCount
	began   clock.Instant
	latest  clock.Instant
	opened  uint64 // beyond the share, as closed
	closed  uint64
	counted map[socketID]struct{} // of opened, those that are not closed
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

// addFact keeps a fact, or counts it beyond the share of its container.
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

// addCount keeps a count, or adds it to the last beyond the share of its container.
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

// waitsBehind returns the id by which a socket's opening waits, if it does.
func (p *pending) waitsBehind(netns, cookie uint64) (id string, behind bool) {
	if len(p.opened) == 0 {
		return "", false
	}
	id, behind = p.opened[socketID{netns, cookie}]
	return id, behind
}

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

// number returns how many openings and closings wait, as facts and in counts.
func (w *waiting) number() (facts, counts uint64) {
	for i := range w.counts {
		counts += countOf(&w.counts[i].Count)
	}
	return uint64(len(w.facts)) + w.opened + w.closed, counts
}

// drop forgets what waits for a container of no interest.
func (p *pending) drop(id string) {
	facts, counts := p.take(id).number()
	p.dropped += facts
	p.droppedCounts += counts
}

func (p *pending) dropAll() {
	p.overflowed = nil
	for id := range p.lists {
		p.drop(id)
	}
}

// end forgets the overflowed sockets of a container that has ended.
func (p *pending) end(container string) {
	maps.DeleteFunc(p.overflowed, func(_ socketID, c *model.Container) bool { return c.ID == container })
}

func (p *pending) dropOldest() {
	oldest := slices.MinFunc(slices.Collect(maps.Keys(p.lists)), func(a, b string) int {
		return int(p.lists[a].latest.Sub(p.lists[b].latest))
	})
	p.drop(oldest)
}

// prunePending forgets what has waited for a container that the engine does not report: it
// belongs to another engine. While the engine cannot be reached everything waits. The
// engine never reports a container that ended in that time: a gap stands for it.
func (c *Capture) prunePending() {
	if c.link.lost != nil {
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
	c.gap(nil, fmt.Sprintf("containers started and ended while the Docker Engine could not be reached, %d of them: it is not known whether they are monitored", containers), facts+counts)
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
		c.gap(container, fmt.Sprintf("%d ports opened and %d closed before the engine reported the container, more than are kept", w.opened, w.closed), w.opened+w.closed)
	}
	if unseen {
		c.publish(c.tracker.CloseNamespace(c.changes[:0], n.id, c.now, model.SourceEngine))
	}
}

// unseenDevice is the device of namespaces that were never identified; the kernel uses no
// such number.
const unseenDevice = ^uint64(0)
