package expect

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Judge is the state of the comparison while a capture runs: which endpoints drift, since
// when, and which required ports are absent. It does no I/O; time is passed in. It belongs to
// one goroutine.
//
// What it finds is in three places: Event.Drift of the events that [Judge.Apply] receives,
// the drift events of [Judge.Events], and the periods of [Judge.Periods], which a journal
// keeps. The owner takes the latter two after each call.
//
// Invariants:
//
//   - A drift event of an endpoint comes only where no opening, closing or change of it
//     shows the same.
//   - A drift of an endpoint that ends because that closes, and begins again within
//     lingerTime, is the same drift: its Since stays. So a restart, another container or
//     another replica of the target begins nothing.
type Judge struct {
	file       *File
	containers map[string]*watched
	endpoints  map[model.Endpoint]*judged
	periods    map[model.DriftKey]*period
	perTarget  map[string]int // the number of periods
	opens      map[requiredKey]int
	required   map[requiredKey]*requirement
	lastOf     map[string][]target // by the text of an entry's target: where it was last seen
	expiry     time.Time           // when the next entry stops to count
	started    bool                // all containers are known
	next       nextExpiry

	events  []*model.Event
	changed []model.DriftPeriod
	crowded map[string]bool // targets that have had more drifts than are kept, since the last Reconcile
}

const (
	// lingerTime is how long a drift that has ended may begin again and be the same.
	lingerTime = time.Minute
	// MaxPeriods bounds the drifts of one target that are kept: a program that opens one port
	// after another is one finding, not thousands.
	MaxPeriods = 256
)

// watched is a running container.
type watched struct {
	ref       *model.ContainerRef
	cover     *cover // nil: to be computed
	monitored bool
	scanned   bool // what is open in it is known
	uncovered bool // it is counted in the period of its target
}

// judged is an endpoint that drifts, or whose port is required.
type judged struct {
	drift    model.Drift
	key      model.DriftKey // where it drifts
	required requiredKey    // its zero value: it is not required
}

// NewJudge returns a judge without a file. periods are those of an earlier run that last.
func NewJudge(periods []model.DriftPeriod) *Judge {
	j := &Judge{
		containers: map[string]*watched{}, endpoints: map[model.Endpoint]*judged{}, periods: map[model.DriftKey]*period{},
		perTarget: map[string]int{}, crowded: map[string]bool{}, opens: map[requiredKey]int{}, required: map[requiredKey]*requirement{}, lastOf: map[string][]target{},
	}
	for i := range periods {
		j.restorePeriod(&periods[i])
	}
	return j
}

// Active reports whether anything is expected of anything.
func (j *Judge) Active() bool {
	return j.file != nil || slices.ContainsFunc(slices.Collect(maps.Values(j.containers)), func(w *watched) bool { return w.ref.Labels[Label] != "" })
}

// File returns the file of expectations, nil where there is none.
func (j *Judge) File() *File { return j.file }

// SetFile replaces the file of expectations; nil is none. The owner calls [Judge.Reconcile]
// after it.
func (j *Judge) SetFile(f *File, wall time.Time) {
	j.file, j.expiry = f, f.nextExpiry(wall)
	j.forgetCovers()
	maps.DeleteFunc(j.lastOf, func(text string, _ []target) bool {
		return f == nil || !slices.ContainsFunc(f.Entries, func(e *Entry) bool { return e.Target.String() == text })
	})
}

// Expired reports whether an entry has stopped to count since the last call. The owner calls
// [Judge.Reconcile] then.
func (j *Judge) Expired(wall time.Time) bool {
	if j.expiry.IsZero() || wall.Before(j.expiry) {
		return false
	}
	j.expiry = j.file.nextExpiry(wall)
	return true
}

func (j *Judge) forgetCovers() {
	for _, w := range j.containers {
		w.cover = nil
	}
}

// Running applies that a container has started, or that its description or whether it is
// monitored has changed. It reports whether what is expected of open endpoints may have
// changed, so that [Judge.Reconcile] is needed.
func (j *Judge) Running(ref *model.ContainerRef, monitored bool, now clock.Instant, wall time.Time) bool {
	known := j.containers[ref.ID]
	w := &watched{ref: ref, monitored: monitored}
	j.containers[ref.ID] = w
	if known == nil {
		j.require(now, wall, "a container of it runs now")
		j.begun(w, now)
		return j.nameChanged(ref.Name)
	}
	w.scanned, w.uncovered = known.scanned, known.uncovered
	if known.ref.Same(ref) && maps.Equal(known.ref.Labels, ref.Labels) && known.monitored == monitored {
		w.cover = known.cover
		return false
	}
	j.require(now, wall, "")
	j.nameChanged(ref.Name)
	j.nameChanged(known.ref.Name)
	return true
}

