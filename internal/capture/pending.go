package capture

import (
	"maps"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
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
