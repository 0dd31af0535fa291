package capture

import (
	"maps"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

const (
	// openTime is how long a namespace that was found may take until eBPF's reports of it are
	// placed.
	openTime = 2 * time.Second
	// unseenTime is how long a namespace that only eBPF reports is kept when nothing is open
	// there.
	unseenTime = time.Minute
)

// inner is what a namespace has that containers made themselves; see [source.Inner]. A
// member of it is a member of its own namespace, too.
type inner struct {
	pids   []int // processes that lead into it
	linked bool
	// unseen means that only eBPF reports it, by its cookie: it is the namespace of a thread, or
	// its processes ended before they were found. It has no watcher.
	unseen   bool
	lastFact clock.Instant // of an unseen one
}

// takeInner applies a search for inner namespaces: those that are not found any more end.
func (c *Capture) takeInner(o *source.Inner) {
	for id, found := range o.Found {
		c.enterInner(id, found, o.Alive)
	}
	for _, n := range slices.Collect(maps.Values(c.namespaces)) {
		switch found := o.Found[n.id]; {
		case n.inner == nil:
		case !n.inner.unseen && found == nil:
			c.dropInner(n)
		case !n.inner.unseen:
			for id, m := range n.members {
				if !found.Containers[id] {
					c.leaveInner(n, m)
				}
			}
		case len(c.tracker.OpenIn(n.id)) == 0 && len(n.unbound) == 0 && c.now.Sub(n.inner.lastFact) > unseenTime:
			c.dropInner(n)
		}
	}
	c.publishDirectory()
	for id, pid := range o.Alive {
		if m := c.containers[id]; m != nil && m.PID == pid {
			m.livedAt = o.Began
			c.seeUnseen(m, o.Began.Add(-openTime))
			c.closeRemembered(id, c.now, model.SourceRestart)
		}
	}
}

// enterInner applies an inner namespace that was found in containers with these first pids.
func (c *Capture) enterInner(id model.Namespace, found *source.InnerNamespace, alive map[string]int) {
	n := c.namespaces[id]
	switch {
	case n == nil:
		n = newNamespace(id)
		n.inner = &inner{}
	case n.inner == nil:
		return // it is a container's own by now
	}
	n.inner.pids = found.PIDs
	for id := range found.Containers {
		if m := c.containers[id]; m != nil && m.namespace != nil && m.PID == alive[id] && n.members[id] == nil {
			c.join(n, m)
			c.restoreIn(n, m)
		}
	}
	if len(n.members) == 0 {
		delete(c.namespaces, id)
		return
	}
	if n.inner.linked != found.Linked {
		n.inner.linked = found.Linked
		c.computeReach(n, c.now, model.SourceProc)
	}
	c.adjust(n)
}

// join makes a container a member of an inner namespace.
func (c *Capture) join(n *namespace, m *member) {
	c.namespaces[n.id] = n
	c.tracker.OpenNamespace(n.id)
	n.members[m.ID] = m
	m.inner = append(m.inner, n)
	c.reconsider(n)
}

// leaveInner removes a container from an inner namespace, which ends without a member.
func (c *Capture) leaveInner(n *namespace, m *member) {
	if len(n.members) == 1 {
		c.dropInner(n)
		return
	}
	delete(n.members, m.ID)
	m.inner = slices.DeleteFunc(m.inner, func(other *namespace) bool { return other == n })
	c.reconsider(n)
	c.adjust(n)
}

// dropInner ends an inner namespace, and closes what is open in it.
func (c *Capture) dropInner(n *namespace) {
	c.reportDoubt(n)
	c.reportOverrun(n)
	for _, m := range n.members {
		m.inner = slices.DeleteFunc(m.inner, func(other *namespace) bool { return other == n })
	}
	clear(n.members)
	c.adjust(n)
	delete(c.byCookie, n.netnsCookie)
	c.publish(c.tracker.CloseNamespace(c.changes[:0], n.id, c.now, model.SourceProc))
	delete(c.namespaces, n.id)
	c.publishDirectory()
}

// seeUnseen makes a namespace of each unknown cookie of what has waited for a running
// container since before a moment, and places that: the container's own namespace is
// known, and a search has found no other with this cookie.
func (c *Capture) seeUnseen(m *member, before clock.Instant) {
	w := c.pending.lists[m.ID]
	if w == nil || !m.monitored || m.namespace == nil || m.namespace.netnsCookie == 0 {
		return
	}
	for i := range w.facts {
		if f := &w.facts[i]; f.Time.Before(before) {
			c.addUnseen(m, f.NetnsCookie)
		}
	}
	for i := range w.counts {
		if count := &w.counts[i]; count.Last.Before(before) {
			c.addUnseen(m, count.NetnsCookie)
		}
	}
	c.placePending(m.ID)
}

func (c *Capture) addUnseen(m *member, cookie uint64) {
	if c.byCookie[cookie] != nil {
		return
	}
	n := newNamespace(model.Namespace{Device: model.UnseenDevice, Inode: cookie})
	n.inner = &inner{unseen: true, lastFact: c.now}
	n.netnsCookie, n.host = cookie, cookie == c.hostCookie
	c.byCookie[cookie] = n
	c.join(n, m)
}

// restoreIn is restore for an inner namespace.
func (c *Capture) restoreIn(n *namespace, m *member) {
	waiting := slices.DeleteFunc(c.resume.open[m.ID], func(s model.State) bool {
		restored := c.restoreState(n, m, &s)
		n.resumed = n.resumed || restored
		return restored || !c.reported(m.Container, s.Protocol, s.Port)
	})
	if delete(c.resume.open, m.ID); len(waiting) > 0 {
		c.resume.open[m.ID] = waiting
	}
}
