package capture

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/tracker"
)

const (
	// viewAge is the greatest age of a view while nothing changes: times and the fill of
	// queues change in any case.
	viewAge = time.Second
	// viewPause times the duration of making a view is the pause until the next: readers
	// cost a twentieth of the capture's time at most.
	viewPause = 20
)

// views has the latest view. Another is made when a reader asks for it and the state has
// changed since.
type views struct {
	latest   atomic.Pointer[made]
	requests chan chan<- *made
	waiting  []chan<- *made // of the capture's goroutine
	took     time.Duration  // the duration of making the latest
}

// made is a view with the readiness of that moment.
type made struct {
	*model.View
	at      clock.Instant
	problem error // of readiness
}

// listed is one container's part of a view, reused until it changes.
type listed struct {
	made     bool
	revision uint64 // of the tracker
	open     []model.Open
	rate     rate
}

func newViews() views { return views{requests: make(chan chan<- *made)} }

// changed marks the latest view as out of date.
func (c *Capture) changed() { c.version.Add(1) }

// current returns a view that is at least as new as the state at the time of the call.
func (c *Capture) current() *made {
	if v := c.views.latest.Load(); v.Version == c.version.Load() && clock.Since(v.at) < viewAge {
		return v
	}
	answer := make(chan *made, 1)
	select {
	case c.views.requests <- answer:
	case <-c.over:
		return c.views.latest.Load()
	}
	select {
	case v := <-answer:
		return v
	case <-c.over:
		return c.views.latest.Load()
	}
}

// View returns the present state. It is immutable and shared. While the capture runs it
// returns within milliseconds; before, it waits for the start.
func (c *Capture) View() *model.View { return c.current().View }

// Open returns the open endpoints, ordered by container name, port, protocol and
// address. The slice is the caller's; what it points to is shared.
func (c *Capture) Open() []model.Open { return slices.Clone(c.View().Open) }

// Containers returns every running container, monitored or not, ordered by name. The
// slice is shared.
func (c *Capture) Containers() []model.ContainerState { return c.View().Containers }

// Status returns the condition of the capture.
func (c *Capture) Status() model.CaptureStatus { return c.View().Status }

// Ready returns nil while the engine answers and each watched namespace was scanned not
// long ago; otherwise an error that names what does not work.
func (c *Capture) Ready() error { return c.current().problem }

// serveViews answers the readers that wait for a view, as often as the pause allows.
func (c *Capture) serveViews() {
	if len(c.views.waiting) == 0 {
		return
	}
	v := c.views.latest.Load()
	if v.Version != c.version.Load() || clock.Since(v.at) >= viewAge {
		if wait := viewPause*c.views.took - clock.Since(v.at); wait > 0 {
			if !c.timers.viewSet {
				c.timers.viewSet = true
				c.timers.view.Reset(wait)
			}
			return
		}
		c.buildView()
		v = c.views.latest.Load()
	}
	for i, answer := range c.views.waiting {
		answer <- v
		c.views.waiting[i] = nil
	}
	c.views.waiting = c.views.waiting[:0]
}

func (c *Capture) buildView() {
	began := clock.Now()
	c.now = began
	v := &model.View{Version: c.version.Load(), Time: c.wall.Time(began), Status: c.status(), Counters: c.counters()}
	members := make([]*member, 0, len(c.containers))
	count := 0
	for _, m := range c.containers {
		members = append(members, m)
		c.list(m)
		count += len(m.listed.open)
	}
	slices.SortFunc(members, func(a, b *member) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	v.Open = make([]model.Open, 0, count)
	v.Containers = make([]model.ContainerState, 0, len(members))
	for _, m := range members {
		v.Open = append(v.Open, m.listed.open...)
		if !m.IsHost() {
			v.Containers = append(v.Containers, c.containerState(m))
		}
	}
	for i := range v.Open {
		o := &v.Open[i]
		o.Time = v.Time
		o.Drift, o.DriftSince = c.drift.judge.Of(o.Endpoint())
	}
	v.Drifts, v.Expecting = c.openDrifts(v.Open), c.drift.judge.Active()
	c.views.latest.Store(&made{View: v, at: began, problem: c.ready()})
	c.views.took = clock.Since(began)
}

// list updates a container's part of the view.
func (c *Capture) list(m *member) {
	revision := c.tracker.RevisionOf(m.ID)
	l := &m.listed
	if l.made && l.revision == revision {
		return
	}
	l.made, l.revision, l.open = true, revision, nil
	changes := c.tracker.OpenOf(m.ID)
	for i := range changes {
		l.open = append(l.open, c.open(&changes[i]))
	}
	slices.SortFunc(l.open, func(a, b model.Open) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), a.Address.Compare(b.Address), cmp.Compare(a.Namespace, b.Namespace))
	})
}

// open returns an open endpoint, given as an opened change.
func (c *Capture) open(change *tracker.Change) model.Open {
	r, ok := c.reaches[change.Endpoint]
	if !ok {
		r = c.reachOf(change)
	}
	if change.Container.IsHost() && r.Forward == nil {
		r.Forward = c.forwardOf(change) // the processes may have become known since
	}
	return model.Open{Listener: c.listener(change, r), OpenedAt: c.wall.Time(change.OpenedAt)}
}

func (c *Capture) containerState(m *member) model.ContainerState {
	state := model.ContainerState{Container: m.Container, Monitored: m.monitored}
	n := m.namespace
	if n == nil {
		return state
	}
	state.Namespace = n.id
	if n.watcher != nil {
		state.Source, state.LastScan = c.sourceOf(n), c.wall.Time(n.watcher.LastScan())
		state.Stale = c.tracker.Stale(n.id)
	}
	return state
}

// ready returns the error of [Capture.Ready].
func (c *Capture) ready() error {
	if !c.synced {
		return fmt.Errorf("the containers are not known yet: %w", c.link.lost)
	}
	if c.link.lost != nil {
		return fmt.Errorf("the Docker Engine cannot be reached: %w", c.link.lost)
	}
	settings := c.env.Settings.Load()
	between := settings.Interval()
	if settings.BurstScans > 1 {
		between = max(between, settings.BurstDelay)
	}
	limit := max(3*between, 10*time.Second)
	for n := range c.watchedNamespaces() {
		if age := n.watcher.Age(c.now); age > limit {
			return fmt.Errorf("network namespace %s of %s was not scanned for %s", n.id, n.names(), age.Round(time.Second))
		}
	}
	return nil
}
