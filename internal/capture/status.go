package capture

import (
	"maps"
	"slices"
	"sort"
	"strings"

	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/tracker"
)

// counts are since the start.
type counts struct {
	gaps, overruns, lost, probes uint64
	burstOpened, burstClosed     uint64
	events                       map[model.EventKind]uint64
	detection                    map[model.Source]*model.Distribution
	// The stages of the pipeline, in openings and closings. kernel is of eBPF's earlier
	// readers; stages adds the present one.
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

func (c *Capture) counters() model.Counters {
	all := model.Counters{
		Events: maps.Clone(c.counts.events), Detection: make(map[model.Source]model.Distribution, len(c.counts.detection)),
		BurstOpened: c.counts.burstOpened, BurstClosed: c.counts.burstClosed, Pipeline: c.stages(),
	}
	for source, d := range c.counts.detection {
		all.Detection[source] = model.Distribution{Counts: slices.Clone(d.Counts), Sum: d.Sum}
	}
	return all
}

// stages returns the stages that openings and closings pass from the kernel to the sinks.
func (c *Capture) stages() []model.Stage {
	k := c.kernelStats()
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
	changes.Held = uint64(len(c.forwards))
	changes.Counted = changes.In - changes.Out - changes.Dropped - changes.Held
	all := []model.Stage{kernel, facts, counted, c.counts.notified, changes, bursts}
	for _, o := range c.sinks {
		all = append(all, model.Stage{Name: o.Name, In: o.offered, Out: o.offered - o.changes, Lost: o.changes})
	}
	return all
}

func (c *Capture) status() model.CaptureStatus {
	s := model.CaptureStatus{
		Host: c.hostName, StartedAt: c.startedAt.UTC(),
		Engine: model.EngineStatus{
			Connected: c.link.lost == nil, Since: c.link.since.UTC(), Address: c.options.EngineAddress, Name: c.link.name,
			Version: c.link.version, Reconnects: c.link.reconnects,
		},
		Source:   model.SourceStatus{Wanted: string(c.options.Mode), EBPF: c.reader != nil, Destroy: true},
		Watchers: []model.WatcherStatus{},
		Gaps:     c.counts.gaps, Overruns: c.counts.overruns, Lost: c.counts.lost,
	}
	if c.link.lost != nil {
		s.Engine.Error = c.link.lost.Error()
	}
	for n := range c.watchedNamespaces() {
		w := c.watcherStatus(n)
		s.Source.Destroy = s.Source.Destroy && w.Destroy
		s.Watchers = append(s.Watchers, w)
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

// sourceOf returns the source that reports new endpoints in a namespace; empty before its
// session is open.
func (c *Capture) sourceOf(n *namespace) model.Source {
	if n.source != "" && n.netnsCookie != 0 && c.reader != nil {
		return model.SourceEBPF
	}
	return n.source
}
