package controller

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
)

func TestOpenCloseAndEnd(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	b.listen(80)
	web := b.container("web")
	r.tell(engine.Started, web)
	r.wait("opened web 80/tcp loopback sock_diag")
	closeSecond := b.listen(81)
	r.wait("opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag")
	closeSecond()
	want := []string{"opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag", "closed web 81/tcp loopback sock_diag"}
	r.wait(want...)
	r.tell(engine.Stopped, web)
	r.wait(append(want, "closed web 80/tcp loopback engine")...)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for i, e := range r.all() {
		if e.ID != uint64(i+1) || e.Host != "node1" || e.Time.Location() != time.UTC {
			t.Errorf("event %d has id %d, host %q, time %v", i, e.ID, e.Host, e.Time)
		}
	}
	if p := r.all()[0].Processes; len(p) != 1 || p[0].PID != os.Getpid() {
		t.Errorf("processes %+v, want this one", p)
	}
}

func TestSharedNamespace(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	first, second := b.container("first"), b.container("second")
	second.ID = strings.Repeat("1", 64)
	second.Labels = map[string]string{"watch": "no"}
	second.Addresses = container([]string{"172.17.0.2"}, "0.0.0.0:8080").Addresses
	second.Ports = container(nil, "0.0.0.0:8080").Ports
	b.listen(80)
	r.tell(engine.Started, second) // not monitored, but it publishes for its mate
	r.tell(engine.Started, first)
	r.eventually("one watcher", func() bool {
		return len(r.groups) == 1 && len(r.containers) == 2 && r.onlyGroup().watcher != nil
	})
	// Two containers and no process of theirs: it belongs to neither.
	r.tell(engine.Stopped, second)
	r.wait("opened first 80/tcp loopback sock_diag")
	r.tell(engine.Started, second)
	first = b.container("renamed")
	r.tell(engine.Updated, first)
	r.tell(engine.Stopped, first)
	r.wait("opened first 80/tcp loopback sock_diag", "closed renamed 80/tcp published engine")
}

func TestSelectionChangesByRename(t *testing.T) {
	r, b := start(t, func(o *Options) {
		o.Monitored = func(c *port.Container) bool { return c.Name == "web" }
		o.Unmatched = func(all []*port.Container) []string {
			if slices.ContainsFunc(all, func(c *port.Container) bool { return c.Name == "web" }) {
				return nil
			}
			return []string{"web"}
		}
	}), newBox(t)
	b.listen(80)
	r.tell(engine.Started, b.container("other"))
	r.tell(engine.Synced, nil)
	r.tell(engine.Synced, nil)
	r.tell(engine.Updated, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
	r.tell(engine.Updated, b.container("other"))
	r.tell(engine.Updated, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag", left, "opened web 80/tcp loopback sock_diag")
	if gap := r.all()[1]; gap.Container == nil || gap.Container.Name != "web" {
		t.Errorf("the gap is of %+v, want it of the container by the name that is known", gap.Container)
	}
	if gaps := r.Status().Gaps; gaps != 0 {
		t.Errorf("%d gaps in the status: it was asked for", gaps)
	}
	if n := r.logged(`"web" yet`); n != 1 {
		t.Errorf("the name that matches nothing was told %d times, want 1", n)
	}
}

// A container that is selected again beside one that is watched is looked at now,
// not at the next scan.
func TestSelectedAgainBesideAnother(t *testing.T) {
	r, b := start(t, func(o *Options) {
		o.ScanInterval = time.Hour
		o.Monitored = func(c *port.Container) bool { return c.Name != "hidden" }
	}), newBox(t)
	web, mate := b.container("web"), b.container("mate")
	mate.ID = strings.Repeat("1", 64)
	r.tell(engine.Started, web)
	r.tell(engine.Started, mate)
	r.tell(engine.Updated, b.container("hidden"))
	r.eventually("one is watched", func() bool { return len(r.containers) == 2 && !r.containers[web.ID].monitored })
	w := r.watched()
	before := w.freshAt()
	r.tell(engine.Updated, web)
	kerneltest.Eventually(t, "the namespace is looked at again", func() bool { return w.freshAt().After(before) })
}

func TestCloseGraceEnds(t *testing.T) {
	r, b := start(t, func(o *Options) { o.CloseGrace = 300 * time.Millisecond }), newBox(t)
	r.tell(engine.Synced, nil)
	closeIt := b.listen(80)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
	closeIt()
	r.wait("opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback sock_diag")
	if got := r.all()[1]; *got.OpenSeconds < 0 || got.Time.Before(got.OpenedAt) {
		t.Errorf("closed at %v, opened at %v", got.Time, got.OpenedAt)
	}
}

// A sink that takes nothing costs a gap, and never the capture.
func TestFullSink(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	r.sink.setFull(true)
	b.listen(80)
	b.listen(81)
	r.tell(engine.Started, b.container("web"))
	kerneltest.Eventually(t, "both ports are known", func() bool { return len(r.Open()) == 2 })
	r.sink.setFull(false)
	b.listen(82)
	r.wait("gap: 2 events are missing from standard output, which was not read in time", "opened web 82/tcp loopback sock_diag")
	if r.all()[0].ID != 3 || r.all()[1].ID != 4 {
		t.Errorf("ids %d and %d, want 3 and 4", r.all()[0].ID, r.all()[1].ID)
	}
}

// A watcher that fails keeps the state, and is started again.
func TestWatcherFailure(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	b.listen(80)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
	var closeSession func()
	r.locked(func() { closeSession = r.onlyGroup().watcher.session.close })
	closeSession() // behind its back
	kerneltest.Eventually(t, "the failure is told", func() bool { return r.logged("Ports cannot be read") == 1 })
	b.listen(81)
	r.wait("opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag")
}

func TestReady(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	if err := r.Ready(); err == nil {
		t.Error("ready before the first list")
	}
	r.tell(engine.Started, b.container("web"))
	r.tell(engine.Synced, nil)
	kerneltest.Eventually(t, "ready", func() bool { return r.Ready() == nil })
	r.engine.changes <- engine.Change{Kind: engine.Lost, Err: errors.New("connection refused")}
	kerneltest.Eventually(t, "not ready", func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "connection refused")
	})
}

