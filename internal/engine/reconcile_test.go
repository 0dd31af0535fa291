package engine

import (
	"errors"
	"strings"
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
		before := f.inspections
		w.want("synced")
		if f.inspections != before {
			t.Errorf("%d inspections of unchanged containers", f.inspections-before)
		}
		f.run("a", 11) // restarted, renamed and paused, without events
		dead[10] = true
		f.change(func() { f.containers["b"].name = "other"; f.containers["c"].paused = true })
		w.want("stopped a", "started a", "updated c", "updated b", "synced")
		if n := f.inspections - before; n != 3 {
			t.Errorf("%d inspections, want 3", n)
		}
	})
}

// Only what can be inspected is touched, and the rest is asked for again.
func TestFollowFailedInspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := running(t, "a", "b")

		f.change(func() { f.inspectErr["a"] = errors.New("layer is unexpectedly nil") })
		f.kill("b")
		f.emit(events.ActionPause, "a")
		began := time.Now()
		w.want("stopped b") // by the list, which comes at once
		if since := time.Since(began); since > minPause {
			t.Errorf("listed after %v, want up to %v", since, minPause)
		}
		time.Sleep(5 * time.Minute)
		w.quiet()
		f.change(func() { delete(f.inspectErr, "a"); f.containers["a"].paused = true })
		w.want("updated a", "synced")
		if lines := w.lines(logrus.WarnLevel); len(lines) < 4 || len(lines) > 6 || !strings.Contains(lines[0], "list is repeated") {
			t.Errorf("want one line a minute, got %q", lines)
		}
		if f.lists > 130 {
			t.Errorf("%d lists in five minutes", f.lists)
		}
	})
}
