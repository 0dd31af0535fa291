package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
)

// fakeEngine tells what the test says.
type fakeEngine struct {
	changes chan engine.Change
	lists   [][]*port.Container // the answers of List; the last is repeated
	failure error
}

func (e *fakeEngine) Info(context.Context) (engine.Info, error) {
	return engine.Info{Name: "node1"}, nil
}

func (e *fakeEngine) List(context.Context) (list []*port.Container, _ error) {
	if len(e.lists) > 0 {
		list = e.lists[0]
		e.lists = e.lists[min(1, len(e.lists)-1):]
	}
	return list, nil
}

func (e *fakeEngine) Follow(ctx context.Context, changes chan<- engine.Change) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case change, ok := <-e.changes:
			if !ok {
				return e.failure
			}
			select {
			case changes <- change:
			case <-ctx.Done():
			}
		}
	}
}

// rig runs a controller and collects its events.
type rig struct {
	*Controller
	t      *testing.T
	engine *fakeEngine
	logs   *logtest.Hook
	stop   func() error
	done   chan struct{} // closed when Run has returned
	sink   collector[*port.Event]
}

func start(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	r := &rig{t: t, engine: &fakeEngine{changes: make(chan engine.Change)}, logs: hook, done: make(chan struct{})}
	finder := process.NewFinder("/proc")
	options := Options{
		Engine: r.engine, Logger: logger, Sink: r.sink.offer, ProcRoot: "/proc",
		Finder: finder, Attributor: process.NewAttributor(finder, nil),
		Prove: func(string, *port.Container) error { return nil }, // a box is in the cgroup of the test
		Tuning: Tuning{
			ScanInterval: 10 * time.Millisecond,
			Monitored:    func(c *port.Container) bool { return c.Labels["watch"] != "no" },
		},
	}
	if change != nil {
		change(&options)
	}
	r.Controller = New(options)
	ctx, cancel := context.WithCancel(t.Context())
	var result error
	go func() {
		result = r.Run(ctx)
		close(r.done)
	}()
	r.stop = func() error {
		cancel()
		<-r.done
		return result
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// all returns the events so far.
func (r *rig) all() []*port.Event { return r.sink.all() }

// seen describes the events so far, without numbers and times.
func (r *rig) seen() []string {
	var lines []string
	for _, e := range r.all() {
		if e.Type == port.Gap {
			lines = append(lines, "gap: "+e.Reason)
			continue
		}
		source := e.Source
		if e.Type == port.Closed && source == port.SourceDestroy {
			source = port.SourceSockDiag // a scan or a notification, whichever comes first
		}
		lines = append(lines, fmt.Sprintf("%s %s %d/%s %s %s", e.Type, e.Container.Name, e.Port, e.Protocol, e.Exposure, source))
	}
	return lines
}

func (r *rig) wait(want ...string) {
	r.t.Helper()
	kerneltest.Await(r.t, "the events", func() string {
		got := r.seen()
		if slices.Equal(got, want) {
			return ""
		}
		return fmt.Sprintf("\n  got  %s\n  want %s", strings.Join(got, "\n       "), strings.Join(want, "\n       "))
	})
}

func (r *rig) tell(kind engine.Kind, c *port.Container) {
	r.engine.changes <- engine.Change{Kind: kind, Container: c, Time: time.Now()}
}

func (r *rig) logged(part string) int {
	count := 0
	for _, entry := range r.logs.AllEntries() {
		if strings.Contains(entry.Message, part) {
			count++
		}
	}
	return count
}

// locked calls f with the controller's lock held.
func (r *rig) locked(f func()) {
	r.Controller.mutex.Lock()
	defer r.Controller.mutex.Unlock()
	f()
}

// eventually waits until f, which is called with the controller's lock held,
// returns true.
func (r *rig) eventually(what string, f func() bool) {
	r.t.Helper()
	kerneltest.Eventually(r.t, what, func() (is bool) {
		r.locked(func() { is = f() })
		return is
	})
}

// watched waits until the only namespace has been scanned, and returns its
// watcher.
func (r *rig) watched() (w *watcher) {
	r.t.Helper()
	r.eventually("the namespace is watched", func() bool {
		if len(r.groups) == 1 {
			w = r.onlyGroup().watcher
		}
		return w != nil && w.isFirstDone()
	})
	return w
}

// dumped returns the one socket that a dump of the only namespace shows.
func (r *rig) dumped() port.Socket {
	r.t.Helper()
	var sockets []port.Socket
	var err error
	r.locked(func() { sockets, err = r.onlyGroup().watcher.session.dump(nil) })
	if err != nil || len(sockets) != 1 {
		r.t.Fatalf("a dump shows %v, error %v; want one socket", sockets, err)
	}
	return sockets[0]
}

func (c *Controller) onlyGroup() *group {
	for _, g := range c.groups {
		return g
	}
	return nil
}

func (w *watcher) isFirstDone() bool {
	select {
	case <-w.first:
		return true
	default:
		return false
	}
}
