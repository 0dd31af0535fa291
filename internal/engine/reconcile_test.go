package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/model"
)

func TestFollowLostEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := running(t, "a", "b")
		synced := time.Now()

		f.run("a", 11) // restarted
		f.kill("b")
		f.run("c", 30)
		state := map[string]*model.Container{"a": {ID: "a", PID: 10}, "b": {ID: "b", PID: 20}}
		for change := w.next(); change.Kind != Synced; change = w.next() {
			replay(t, state, change)
			if !change.Time.Equal(synced.Add(listInterval)) {
				t.Errorf("%s: at %v, want the time of the list", describe(change), change.Time)
			}
		}
		if len(state) != 2 || state["a"].PID != 11 || state["c"].PID != 30 {
			t.Errorf("got %v", state)
		}
	})
}

// With another way to see processes, a list inspects only what has changed.
func TestFollowUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		dead := map[int]bool{}
		f.alive = func(c *model.Container) bool { return !dead[c.PID] }
		f.run("a", 10)
		f.run("b", 20)
		f.run("c", 30)
		w := follow(t, f)
		w.want("started a", "started b", "started c", "synced")
		before := f.inspected()
		w.want("synced")
		if f.inspected() != before {
			t.Errorf("%d inspections of unchanged containers", f.inspected()-before)
		}
		f.run("a", 11) // restarted, renamed and paused, without events
		dead[10] = true
		f.change(func() { f.containers["b"].name = "other"; f.containers["c"].paused = true })
		w.want("stopped a", "started a", "updated c", "updated b", "synced")
		if n := f.inspected() - before; n != 3 {
			t.Errorf("%d inspections, want 3", n)
		}
	})
}

// A container that cannot be inspected is the trouble of that container alone: the others
// are known, it is named one time, and it is inspected again less and less often.
func TestFollowFailedInspect(t *testing.T) {
	for name, fail := range map[string]func(f *fakeEngine, fails bool){
		"refused": func(f *fakeEngine, fails bool) {
			delete(f.inspectErr, "bad")
			if fails {
				f.inspectErr["bad"] = errors.New("403 Forbidden")
			}
		},
		"hangs": func(f *fakeEngine, fails bool) { f.hangs["bad"] = fails },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeEngine()
				f.alive = func(*model.Container) bool { return true }
				f.run("a", 10)
				f.run("bad", 20)
				fail(f, true)
				began := time.Now()
				w := follow(t, f)
				w.want("started a", "failed bad", "synced")
				if since := time.Since(began); since > inspectTimeout+refusalTime {
					t.Errorf("synced after %v", since)
				}
				time.Sleep(time.Second)
				began = time.Now()
				f.run("b", 30)
				f.emit(events.ActionStart, "b")
				w.want("started b")
				if since := time.Since(began); since > 0 {
					t.Errorf("another container started after %v", since)
				}
				before := f.inspected()
				w.while(Synced, 10*time.Minute)
				if n := f.inspected() - before; n < 8 || n > 40 {
					t.Errorf("%d inspections in ten minutes", n)
				}
				lines := w.log.AllEntries()
				if len(lines) != 1 || lines[0].Level != logrus.WarnLevel || lines[0].Data["container"] != "name-bad" {
					t.Errorf("want one line that names the container, got %v", lines)
				}
				f.change(func() { fail(f, false) })
				w.passOver(Synced)
				if got := w.nextOf(Started); got.Container.PID != 20 {
					t.Errorf("got %+v", got.Container)
				}

				// A known one stays as it was.
				f.change(func() { fail(f, true); f.containers["bad"].paused = true })
				f.emit(events.ActionPause, "bad")
				w.while(Synced, time.Minute)
				f.change(func() { fail(f, false) })
				if got := w.nextOf(Updated); !got.Container.Paused {
					t.Errorf("got %+v", got.Container)
				}
				f.change(func() { fail(f, true) })
				f.kill("bad")
				f.emit(events.ActionDie, "bad")
				w.nextOf(Stopped)
			})
		})
	}
}

// A container whose inspections all failed stops when it dies; one that ran shorter than
// an inspection takes has passed.
func TestFollowFailedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := running(t, "a")
		f.change(func() { f.hangs["bad"] = true })
		f.run("bad", 20)
		f.emit(events.ActionStart, "bad")
		w.want("failed bad")
		f.emit(events.ActionDie, "bad")
		w.want("stopped bad")
		f.emit(events.ActionStart, "bad")
		time.Sleep(time.Second)
		f.change(func() { f.hangs["bad"] = false })
		f.kill("bad")
		f.emit(events.ActionDie, "bad")
		w.want("failed bad", "stopped bad")
		w.quiet()
	})
}
