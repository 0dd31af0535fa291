package capture

import (
	"slices"
	"sort"
	"strings"
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// counts are since the start.
type counts struct {
	gaps, overruns, lost, probes uint64
	burstOpened, burstClosed     uint64
	events                       map[model.EventKind]uint64
	detection                    map[model.Source]*model.Distribution
	// The stages of the pipeline, in openings and closings. kernel is of eBPF's earlier
	// readings; the present one is added when it is shown.
	kernel                           probe.Stats
	ring, counted, notified, changes model.Stage
}

func newCounts() counts {
	return counts{
		events: map[model.EventKind]uint64{}, detection: map[model.Source]*model.Distribution{},
		ring: model.Stage{Name: "facts"}, counted: model.Stage{Name: "counts"}, notified: model.Stage{Name: "notifications"},
		changes: model.Stage{Name: "changes"},
	}
}

// takeStats adds what an eBPF reading counted that has ended.
func (c *Capture) takeStats(s probe.Stats) {
	k := &c.counts.kernel
	k.Opened += s.Opened
	k.Closed += s.Closed
	k.CountedOpened += s.CountedOpened
	k.CountedClosed += s.CountedClosed
	k.Missed += s.Missed
	k.Lost += s.Lost
	c.reader = nil
}

// detected measures the time from a change in the kernel to its event.
func (c *Capture) detected(change *tracker.Change) {
	if change.Source != model.SourceEBPF {
		return
	}
	d := c.counts.detection[change.Source]
	if d == nil {
		d = &model.Distribution{Counts: make([]uint64, len(model.DetectionBounds)+1)}
		c.counts.detection[change.Source] = d
	}
	took := max(c.now.Sub(change.Time), 0).Seconds()
	d.Counts[sort.SearchFloat64s(model.DetectionBounds, took)]++
	d.Sum += took
}

// counters returns a copy of what is counted.
func (c *Capture) counters() model.Counters {
	all := model.Counters{
		Events: make(map[model.EventKind]uint64, len(c.counts.events)), Detection: make(map[model.Source]model.Distribution, len(c.counts.detection)),
	}
	for kind, n := range c.counts.events {
		all.Events[kind] = n
	}
	for source, d := range c.counts.detection {
		all.Detection[source] = model.Distribution{Counts: slices.Clone(d.Counts), Sum: d.Sum}
	}
	all.BurstOpened, all.BurstClosed = c.counts.burstOpened, c.counts.burstClosed
	all.Pipeline = c.stages()
	return all
}

// stages returns how openings and closings pass from the kernel to the sinks.
func (c *Capture) stages() []model.Stage {
	k := c.counts.kernel
	if c.reader != nil {
		now := c.reader.Stats()
		k.Opened, k.Closed, k.CountedOpened = k.Opened+now.Opened, k.Closed+now.Closed, k.CountedOpened+now.CountedOpened
		k.CountedClosed, k.Missed, k.Lost = k.CountedClosed+now.CountedClosed, k.Missed+now.Missed, k.Lost+now.Lost
	}
	kernel := model.Stage{Name: "kernel", Out: k.Opened + k.Closed, Counted: k.CountedOpened + k.CountedClosed + k.Missed, Lost: k.Lost}
	kernel.In = kernel.Out + kernel.Counted + kernel.Lost
	facts, counted, changes := c.counts.ring, c.counts.counted, c.counts.changes
	for _, w := range c.pending.lists {
		waiting, inCounts := w.number()
		facts.Held += waiting
		counted.Held += inCounts
	}
	facts.Dropped += c.pending.dropped
	counted.Dropped += c.pending.droppedCounts
	bursts := model.Stage{Name: "bursts", Counted: c.counts.burstOpened + c.counts.burstClosed}
	for _, b := range c.bursts {
		bursts.Held += b.opened + b.closed
	}
	bursts.In = bursts.Counted + bursts.Held
	changes.Counted = changes.In - changes.Out - changes.Dropped
	all := []model.Stage{kernel, facts, counted, c.counts.notified, changes, bursts}
	for _, o := range c.sinks {
		all = append(all, model.Stage{Name: o.Name, In: o.offered, Out: o.offered - o.changes, Lost: o.changes})
	}
	return all
}

// link is the connection to the engine.
type link struct {
	lost       error // why the engine cannot be reached, nil while it can
	since      time.Time
	connected  bool // it once was
	reconnects uint64
	name       string
	version    string
}

func (l *link) lose(why error) {
	if l.lost == nil {
		l.since = time.Now()
	}
	l.lost = why
}

func (l *link) connect() {
	if l.lost == nil {
		return
	}
	if l.connected {
		l.reconnects++
	}
	l.lost, l.connected, l.since = nil, true, time.Now()
}

func (c *Capture) status() model.CaptureStatus {
	s := model.CaptureStatus{
		Host: c.hostName, StartedAt: c.startedAt.UTC(),
		Engine: model.EngineStatus{
			Connected: c.engineIs.lost == nil, Since: c.engineIs.since.UTC(), Address: c.options.EngineAddress, Name: c.engineIs.name,
			Version: c.engineIs.version, Reconnects: c.engineIs.reconnects,
		},
		Source:   model.SourceStatus{Wanted: string(c.options.Mode), EBPF: c.reader != nil, Destroy: true},
		Watchers: []model.WatcherStatus{},
		Gaps:     c.counts.gaps, Overruns: c.counts.overruns, Lost: c.counts.lost,
	}
	if c.engineIs.lost != nil {
		s.Engine.Error = c.engineIs.lost.Error()
	}
	for _, n := range c.namespaces {
		if n.watcher != nil {
			w := c.watcherStatus(n)
			s.Source.Destroy = s.Source.Destroy && w.Destroy
			s.Watchers = append(s.Watchers, w)
		}
	}
	s.Source.Destroy = s.Source.Destroy && len(s.Watchers) > 0
	slices.SortFunc(s.Watchers, func(a, b model.WatcherStatus) int { return strings.Compare(a.Name, b.Name) })
	for _, o := range c.sinks {
		queue := model.QueueStatus{Name: o.Name, Dropped: o.events}
		queue.Length, queue.Capacity = o.Status()
		s.Queues = append(s.Queues, queue)
	}
	return s
}

func (c *Capture) watcherStatus(n *namespace) model.WatcherStatus {
	return model.WatcherStatus{
		Namespace: n.id, Name: n.id.String(), Host: n.host, Source: c.sourceOf(n), Destroy: n.destroy, Reason: n.withoutDestroy,
		LastScan: c.wall.Time(n.watcher.LastScan()), Stale: c.tracker.Stale(n.id), Containers: strings.Split(n.names(), ", "),
	}
}

// sourceOf is what reports new endpoints in a namespace; empty before its session is
// open.
func (c *Capture) sourceOf(n *namespace) model.Source {
	if n.source != "" && n.netnsCookie != 0 && c.reader != nil {
		return model.SourceEBPF
	}
	return n.source
}

// answerHolders lists the processes that hold open endpoints.
func (c *Capture) answerHolders(q *source.Holders) {
	c.tracker.Holders(func(p *model.Process) {
		q.Recorded = append(q.Recorded, attribute.Recorded{PID: p.PID, Name: p.Name})
	})
}

// answerHoldings lists the sockets of the endpoints that some processes hold.
func (c *Capture) answerHoldings(q *source.Holdings) {
	var held func(pid int) bool
	if q.PIDs != nil {
		held = func(pid int) bool { _, ok := q.PIDs[pid]; return ok }
	}
	q.Holdings = c.tracker.Holdings(q.Holdings[:0], held)
}
