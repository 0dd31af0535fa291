package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
)

// fakeEngine tells what the test says.
type fakeEngine struct {
	changes chan engine.Change
	failure error
}

func (e *fakeEngine) Info(context.Context) (engine.Info, error) {
	return engine.Info{Name: "node1"}, nil
}

func (e *fakeEngine) List(context.Context) ([]*port.Container, error) { return nil, nil }

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

	mutex  sync.Mutex
	events []*port.Event
	full   bool // the sink takes nothing
}

func start(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	r := &rig{t: t, engine: &fakeEngine{changes: make(chan engine.Change)}, logs: hook, done: make(chan struct{})}
	finder := process.NewFinder("/proc")
	options := Options{
		Engine: r.engine, Logger: logger, Sink: r.take, ProcRoot: "/proc",
		Finder: finder, Attributor: process.NewAttributor(finder, nil),
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

func (r *rig) take(e *port.Event) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if !r.full {
		r.events = append(r.events, e)
	}
	return !r.full
}

func (r *rig) setFull(full bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.full = full
}

// all returns the events so far.
func (r *rig) all() []*port.Event {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Clone(r.events)
}

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
	deadline := time.Now().Add(20 * time.Second)
	for !slices.Equal(r.seen(), want) {
		if time.Now().After(deadline) {
			r.t.Fatalf("events:\n  got  %s\n  want %s", strings.Join(r.seen(), "\n       "), strings.Join(want, "\n       "))
		}
		time.Sleep(2 * time.Millisecond)
	}
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

// box is a process in a network namespace of its own, as a container's first
// process is.
type box struct {
	*exec.Cmd
	t *testing.T
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{exec.Command("sleep", "600"), t}
	b.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := b.Start(); err != nil {
		kerneltest.Skip(t, "starting a process in its own network namespace needs root: "+err.Error())
	}
	t.Cleanup(b.end)
	return b
}

func (b *box) end() {
	b.Process.Kill()
	b.Wait()
}

func (b *box) container(name string) *port.Container {
	return &port.Container{ID: strings.Repeat("0", 60) + fmt.Sprintf("%04x", b.Process.Pid%65536), Name: name, PID: b.Process.Pid}
}

// listen opens a TCP port in the box's namespace. It belongs to this process.
func (b *box) listen(number int) (close func()) {
	b.t.Helper()
	handle, err := netns.Open("/proc", b.Process.Pid)
	if err != nil {
		b.t.Fatal(err)
	}
	defer handle.Close()
	var fd int
	err = kerneltest.OnThread(func() error {
		err := unix.Setns(handle.FD(), unix.CLONE_NEWNET)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(fd, &unix.SockaddrInet4{Port: number}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	close = sync.OnceFunc(func() { unix.Close(fd) })
	b.t.Cleanup(close)
	return close
}

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
	kerneltest.Eventually(t, "one watcher", func() bool {
		r.Controller.mutex.Lock()
		defer r.Controller.mutex.Unlock()
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

func (c *Controller) onlyGroup() *group {
	for _, g := range c.groups {
		return g
	}
	return nil
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
	r.wait("opened web 80/tcp loopback sock_diag", "opened web 80/tcp loopback sock_diag")
	if n := r.logged(`"web" yet`); n != 1 {
		t.Errorf("the name that matches nothing was told %d times, want 1", n)
	}
}

func TestCloseGraceEnds(t *testing.T) {
	r, b := start(t, func(o *Options) { o.CloseGrace = 300 * time.Millisecond }), newBox(t)
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
	r.setFull(true)
	b.listen(80)
	b.listen(81)
	r.tell(engine.Started, b.container("web"))
	kerneltest.Eventually(t, "both ports are known", func() bool { return len(r.Open()) == 2 })
	r.setFull(false)
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
	r.Controller.mutex.Lock()
	w := r.onlyGroup().watcher
	closeSession := w.session.close
	r.Controller.mutex.Unlock()
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
	descriptors, goroutines := countFDs(t), runtime.NumGoroutine()
	for batch := range 4 {
		var boxes []*box
		for range 50 {
			b := newBox(t)
			boxes = append(boxes, b)
			r.tell(engine.Started, b.container(fmt.Sprint("box ", b.Process.Pid)))
		}
		kerneltest.Eventually(t, "all are watched", func() bool {
			r.Controller.mutex.Lock()
			defer r.Controller.mutex.Unlock()
			for _, g := range r.groups {
				select {
				case <-g.watcher.first:
				default:
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
		return countFDs(t) <= descriptors && runtime.NumGoroutine() <= goroutines
	})
	r.Controller.mutex.Lock()
	defer r.Controller.mutex.Unlock()
	if len(r.groups)+len(r.containers)+len(r.reaches) != 0 {
		t.Errorf("%d groups, %d containers, %d reaches are left", len(r.groups), len(r.containers), len(r.reaches))
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The hot loop: nothing opened, nothing closed, nothing allocated.
func TestSteadyScanAllocatesNothing(t *testing.T) {
	r, b := start(t, func(o *Options) { o.ScanInterval = time.Hour }), newBox(t)
	for number := range 20 {
		b.listen(8000 + number)
	}
	r.tell(engine.Started, b.container("web"))
	kerneltest.Eventually(t, "all are open", func() bool { return len(r.Open()) == 20 })
	r.Controller.mutex.Lock()
	w := r.onlyGroup().watcher
	r.Controller.mutex.Unlock()
	<-w.first
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
