package controller

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
)

// stopwatch counts what it is told.
type stopwatch struct {
	mutex      sync.Mutex
	detections int
	scans      map[port.Source]int
}

func (s *stopwatch) ObserveDetection(port.Source, time.Duration) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.detections++
}

func (s *stopwatch) ObserveScan(source port.Source, _ time.Duration) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.scans == nil {
		s.scans = map[port.Source]int{}
	}
	s.scans[source]++
}

func TestStatus(t *testing.T) {
	watch := &stopwatch{}
	r, b := start(t, func(o *Options) {
		o.Observer, o.Source, o.EngineAddress = watch, Netlink, "unix:///x"
		o.SinkQueue = func() (int, int) { return 3, 8 }
	}), newBox(t)
	if s := r.Status(); s.Engine.Connected || s.Engine.Error == "" || s.Source.Destroy || len(s.Watchers) != 0 {
		t.Errorf("before the engine answers: %+v", s)
	}
	other := b.container("zzz")
	other.ID, other.Labels = strings.Repeat("1", 64), map[string]string{"watch": "no"}
	r.tell(engine.Started, other)
	r.tell(engine.Started, b.container("web"))
	r.tell(engine.Synced, nil)
	kerneltest.Eventually(t, "the namespace is watched", func() bool {
		s := r.Status()
		return len(s.Watchers) == 1 && s.Watchers[0].Destroy && !s.Watchers[0].LastScan.IsZero()
	})
	s := r.Status()
	w := s.Watchers[0]
	if w.Source != port.SourceSockDiag || w.Stale || w.Host || len(w.Containers) != 1 || w.Containers[0] != "web" || w.Name != w.Namespace.String() {
		t.Errorf("watcher %+v", w)
	}
	if !s.Engine.Connected || s.Engine.Reconnects != 0 || s.Engine.Address != "unix:///x" || s.Host != "node1" || !s.Source.Destroy || s.Source.EBPF {
		t.Errorf("status %+v", s)
	}
	if len(s.Queues) != 1 || s.Queues[0] != (port.QueueStatus{Name: "output", Length: 3, Capacity: 8}) {
		t.Errorf("queues %+v", s.Queues)
	}
	containers := r.Containers()
	if len(containers) != 2 || containers[0].Name != "web" || !containers[0].Monitored || containers[1].Monitored ||
		containers[0].Namespace != w.Namespace || containers[0].LastScan.IsZero() {
		t.Errorf("containers %+v", containers)
	}
	watch.mutex.Lock()
	if watch.scans[port.SourceSockDiag] == 0 || watch.detections != 0 {
		t.Errorf("observed %+v", watch.scans)
	}
	watch.mutex.Unlock()

	r.engine.changes <- engine.Change{Kind: engine.Lost, Err: errors.New("gone"), Time: time.Now()}
	kerneltest.Eventually(t, "the loss is told", func() bool { return r.Status().Engine.Error == "gone" })
	r.tell(engine.Synced, nil)
	kerneltest.Eventually(t, "the reconnect is told", func() bool { return r.Status().Engine.Reconnects == 1 })
	r.Gap("something was missed")
	if s := r.Status(); s.Gaps != 1 || s.Lost != 0 {
		t.Errorf("%d gaps, %d lost", s.Gaps, s.Lost)
	}
}
