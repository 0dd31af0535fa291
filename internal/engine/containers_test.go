package engine

import (
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"

	"portwatcher/internal/model"
)

func TestFollowStartAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := running(t, "a")

		f.emit(events.ActionStart, "a")
		w.quiet() // the list has found it already

		time.Sleep(time.Second)
		f.run("b", 20)
		f.emit(events.ActionStart, "b")
		began := time.Now()
		time.Sleep(time.Second)
		if got := w.want("started b")[0]; !got.Time.Equal(began) || got.Container.Name != "name-b" || got.Container.PID != 20 {
			t.Errorf("got %+v at %v, want the time of the event, %v", got.Container, got.Time, began)
		}

		f.kill("a")
		died := time.Now().Add(-500 * time.Millisecond)
		f.emitAt(events.ActionDie, "a", died)
		f.emit(events.ActionDestroy, "a")
		if got := w.want("stopped a")[0]; !got.Time.Equal(died) || got.Container.PID != 10 {
			t.Errorf("got %+v at %v, want the time of the die event, %v", got.Container, got.Time, died)
		}
		w.quiet()
	})
}

func TestFollowUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := running(t, "a")

		f.change(func() { f.containers["a"].name = "other" })
		f.emit(events.ActionRename, "a")
		if got := w.want("updated a")[0].Container.Name; got != "other" {
			t.Errorf("name: got %q", got)
		}
		f.change(func() { f.containers["a"].paused = true })
		f.emit(events.ActionPause, "a")
		if !w.want("updated a")[0].Container.Paused {
			t.Error("not paused")
		}
		f.change(func() { f.containers["a"].networks = 1 })
		f.emitNetwork(events.ActionConnect, "a")
		if got := w.want("updated a")[0].Container.Ports; len(got) != 1 {
			t.Errorf("ports: got %v", got)
		}
		f.emit(events.ActionUpdate, "a")
		f.emitNetwork(events.ActionConnect, "unknown")
		f.emitMessage(events.Message{Type: events.NetworkEventType, Action: events.ActionDestroy})
		w.quiet()
	})
}

// A container that dies before it can be inspected never ran for the caller; a
// start event has its name.
func TestFollowDiesBeforeInspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.run("a", 10)
		f.onList = func() { f.kill("a"); f.emit(events.ActionDie, "a") }
		w := follow(t, f)
		w.want("synced")
		message := events.Message{Type: events.ContainerEventType, Action: events.ActionStart, TimeNano: time.Now().UnixNano()}
		message.Actor = events.Actor{ID: "b", Attributes: map[string]string{"name": "web", "image": "nginx", "tier": "front"}}
		f.emitMessage(message)
		f.emit(events.ActionDie, "b")
		passed := w.want("passed b")[0].Container
		if want := (&model.Container{ID: "b", Name: "web", Image: "nginx", Labels: map[string]string{"tier": "front"}}); !reflect.DeepEqual(passed, want) {
			t.Errorf("got %+v, want %+v", passed, want)
		}
		w.quiet()
		if lines := w.log.AllEntries(); len(lines) != 0 {
			t.Errorf("logged: %v", lines[0].Message)
		}
	})
}

// What starts while the list is made is in no list, but in an event that waits.
func TestFollowStartsDuringList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		began := time.Now()
		f.onList = func() {
			f.run("a", 10)
			f.emit(events.ActionStart, "a")
			synctest.Wait() // until it is in the queue
		}
		w := follow(t, f)
		w.want("started a", "synced")
		if since := time.Since(began); since > refusalTime {
			t.Errorf("started after %v", since)
		}
	})
}

// A restart during the list leaves events of the old life behind it.
func TestFollowOldEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := running(t, "a")

		time.Sleep(time.Second)
		died := time.Now()
		f.change(func() {
			f.onList = func() {
				f.emitAt(events.ActionDie, "a", died)
				time.Sleep(time.Millisecond)
				f.run("a", 11)
				f.emit(events.ActionStart, "a")
			}
		})
		got := w.want("stopped a", "started a", "synced")
		if !got[0].Time.Equal(died) {
			t.Errorf("stopped at %v, want the time of the die event that waited, %v", got[0].Time, died)
		}
		if got[1].Container.PID != 11 {
			t.Errorf("pid: got %d", got[1].Container.PID)
		}
		w.quiet()

		// An event dated before the container's start is not believed alone.
		f.change(func() { f.onList = nil })
		f.emitAt(events.ActionDie, "a", died)
		w.quiet()
		f.kill("a")
		f.emitAt(events.ActionDie, "a", died)
		w.want("stopped a")
	})
}

// An engine may answer a subscription with the first event only.
func TestFollowLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.lateAnswer = true
		f.run("a", 10)
		began := time.Now()
		w := follow(t, f)
		w.want("started a", "synced")
		if since := time.Since(began); since > readyTimeout+refusalTime {
			t.Errorf("list after %v", since)
		}
		f.kill("a")
		f.emit(events.ActionDie, "a")
		w.want("stopped a")
	})
}

// A consumer that takes nothing must not keep the events from being read.
func TestFollowSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := running(t)
		const containers = 2 * queueLength
		for i := range containers {
			f.run(fmt.Sprint(i), 1000+i)
			f.emit(events.ActionStart, fmt.Sprint(i))
		}
		synctest.Wait()
		f.change(func() {
			for stream := range f.streams {
				if len(stream.queue) != 0 {
					t.Errorf("%d events wait at the engine", len(stream.queue))
				}
			}
		})
		for i := range containers / 2 {
			f.kill(fmt.Sprint(2 * i))
			f.emit(events.ActionDie, fmt.Sprint(2*i))
		}
		synctest.Wait()
		state := map[string]*model.Container{}
		began := time.Now()
		missed := 0
		for change := w.next(); change.Kind != Synced; change = w.next() {
			if change.Kind == Missed {
				missed++
			}
			replay(t, state, change)
		}
		if missed == 0 {
			t.Error("nobody knows that events were dropped")
		}
		w.passOver(Passed) // events from before the list
		if since := time.Since(began); since >= listInterval/2 {
			t.Errorf("listed after %v, want at once", since)
		}
		if len(state) != containers/2 {
			t.Errorf("%d containers, want %d", len(state), containers/2)
		}
		if f.lists > 3 {
			t.Errorf("%d lists for the overflow", f.lists-1)
		}
	})
}
