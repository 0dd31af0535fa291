package capture

import (
	"context"
	"errors"
	"sync"
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

// fakeEngine reports what the test wants.
type fakeEngine struct {
	changes chan engine.Change
	mutex   sync.Mutex
	lists   [][]*model.Container // the answers of List; the last is repeated
	failure error
	hangs   bool // Info
}

func (e *fakeEngine) Info(ctx context.Context) (engine.Info, error) {
	if e.hangs {
		<-ctx.Done()
		return engine.Info{}, ctx.Err()
	}
	return engine.Info{Name: "node1"}, nil
}

func (e *fakeEngine) List(context.Context) (list []*model.Container, _ error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
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

// failed reports that the engine does not describe a container.
func (r *rig) failed(c *model.Container) {
	r.t.Helper()
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Failed, Container: c}, Err: errors.New("403 Forbidden")})
}

// A container that the engine does not describe is listed, keeps what is known of it, and
// is no reason to end; what eBPF reports of it waits for its description or its end.
func TestFailedContainer(t *testing.T) {
	s := (&rig{}).socket(80)
	r, _ := again(t, remembered(t, s), nil)
	r.cookie = s.Cookie
	web, other := container("web"), container("other")
	r.failed(web)
	r.failed(other)
	r.synced()
	r.wants()
	if err := r.ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	r.buildView()
	if all := r.views.latest.Load().Containers; len(all) != 2 || all[1].Name != "web" || all[1].Monitored {
		t.Errorf("containers %+v, want both, not monitored", all)
	}
	opened, closed := r.openedAndClosed(1, 81)
	last, lastClosed := r.openedAndClosed(2, 82)
	r.facts(r.of(web, opened), closed, r.of(other, last), lastClosed)
	r.now = r.now.Add(2 * pendingTime)
	r.prunePending()
	r.change(engine.Started, web, 1)
	r.open(1)
	want := []string{"opened web 81/tcp loopback ebpf", "closed web 81/tcp loopback ebpf"}
	r.wants(want...)
	r.scan(1, web, s)
	r.wants(want...)
	r.change(engine.Stopped, other, 0)
	r.wants(append(want, "opened other 82/tcp  ebpf", "closed other 82/tcp  ebpf")...)
}

// Without eBPF nothing is known of the containers whose start and end the engine has
// forgotten.
func TestMissedWithoutEBPF(t *testing.T) {
	r := newRig(t, nil)
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Missed}})
	if events := r.out.events(); len(events) != 1 || events[0].Type != model.Gap {
		t.Errorf("events %+v, want a gap", events)
	}
	r.probed()
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Missed}})
	if events := r.out.events(); len(events) != 1 {
		t.Errorf("events %+v, want no other gap: eBPF reports what happened", events)
	}
}
