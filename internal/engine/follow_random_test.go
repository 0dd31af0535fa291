package engine

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"

	"portwatcher/internal/model"
)

// Whatever happens, and whichever events are lost, the changes are consistent,
// and right after a list.
func TestFollowRandom(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			f := newFakeEngine()
			w := follow(t, f)
			state := map[string]*model.Container{}
			pid := 100
			for range 100 {
				id := string(rune('a' + random.IntN(5)))
				pid++
				randomStep(f, random, id, pid)
				for range random.IntN(3) {
					select {
					case change := <-w.changes:
						replay(t, state, change)
					case <-time.After(time.Duration(random.IntN(3)) * time.Second):
					}
				}
			}
			f.change(func() { f.absent = nil; clear(f.inspectErr) })
			for settled := time.Now().Add(2 * time.Minute); time.Now().Before(settled); {
				select {
				case change := <-w.changes:
					replay(t, state, change)
				case <-time.After(time.Minute):
				}
			}
			f.change(func() {
				if len(state) != len(f.containers) {
					t.Errorf("seed %d: %d containers, want %d", seed, len(state), len(f.containers))
				}
				for id, c := range f.containers {
					if got := state[id]; got == nil || got.PID != c.pid || got.Paused != c.paused {
						t.Errorf("seed %d: container %s: got %+v, want %+v", seed, id, got, c)
					}
				}
			})
		})
	}
}

// randomStep does something to a container or to the engine; one event in
// three is lost.
func randomStep(f *fakeEngine, random *rand.Rand, id string, pid int) {
	emit := func(action events.Action) {
		if random.IntN(3) > 0 {
			f.emit(action, id)
		}
	}
	running := false
	f.change(func() { _, running = f.containers[id] })
	switch n := random.IntN(12); {
	case n == 0:
		f.change(func() { f.absent = syscall.ECONNREFUSED })
		f.hangUp(errors.New("unexpected EOF"))
	case n <= 2:
		f.change(func() { f.absent = nil })
	case n == 3:
		f.change(func() { f.inspectErr[id] = errors.New("broken") })
	case n == 4:
		f.change(func() { clear(f.inspectErr) })
	case !running:
		f.run(id, pid)
		emit(events.ActionStart)
	case n <= 6:
		f.change(func() { f.containers[id].paused = !f.containers[id].paused })
		emit(events.ActionPause)
	case n <= 8:
		f.kill(id)
		emit(events.ActionDie)
		f.run(id, pid)
		emit(events.ActionStart)
	default:
		f.kill(id)
		emit(events.ActionDie)
	}
}
