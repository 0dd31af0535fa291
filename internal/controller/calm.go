package controller

import (
	"runtime/debug"
	"time"
)

// After a storm the memory that it took is given back to the system at once,
// not over the minutes that the runtime would take: portwatcher runs beside what
// people really use the machine for.
const (
	stormSize = 10_000 // facts
	calmAfter = 5 * time.Second
)

// calm notices storms and their end. The caller holds the controller's lock.
type calm struct {
	facts   int // since the last calm
	checked int // of them, when the timer last fired
	timer   *time.Timer
}

// count counts a fact.
func (s *calm) count() {
	if s.facts++; s.facts == stormSize {
		s.timer.Reset(calmAfter)
	}
}

// over says, when the timer has fired, whether the storm is over: hardly
// anything happened since it last did. If not it is asked again.
func (s *calm) over() bool {
	if s.facts-s.checked > stormSize/10 {
		s.checked = s.facts
		s.timer.Reset(calmAfter)
		return false
	}
	s.facts, s.checked = 0, 0
	return true
}

// settleDown gives back what a storm took.
func (c *Controller) settleDown() {
	c.mutex.Lock()
	over := c.calm.over()
	if over {
		c.tracker.Prune(time.Now())
		c.changes = nil
	}
	c.mutex.Unlock()
	if over {
		debug.FreeOSMemory()
	}
}
