package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/port"
)

func TestFollowStartAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.run("a", 10)
		w := follow(t, f)
		w.want("started a", "synced")

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
		f := newFakeEngine()
		f.run("a", 10)
		w := follow(t, f)
		w.want("started a", "synced")

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
// start event has told its name.
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
		if want := (&port.Container{ID: "b", Name: "web", Image: "nginx", Labels: map[string]string{"tier": "front"}}); !reflect.DeepEqual(passed, want) {
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
		w.want("synced", "started a")
		if since := time.Since(began); since != 0 {
			t.Errorf("started after %v", since)
		}
	})
}

// A restart during the list leaves events of the old life behind it.
func TestFollowOldEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.run("a", 10)
		w := follow(t, f)
		w.want("started a", "synced")

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

func TestFollowLostEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.run("a", 10)
		f.run("b", 20)
		w := follow(t, f)
		w.want("started a", "started b", "synced")
		synced := time.Now()

		f.run("a", 11) // restarted
		f.kill("b")
		f.run("c", 30)
		state := map[string]*port.Container{"a": {ID: "a", PID: 10}, "b": {ID: "b", PID: 20}}
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
		f.alive = func(c *port.Container) bool { return !dead[c.PID] }
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
		f := newFakeEngine()
		f.run("a", 10)
		f.run("b", 20)
		w := follow(t, f)
		w.want("started a", "started b", "synced")

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
		if lines := w.lines(logrus.WarnLevel); len(lines) < 4 || len(lines) > 6 || !strings.Contains(lines[0], "listing again") {
			t.Errorf("want one line a minute, got %q", lines)
		}
		if f.lists > 130 {
			t.Errorf("%d lists in five minutes", f.lists)
		}
	})
}

func TestFollowReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.run("a", 10)
		f.run("b", 20)
		w := follow(t, f)
		w.want("started a", "started b", "synced")
		time.Sleep(30 * time.Second)

		// What the engine said before it went is believed, the silence is not.
		f.kill("b")
		died := time.Now()
		f.change(func() { f.absent = syscall.ECONNREFUSED })
		f.emit(events.ActionDie, "b")
		f.hangUp(errors.New("unexpected EOF"))
		got := w.want("stopped b", "lost")
		if !got[0].Time.Equal(died) {
			t.Errorf("stopped at %v, want %v", got[0].Time, died)
		}
		if got[1].Err == nil || !strings.Contains(got[1].Err.Error(), "unexpected EOF") {
			t.Errorf("lost: %v", got[1].Err)
		}
		time.Sleep(10 * time.Minute)
		w.quiet()
		if lines := w.lines(logrus.WarnLevel); len(lines) < 9 || len(lines) > 11 {
			t.Errorf("want one line a minute, got %d", len(lines))
		}

		// One lived on, one was started, and the engine has forgotten none.
		f.change(func() { f.absent = nil })
		f.run("c", 30)
		w.want("started c", "synced")
		if lines := w.lines(logrus.InfoLevel); len(lines) != 1 {
			t.Errorf("want one line when the engine is back, got %q", lines)
		}
		f.change(func() { f.listErr = errors.New("database is locked") })
		w.want("lost")
		f.change(func() { f.listErr = nil; delete(f.containers, "a") })
		w.want("stopped a", "synced")
	})
}

// The engine may fail while the consumer is busy; what was queued counts.
func TestFollowLastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.run("a", 10)
		f.run("b", 20)
		f.run("c", 30)
		w := follow(t, f)
		w.want("started a", "started b", "started c", "synced")
		time.Sleep(time.Second)
		f.change(func() { f.absent = syscall.ENOENT; f.listErr = errors.New("shutting down"); clear(f.containers) })
		f.emit(events.ActionDie, "a")
		synctest.Wait() // blocked on the consumer
		f.emit(events.ActionDie, "b")
		f.emit(events.ActionDie, "c")
		f.hangUp(errors.New("unexpected EOF"))
		w.want("stopped a", "stopped b", "stopped c", "lost")
	})
}

func TestFollowAbsentAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.absent = syscall.ENOENT
		w := follow(t, f)
		w.quiet()
		lines := w.lines(logrus.WarnLevel)
		if len(lines) != 1 {
			t.Fatalf("want one line, got %q", lines)
		}
		for _, part := range []string{"unix:///fake.sock", "no such file", "-v /fake.sock:/fake.sock"} {
			if !strings.Contains(lines[0], part) {
				t.Errorf("line %q lacks %q", lines[0], part)
			}
		}
		time.Sleep(5*time.Minute + 30*time.Second)
		w.quiet()
		if lines := w.lines(logrus.WarnLevel); len(lines) < 5 || len(lines) > 6 {
			t.Errorf("want one line a minute, got %d in 5.5 minutes", len(lines))
		}
		f.change(func() { f.absent = nil })
		f.run("a", 10)
		came := time.Now()
		w.want("started a", "synced")
		if since := time.Since(came); since > maxPause {
			t.Errorf("noticed after %v, want up to %v", since, maxPause)
		}
		if lines := w.lines(logrus.InfoLevel); len(lines) != 1 || !strings.Contains(lines[0], "Connected") {
			t.Errorf("want one line when it comes, got %q", lines)
		}
	})
}

// A consumer that takes nothing must not keep the events from being read.
func TestFollowSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		w := follow(t, f)
		w.want("synced")
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
		state := map[string]*port.Container{}
		began := time.Now()
		for change := w.next(); change.Kind != Synced; change = w.next() {
			replay(t, state, change)
		}
		w.passOver(Passed) // events from before the list
		if since := time.Since(began); since >= listInterval/2 {
			t.Errorf("listed after %v, want at once", since)
		}
		if len(state) != containers/2 {
			t.Errorf("%d containers, want %d", len(state), containers/2)
		}
		if f.lists != 2 {
			t.Errorf("%d lists, want one for the overflow", f.lists-1)
		}
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
		if since := time.Since(began); since > readyTimeout {
			t.Errorf("list after %v", since)
		}
		f.kill("a")
		f.emit(events.ActionDie, "a")
		w.want("stopped a")
	})
}

// A connection that breaks at once time and again is not repeated at full speed.
func TestFollowFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.onList = func() { f.hangUp(errors.New("unexpected EOF")) }
		w := follow(t, f)
		end := time.Now().Add(10 * time.Minute)
		for time.Now().Before(end) {
			w.next()
		}
		if f.lists > 300 {
			t.Errorf("%d lists in ten minutes", f.lists)
		}
	})
}

// Whatever happens, and whichever events are lost, the changes are consistent,
// and right after a list.
func TestFollowRandom(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			f := newFakeEngine()
			w := follow(t, f)
			state := map[string]*port.Container{}
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

func TestBackoff(t *testing.T) {
	var b backoff
	bound := minPause
	for range 20 {
		if got := b.next(); got > bound || got <= bound/2-1 {
			t.Errorf("pause %v, want %v to %v", got, bound/2, bound)
		}
		bound = min(2*bound, maxPause)
	}
	b.reset()
	if got := b.next(); got > minPause {
		t.Errorf("pause after reset: %v", got)
	}
}

func TestKindString(t *testing.T) {
	for kind, want := range map[Kind]string{Started: "started", Stopped: "stopped", Updated: "updated", Synced: "synced", Lost: "lost", 99: "kind-99"} {
		if got := kind.String(); got != want {
			t.Errorf("%d: got %q, want %q", kind, got, want)
		}
	}
}
