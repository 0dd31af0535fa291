package expect

import (
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// History compares what a journal has of some time with a file: [History.Begin] receives what
// was open at its beginning, and [History.Apply] the events since then, in order. Of required
// ports it finds only those that are not open at its end.
type History struct {
	judge   *Judge
	set     model.OpenSet
	refs    map[string]*model.ContainerRef
	periods map[periodKey]model.DriftPeriod
}

type periodKey struct {
	model.DriftKey
	since time.Time
}

// NewHistory returns a history that is compared with a file; nil is labels alone.
func NewHistory(f *File) *History {
	h := &History{judge: NewJudge(nil), refs: map[string]*model.ContainerRef{}, periods: map[periodKey]model.DriftPeriod{}}
	h.judge.SetFile(f, time.Time{})
	return h
}

// Begin applies what was open at the beginning.
func (h *History) Begin(open []model.Open) {
	for i := range open {
		o := &open[i]
		h.Apply(&model.Event{Type: model.Opened, Time: o.Time, Listener: o.Listener})
	}
}

// Apply applies an event, which is not changed.
func (h *History) Apply(e *model.Event) {
	if e.Type == model.Drifted || e.Type == model.Gap || e.Container == nil {
		return
	}
	at := clock.Instant(e.Time.UnixNano())
	if known := h.refs[e.Container.ID]; known == nil || !known.Same(e.Container) {
		h.refs[e.Container.ID] = e.Container
		h.judge.Running(e.Container, true, at, e.Time)
	}
	judged := *e
	judged.Drift, judged.Expected = "", ""
	h.judge.Apply(&judged, at)
	h.set.Apply(&judged)
	h.judge.Events()
	for _, p := range h.judge.Periods() {
		h.periods[periodKey{p.Key(), p.Since}] = p
	}
}

// End returns the periods of drifts, in the order of [CompareDrifts]; those that lasted at the
// end, which is the time of now, have no end.
func (h *History) End(now time.Time) []model.DriftPeriod {
	var all []model.DriftPeriod
	state := State{Time: now}
	for _, o := range h.set.All() {
		state.Open = append(state.Open, *o)
		state.Containers = append(state.Containers, o.Container)
	}
	for _, p := range h.periods {
		if p.Drift == model.DriftUncovered {
			p.Entry = EntriesFor(p.Target, state.Open)
		}
		all = append(all, p)
	}
	for _, d := range Compare(h.judge.file, state) {
		if d.Drift == model.DriftMissing {
			all = append(all, model.DriftPeriod{OpenDrift: d})
		}
	}
	slices.SortFunc(all, func(a, b model.DriftPeriod) int { return CompareDrifts(a.OpenDrift, b.OpenDrift) })
	return all
}
