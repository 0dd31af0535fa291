package capture

import (
	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

// takeHeld applies the result of a lookup of holders.
func (c *Capture) takeHeld(o *source.Held) {
	changes := c.tracker.Held(c.changes[:0], o.Lookup)
	kept := changes[:0]
	for _, change := range changes {
		// Where the container is ending, which of its processes end last is no change.
		if change.Type != model.Changed || !o.Ending[change.Container.ID] {
			kept = append(kept, change)
		}
	}
	c.publish(kept)
	if o.Watcher == nil {
		return
	}
	if n := c.namespaceOf(o.Watcher); n != nil {
		c.reportUnreachable(n)
		c.reportOwnerless(n)
	}
}

func (c *Capture) answerFresh(q *source.Fresh) {
	if n := c.namespaceOf(q.Watcher); n != nil {
		q.Holdings, q.More = c.tracker.Fresh(q.Holdings, n.id, q.Until)
	}
}

func (c *Capture) answerHolders(q *source.Holders) {
	c.tracker.Holders(func(p *model.Process) {
		q.Recorded = append(q.Recorded, attribute.Recorded{PID: p.PID, Name: p.Name})
	})
}

func (c *Capture) answerHoldings(q *source.Holdings) {
	var held func(pid int) bool
	if q.PIDs != nil {
		held = func(pid int) bool { _, ok := q.PIDs[pid]; return ok }
	}
	q.Holdings = c.tracker.Holdings(q.Holdings[:0], held)
}
