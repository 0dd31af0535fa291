package alert

import "portwatcher/internal/model"

// begin makes the facts those of an event.
func (c *core) begin(e *model.Event) {
	c.about, c.before = e, nil
	c.facts.set(e)
	if e.Container == nil {
		return
	}
	c.facts.ContainerAge = c.age(e)
	c.facts.Running = true
	if c.ask.running != nil {
		if running, known := c.ask.running(e.Container.ID, e.Time); known {
			c.facts.Running = running
		}
	}
	if e.Type == model.Closed && e.Source == model.SourceEngine {
		c.facts.Running = false
	}
}

// age returns the seconds from the start of a container to an event; -1 where that is not known.
// What ran before alerts were switched on counts from then, so that nothing is new at first.
func (c *core) age(e *model.Event) float64 {
	started := e.Container.StartedAt
	switch {
	case started.IsZero() || started.After(e.Time):
		return -1
	case e.Source == model.SourceRestart && started.After(c.counters.Alive):
		return 0 // it started while portwatcher did not run
	case started.Before(c.counters.Began):
		started = c.counters.Began
	}
	return max(e.Time.Sub(started).Seconds(), 0)
}

// matches evaluates a rule for the facts. A failure counts as no match.
func (c *core) matches(r *Rule) bool {
	counts := c.rules[r.Name]
	counts.Evaluated++
	matches, err := c.machine.matches(r, &c.facts)
	if err != nil {
		counts.Failed++
		c.ask.report(err)
	}
	if matches {
		counts.Matched++
	}
	return matches
}

func (s *surroundings) previousOf(e *model.Event) *previous {
	if s.before != nil && e.Container != nil && e.Port != 0 {
		found, err := s.before(e)
		if err == nil {
			return found
		}
		s.report(err)
	}
	return &previous{}
}

func (c *core) seenBefore() bool { return c.previous().Event != nil }

// widened is the function of rules.
func (c *core) widened() bool {
	e := c.about
	var before model.Listener
	switch {
	case e.Type == model.Changed && e.Change == model.ChangeExposure:
		before.SetReach(e.PreviousExposure, e.PreviousPublished)
	case e.Type == model.Opened && c.previous().Reach != nil:
		before = *c.previous().Reach
	default:
		return false
	}
	if before.Exposure == "" || before.Outside == nil || e.Outside == nil {
		return false
	}
	return further(&e.Listener, &before)
}

// further reports whether more can reach a than b. Both have an exposure.
func further(a, b *model.Listener) bool {
	return *a.Outside && !*b.Outside || *a.Outside == *b.Outside && model.CompareReach(a.Exposure, b.Exposure) < 0
}
