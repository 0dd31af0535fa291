package expect

import (
	"maps"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Reconcile judges all open endpoints again: the file, a label or what is known of an endpoint
// has changed. What differs from the state is a drift event with the reason, in the order of the
// endpoints. It sorts open, which is all that is open, and keeps its elements.
func (j *Judge) Reconcile(open []model.Open, reason string, now clock.Instant, wall time.Time) {
	slices.SortFunc(open, func(a, b model.Open) int { return a.Endpoint().Compare(b.Endpoint()) })
	clear(j.crowded)
	present := make(map[model.Endpoint]bool, len(open))
	for i := range open {
		o := &open[i]
		if o.Container != nil && o.Container.ID != "" {
			endpoint := o.Endpoint()
			present[endpoint] = true
			j.reconcile(endpoint, &o.Listener, reason, now, wall)
		}
	}
	for _, endpoint := range slices.Collect(maps.Keys(j.endpoints)) {
		if before := j.endpoints[endpoint]; !present[endpoint] { // it was forgotten without an event
			if before.drift != "" {
				j.end(before.key, endpoint, now, wall)
			}
			j.lose(before.required, now)
			delete(j.endpoints, endpoint)
		}
	}
	j.coverAgain(reason, now, wall)
	j.require(now, wall, reason)
}

func (j *Judge) reconcile(endpoint model.Endpoint, l *model.Listener, reason string, now clock.Instant, wall time.Time) {
	v := j.coverOf(l.Container).verdict(l, wall)
	if v.Drift == model.DriftUncovered {
		j.uncover(l.Container, wall)
		v = Verdict{}
	}
	before := model.Drift("")
	if known := j.endpoints[endpoint]; known != nil {
		before = known.drift
		if p := j.periods[known.key]; before != "" && before != v.Drift {
			expected := ""
			if p != nil {
				expected = p.expected
			}
			j.emit(before, true, l, expected, reason, wall)
		}
	}
	waiting := false
	if p := j.periods[keyOf(v.Drift, l)]; p != nil {
		waiting = p.restored
	}
	j.set(endpoint, l, v, now, wall)
	if v.Drift != "" && v.Drift != before && !waiting {
		j.emit(v.Drift, false, l, v.Expected, reason, wall)
	}
	if before != "" && before != v.Drift { // it ended for another reason than a closing
		j.finishEnded(before, l, wall)
	}
}

// finishEnded forgets a period of which no endpoint is open.
func (j *Judge) finishEnded(d model.Drift, l *model.Listener, wall time.Time) {
	for key, p := range j.periods {
		if key.Drift == d && key.Target == l.Container.Target() && key.Protocol == l.Protocol && key.Port == l.Port && len(p.open) == 0 {
			j.finish(key, p, wall)
		}
	}
}

// coverAgain ends the uncovered drifts of targets that are covered now.
func (j *Judge) coverAgain(reason string, now clock.Instant, wall time.Time) {
	for id, w := range j.containers {
		if !w.uncovered || w.monitored && j.coverOf(w.ref).uncovered(wall) {
			continue
		}
		w.uncovered = false
		key := uncoveredKey(w.ref)
		j.end(key, model.Endpoint{Container: id}, now, wall)
		if p := j.periods[key]; p != nil && len(p.open) == 0 {
			j.emit(key.Drift, true, p.last, "", reason, wall)
			p.ended = time.Time{}
			j.finish(key, p, wall)
		}
	}
}

// splitService splits project/service; other texts give one part.
func splitService(text string) []string {
	if strings.HasPrefix(text, "label:") || strings.ContainsAny(text, "*?[!, ") {
		return []string{text}
	}
	return strings.Split(text, "/")
}
