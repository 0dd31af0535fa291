package capture

import (
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// takeCounts places counts, or keeps them until the engine reports their container.
func (c *Capture) takeCounts(o *source.Counts) {
	for i := range o.List {
		count := &o.List[i]
		c.counts.counted.In += countOf(count)
		c.countFacts(int(countOf(count)))
		c.takeCount(count, o.Cgroups, c.now)
	}
}

// takeCount places a count that arrived at a moment, or keeps it.
func (c *Capture) takeCount(count *source.Count, paths *source.CgroupPaths, at clock.Instant) {
	switch result, id := c.placeCount(count, paths); result {
	case applied:
		c.counts.counted.Out += countOf(count)
	case dropped:
		c.counts.counted.Dropped += countOf(count)
	case waits:
		c.pending.addCount(id, *count, paths, at)
	case lost:
		c.counts.counted.Lost += countOf(count)
		c.unnamed.count += countOf(count)
	}
}

func countOf(c *source.Count) uint64 { return c.Opened + c.Closed + c.Missed }

// placeCount passes a count to the tracker, and what is no event of its own to the
// container's burst.
func (c *Capture) placeCount(count *source.Count, paths *source.CgroupPaths) (placed, string) {
	n := c.byCookie[count.NetnsCookie]
	owner := c.findOwner(paths, count.Cgroup, count.TaskCgroup)
	switch {
	case n == nil:
		result, id := c.placeWithout(owner, count.NetnsCookie)
		if result == lost && count.Opened == 0 {
			result = dropped // what closes was open before
		}
		return result, id
	case owner.container == nil && owner.stranger != "":
		return waits, owner.stranger
	}
	if n.watcher != nil {
		n.watcher.CountFact()
	}
	fact := source.Fact{Event: probe.Event{Socket: count.Socket}, Processes: count.Processes}
	if !c.applyCount(n, count, c.ownerOf(n, &fact, owner.container)) {
		return dropped, ""
	}
	return applied, ""
}

// applyCount returns false where the endpoint is of no interest.
func (c *Capture) applyCount(n *namespace, count *source.Count, owner tracker.Owner) bool {
	s := &count.Socket
	if owner.Container != nil && !count.Rest && !c.reported(owner.Container, s.Protocol, s.Port) {
		owner = tracker.Owner{}
	}
	opened, closed := count.Opened, count.Closed+count.Missed
	if count.Rest || s.Port == 0 {
		if n.watcher != nil {
			n.watcher.Poke() // a dump shows which of them are open
		}
	} else {
		changes := c.tracker.Counted(c.changes[:0], n.id, tracker.Counted{
			Socket: *s, Owner: owner, Opened: count.Opened, Closed: count.Closed, Missed: count.Missed,
			LastOpened: count.LastOpened, LastClosed: count.LastClosed, ClosedCookie: count.ClosedCookie, NotBefore: c.lastOf(owner.Container), Source: model.SourceEBPF,
		})
		for i := range changes {
			switch changes[i].Type {
			case model.Opened:
				opened -= min(opened, 1)
			case model.Closed:
				closed -= min(closed, 1)
			}
		}
		c.publish(changes)
	}
	if owner.Container == nil {
		return false
	}
	if opened+closed == 0 {
		return true
	}
	processes := owner.Processes
	if !count.SameProcess {
		processes = nil
	}
	b := c.burstOf(owner.Container)
	b.add(s.Protocol, s.Address, s.Port, processes, count.First, count.Last)
	b.count(opened, closed, model.SourceEBPF)
	if count.Rest || s.Port == 0 {
		b.unknown(opened, closed, c.now)
	}
	return true
}
