package capture

import (
	"time"

	"portwatcher/internal/clock"
)

// overrun counts lost destroy notifications until a gap reports them. The next scan shows
// how many of them were of known sockets, whose closings are events.
type overrun struct {
	pending   bool
	uncounted bool   // an unknown number beside lost was lost
	lost      uint64 // notifications
	since     clock.Instant
	last      clock.Instant
	// vanished is the number of known sockets that were missing in the last scan, or in one
	// since.
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

// scanned applies a scan that began at a moment, and in which known sockets were missing.
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

// reportOverrun reports by a gap the lost notifications of unknown sockets, if there are any.
// Where none are pending, what the last scan found is kept.
func (c *Capture) reportOverrun(n *namespace) {
	if !n.overrun.pending {
		return
	}
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

// reportOverruns reports what has waited longer than overrunTime for a scan.
func (c *Capture) reportOverruns() {
	for _, n := range c.namespaces {
		if c.now.Sub(n.overrun.since) > overrunTime {
			c.reportOverrun(n)
		}
	}
}