// Ended applies that a container has ended, after the closing of what was open in it; like
// [Judge.Running] it reports whether [Judge.Reconcile] is needed.
func (j *Judge) Ended(id string, now clock.Instant, wall time.Time) bool {
	w := j.containers[id]
	if w == nil {
		return false
	}
	delete(j.containers, id)
	if w.uncovered {
		j.end(uncoveredKey(w.ref), model.Endpoint{Container: id}, now, wall)
	}
	j.require(now, wall, "")
	return j.nameChanged(w.ref.Name)
}

// nameChanged applies that a container of a name has come or gone.
func (j *Judge) nameChanged(name string) bool {
	if !j.file.dependsOn(name) {
		return false
	}
	j.forgetCovers()
	return true
}

// Scanned applies that what is open in a container is known.
func (j *Judge) Scanned(id string) {
	if w := j.containers[id]; w != nil {
		w.scanned = true
	}
}

// Start applies that all running containers are known. Before, no required port is missing.
func (j *Judge) Start(now clock.Instant, wall time.Time) {
	j.started = true
	for _, p := range j.periods {
		if len(p.open) == 0 {
			p.linger = lingerUntil(now)
		}
	}
	j.require(now, wall, "the expectations have changed")
	j.next = j.findNext()
}

// named reports whether a container of a name runs; it is a [model.Names].
func (j *Judge) named(name string) bool {
	for _, w := range j.containers {
		if w.ref.Name == name {
			return true
		}
	}
	return false
}

// coverOf returns what is expected of a container that may have ended.
func (j *Judge) coverOf(ref *model.ContainerRef) *cover {
	w := j.containers[ref.ID]
	if w == nil || !w.ref.Same(ref) {
		return j.file.coverOf(ref, j.named)
	}
	if w.cover == nil {
		w.cover = j.file.coverOf(w.ref, j.named)
	}
	return w.cover
}

// emit adds a drift event.
func (j *Judge) emit(d model.Drift, ended bool, l *model.Listener, expected, reason string, at time.Time) {
	j.events = append(j.events, &model.Event{Type: model.Drifted, Time: at.UTC(), Listener: *l, Drift: d, Ended: ended, Expected: expected, Reason: reason})
	j.events[len(j.events)-1].Source = "" // of the opening
}

// Events returns the drift events since the last call, without id and host, in order.
func (j *Judge) Events() []*model.Event {
	events := j.events
	j.events = nil
	return events
}

// Periods returns the periods that have begun, ended or begun again since the last call, in
// order; a later one of the same identity replaces an earlier.
func (j *Judge) Periods() []model.DriftPeriod {
	changed := j.changed
	j.changed = nil
	return changed
}

// Lasting returns the periods that a record has without an end.
func (j *Judge) Lasting() []model.DriftPeriod {
	var all []model.DriftPeriod
	for key, p := range j.periods {
		if p.ended.IsZero() || key.Drift == model.DriftUncovered {
			all = append(all, model.DriftPeriod{OpenDrift: p.describe(key)})
		}
	}
	return all
}

// Crowded returns the targets that have had more drifts than are kept, sorted. The next
// [Judge.Reconcile] keeps those that last, as far as others have ended for good.
func (j *Judge) Crowded() []string { return slices.Sorted(maps.Keys(j.crowded)) }

// Of returns the drift of an open endpoint and since when it is there; empty where there is
// none.
func (j *Judge) Of(endpoint model.Endpoint) (model.Drift, time.Time) {
	known := j.endpoints[endpoint]
	if known == nil || known.drift == "" {
		return "", time.Time{}
	}
	if p := j.periods[known.key]; p != nil {
		return known.drift, p.since
	}
	return known.drift, time.Time{} // there are more than MaxPeriods
}

// Open returns the drifts that last, ordered by target, port, protocol, kind and exposure.
func (j *Judge) Open() []model.OpenDrift {
	all := make([]model.OpenDrift, 0, len(j.periods))
	for key, p := range j.periods {
		if len(p.open) > 0 {
			all = append(all, p.describe(key))
		}
	}
	slices.SortFunc(all, CompareDrifts)
	return all
}

// CompareDrifts orders drifts by target, port, protocol, kind and exposure.
func CompareDrifts(a, b model.OpenDrift) int {
	return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.Drift, b.Drift), cmp.Compare(a.Exposure, b.Exposure), a.Since.Compare(b.Since))
}
