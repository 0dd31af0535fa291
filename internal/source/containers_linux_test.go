package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

func believe(string, *model.Container) error { return nil }

// TestHostNamespaceBySight: what shares the host's namespace is found by reading it,
// since the engine's description need not show that: network_mode: container:x, and x has
// ended.
func TestHostNamespaceBySight(t *testing.T) {
	host, other := kernel.NewBox(t), kernel.NewBox(t)
	// A /proc in which the first process is in the host's namespace.
	root := t.TempDir()
	for name, pid := range map[string]int{
		"1": host.Process.Pid, fmt.Sprint(host.Process.Pid): host.Process.Pid, fmt.Sprint(other.Process.Pid): other.Process.Pid,
	} {
		if err := os.Symlink(fmt.Sprintf("/proc/%d", pid), filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	r, _ := newRig(t, nil)
	r.ProcRoot = root
	inspect := func(c *Containers, container *model.Container) *ContainerChange {
		change := c.Inspect(engine.Change{Kind: engine.Started, Container: container})
		if change.Err != nil || change.Namespace == (model.Namespace{}) {
			t.Fatalf("%+v", change)
		}
		return change
	}
	mate := &model.Container{ID: "mate", PID: host.Process.Pid, NetworkMode: "container:x"}
	boxed := &model.Container{ID: "boxed", PID: other.Process.Pid}
	c := &Containers{Env: r.Env, Prove: believe}
	if !inspect(c, mate).Host || inspect(c, boxed).Host {
		t.Error("the host's namespace is not the one of the first process")
	}
	// Where the first process cannot be read, a container that reports so shows it.
	if err := os.Remove(filepath.Join(root, "1")); err != nil {
		t.Fatal(err)
	}
	c = &Containers{Env: r.Env, Prove: believe}
	if inspect(c, mate).Host {
		t.Error("the host's namespace is known, from nothing")
	}
	own := &model.Container{ID: "own", PID: host.Process.Pid, NetworkMode: "host"}
	if !inspect(c, own).Host || !inspect(c, mate).Host || inspect(c, boxed).Host {
		t.Error("the host's namespace is not the one of the container whose mode is host")
	}
}

// A container whose process has ended is reported so.
func TestInspectEnded(t *testing.T) {
	r, _ := newRig(t, nil)
	c := &Containers{Env: r.Env, Prove: believe}
	change := c.Inspect(engine.Change{Kind: engine.Started, Container: &model.Container{ID: "x", PID: 1 << 29}})
	if !change.Ended || change.Err == nil {
		t.Errorf("%+v, want that its process has ended", change)
	}
}

// A container that the engine does not describe has no namespace, and no process is read.
func TestInspectFailed(t *testing.T) {
	r, _ := newRig(t, nil)
	c := &Containers{Env: r.Env, Prove: func(string, *model.Container) error { t.Error("a process was read"); return nil }}
	refused := errors.New("403 Forbidden")
	change := c.Inspect(engine.Change{Kind: engine.Failed, Container: &model.Container{ID: "x"}, Err: refused})
	if change.Ended || change.Err != refused {
		t.Errorf("%+v, want the engine's error", change)
	}
}

// A container's changes are reported although the engine refuses its information, and the
// log has that one time.
func TestInfoRefused(t *testing.T) {
	r, _ := newRig(t, nil)
	logger, lines := logtest.NewNullLogger()
	r.Logger = logger
	ctx, cancel := context.WithCancel(t.Context())
	c := &Containers{Env: r.Env, Engine: &refusingEngine{}, informed: make(chan struct{}), askInfo: make(chan struct{})}
	ended := make(chan struct{})
	go func() { defer close(ended); c.awaitInfo(ctx) }()
	for range 3 {
		c.askInfo <- struct{}{}
	}
	cancel()
	<-ended
	if all := lines.AllEntries(); len(all) != 1 || all[0].Level != logrus.WarnLevel {
		t.Errorf("want one warning, got %v", all)
	}
}

// refusingEngine refuses its information.
type refusingEngine struct{ scriptedEngine }

func (*refusingEngine) Info(context.Context) (engine.Info, error) {
	return engine.Info{}, errors.New("403 Forbidden")
}

// scriptedEngine reports changes and ends with an error.
type scriptedEngine struct{ changes []engine.Change }

func (e *scriptedEngine) Info(context.Context) (engine.Info, error)        { return engine.Info{}, nil }
func (e *scriptedEngine) List(context.Context) ([]*model.Container, error) { return nil, nil }
func (e *scriptedEngine) Follow(ctx context.Context, to chan<- engine.Change) error {
	for _, change := range e.changes {
		to <- change
	}
	<-ctx.Done()
	return nil
}

// What the engine reports of a container after its end waits for that, in order.
func TestChangesAfterAnEnd(t *testing.T) {
	r, _ := newRig(t, nil)
	web := &model.Container{ID: "web", PID: 1 << 29}
	kinds := []engine.Kind{engine.Started, engine.Stopped, engine.Started, engine.Stopped, engine.Passed, engine.Started}
	e := &scriptedEngine{}
	for _, kind := range kinds {
		e.changes = append(e.changes, engine.Change{Kind: kind, Container: web})
	}
	e.changes = append(e.changes, engine.Change{Kind: engine.Synced})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&Containers{Env: r.Env, Engine: e, Prove: believe}).Run(ctx)
	}()
	var got []engine.Kind
	kernel.Await(t, "all changes", func() string {
		got = nil
		r.mutex.Lock()
		defer r.mutex.Unlock()
		for _, o := range r.received {
			if change, is := o.(*ContainerChange); is && change.Container != nil {
				got = append(got, change.Kind)
			}
		}
		if len(got) < len(kinds) {
			return fmt.Sprint(got)
		}
		return ""
	})
	for i := range kinds {
		if got[i] != kinds[i] {
			t.Errorf("change %d is %v, want %v", i, got[i], kinds[i])
		}
	}
	cancel()
	<-ended
}