func TestNoProcessCanBeSeen(t *testing.T) {
	r := start(t, func(o *Options) { o.ProcRoot = t.TempDir() })
	r.tell(engine.Started, &port.Container{ID: "x", Name: "x", PID: 1 << 30})
	r.tell(engine.Synced, nil)
	<-r.done
	if err := r.stop(); !errors.Is(err, ErrNoHostPIDNamespace) {
		t.Errorf("error %v, want %v", err, ErrNoHostPIDNamespace)
	}
}

// A container that is listed while it dies proves nothing.
func TestDyingContainer(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	r.tell(engine.Started, &port.Container{ID: "x", Name: "x", PID: 1 << 30})
	r.tell(engine.Synced, nil)
	b.listen(80)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
}

func TestEngineLoopThatEnds(t *testing.T) {
	r := start(t, nil)
	r.engine.failure = errors.New("unexpected")
	close(r.engine.changes)
	<-r.done
	if err := r.stop(); err == nil || !strings.Contains(err.Error(), "unexpected") {
		t.Errorf("error %v, want the engine's", err)
	}
}

// 200 containers come and go: no namespace, descriptor or goroutine is left.
func TestNothingIsLeft(t *testing.T) {
	r := start(t, nil)
	r.tell(engine.Synced, nil)
	descriptors, goroutines := kerneltest.Descriptors(t), runtime.NumGoroutine()
	for batch := range 4 {
		var boxes []*box
		for range 50 {
			b := newBox(t)
			boxes = append(boxes, b)
			r.tell(engine.Started, b.container(fmt.Sprint("box ", b.Process.Pid)))
		}
		r.eventually("all are watched", func() bool {
			for _, g := range r.groups {
				if !g.watcher.isFirstDone() {
					return false
				}
			}
			return len(r.groups) == 50
		})
		for i, b := range boxes {
			if (batch+i)%2 == 0 {
				b.end()
			}
			r.tell(engine.Stopped, b.container(""))
			b.end()
		}
	}
	kerneltest.Eventually(t, "descriptors and goroutines are as before", func() bool {
		return kerneltest.Descriptors(t) <= descriptors && runtime.NumGoroutine() <= goroutines
	})
	r.Controller.mutex.Lock()
	defer r.Controller.mutex.Unlock()
	if len(r.groups)+len(r.containers)+len(r.reaches) != 0 {
		t.Errorf("%d groups, %d containers, %d reaches are left", len(r.groups), len(r.containers), len(r.reaches))
	}
}

// The hot loop: nothing opened, nothing closed, nothing allocated.
func TestSteadyScanAllocatesNothing(t *testing.T) {
	r, b := start(t, func(o *Options) { o.ScanInterval = time.Hour }), newBox(t)
	for number := range 20 {
		b.listen(8000 + number)
	}
	r.tell(engine.Started, b.container("web"))
	kerneltest.Eventually(t, "all are open", func() bool { return len(r.Open()) == 20 })
	w := r.watched()
	// The second look at the new sockets does allocate, once.
	kerneltest.Eventually(t, "a scan that allocates nothing", func() bool {
		var err error
		allocations := testing.AllocsPerRun(20, func() { err = errors.Join(err, w.scan()) })
		if err != nil {
			t.Fatal(err)
		}
		return allocations < 1
	})
}
