package controller

import (
	"slices"
	"strings"
	"time"

	"portwatcher/internal/port"
)

// Observer is told how long things took. It must not block, and is called from
// any goroutine.
type Observer interface {
	// ObserveDetection: from the kernel's stamp to the event.
	ObserveDetection(source port.Source, took time.Duration)
	// ObserveScan: one look at a namespace.
	ObserveScan(source port.Source, took time.Duration)
}

// counts are since the start; under the controller's lock.
type counts struct {
	gaps, overruns, lost uint64
}

// link is the connection to the engine; under the controller's lock.
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

// Containers returns every running container, monitored or not, ordered by
// name.
func (c *Controller) Containers() []port.ContainerState {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	all := make([]port.ContainerState, 0, len(c.containers))
	for _, m := range c.containers {
		state := port.ContainerState{Container: m.Container, Monitored: m.monitored}
		if g := m.group; g != nil {
			state.Namespace = g.id
			if g.watcher != nil {
				state.Source, state.LastScan = c.sourceOf(g.watcher), g.watcher.scannedAt()
				state.Stale = c.tracker.Stale(g.id)
			}
		}
		all = append(all, state)
	}
	slices.SortFunc(all, func(a, b port.ContainerState) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Status tells how the capture goes.
func (c *Controller) Status() port.CaptureStatus {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	s := port.CaptureStatus{
		Host: c.hostName, StartedAt: c.startedAt.UTC(),
		Engine: port.EngineStatus{
			Connected: c.link.lost == nil, Since: c.link.since.UTC(), Address: c.EngineAddress, Name: c.link.name,
			Version: c.link.version, Reconnects: c.link.reconnects,
		},
		Source:   port.SourceStatus{Wanted: string(c.Source), EBPF: c.probing, Destroy: true},
		Watchers: []port.WatcherStatus{},
		Gaps:     c.counts.gaps, Overruns: c.counts.overruns, Lost: c.counts.lost,
	}
	if c.link.lost != nil {
		s.Engine.Error = c.link.lost.Error()
	}
	for _, g := range c.groups {
		if g.watcher != nil {
			w := c.watcherStatus(g)
			s.Source.Destroy = s.Source.Destroy && w.Destroy
			s.Watchers = append(s.Watchers, w)
		}
	}
	s.Source.Destroy = s.Source.Destroy && len(s.Watchers) > 0
	slices.SortFunc(s.Watchers, func(a, b port.WatcherStatus) int { return strings.Compare(a.Name, b.Name) })
	for _, o := range c.outlets {
		queue := port.QueueStatus{Name: o.name, Dropped: o.droppedEver}
		if o.fill != nil {
			queue.Length, queue.Capacity = o.fill()
		}
		s.Queues = append(s.Queues, queue)
	}
	return s
}

func (c *Controller) watcherStatus(g *group) port.WatcherStatus {
	w := g.watcher
	return port.WatcherStatus{
		Namespace: g.id, Name: g.id.String(), Host: g.host, Source: c.sourceOf(w), Destroy: w.closing != nil,
		LastScan: w.scannedAt(), Stale: c.tracker.Stale(g.id), Containers: strings.Split(g.names(), ", "),
	}
}

// sourceOf is what tells of new endpoints in a namespace; empty before its
// session is open. The caller holds the lock.
func (c *Controller) sourceOf(w *watcher) port.Source {
	if w.source == port.SourceSockDiag && w.group.netnsCookie != 0 && c.probing {
		return port.SourceEBPF
	}
	return w.source
}

// scannedAt is when the namespace was last looked at with success, zero before
// the first time.
func (w *watcher) scannedAt() time.Time {
	select {
	case <-w.first:
		return w.freshAt().UTC()
	default:
		return time.Time{}
	}
}
