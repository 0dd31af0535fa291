package engine

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/model"
)

// cut starts a follower of two containers, and has each of the engine's connections end
// after a while without events. Between two of them happens what pause does.
func cut(t *testing.T, pause func(f *fakeEngine)) (*fakeEngine, *following) {
	t.Helper()
	f := newFakeEngine()
	f.alive = func(*model.Container) bool { return true }
	f.run("a", 10)
	f.run("b", 20)
	f.change(func() { f.containers["b"].networks = 2 })
	w := follow(t, f)
	w.want("started a", "started b", "synced")
	time.Sleep(20 * time.Second)
	f.change(func() { f.onConnect = func() { pause(f) } })
	f.hangUp(io.EOF)
	return f, w
}

// A proxy that ends idle subscriptions is no trouble: nothing is reported, and nothing that
// happened meanwhile is lost or reported twice.
func TestCutSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lives := true
		f, w := cut(t, func(f *fakeEngine) {
			if !lives {
				return
			}
			lives = false
			f.run("c", 30)
			f.emit(events.ActionStart, "c")
			f.kill("c")
			f.emit(events.ActionDie, "c")
		})
		w.wantAll("passed c", "synced")
		inspections := f.inspected()
		f.run("d", 40)
		f.emit(events.ActionStart, "d")
		w.want("started d")
		for range 10 {
			time.Sleep(time.Second)
			f.hangUp(io.EOF)
			w.want("synced")
		}
		w.quiet()
		if n := f.inspected() - inspections; n != 1 {
			t.Errorf("%d inspections, want 1 of the new container", n)
		}
		if lines := w.log.AllEntries(); len(lines) != 0 {
			t.Errorf("logged: %v", lines[0].Message)
		}
		f.change(func() { f.absent = syscall.ECONNREFUSED })
		time.Sleep(time.Second)
		f.hangUp(io.EOF)
		w.want("lost")
	})
}

// What the engine has forgotten by the next subscription is reported as missed.
func TestForgottenEvents(t *testing.T) {
	for name, pause := range map[string]func(f *fakeEngine){
		"too many": func(f *fakeEngine) {
			time.Sleep(time.Millisecond)
			for range engineMemory {
				f.emitMessage(events.Message{Type: events.ContainerEventType, Action: events.ActionExecDie, TimeNano: time.Now().UnixNano()})
			}
		},
		"a restart of the engine": func(f *fakeEngine) { f.change(func() { f.memory = nil }) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, w := cut(t, func(f *fakeEngine) {})
				w.want("synced")
				f.emit(events.ActionUpdate, "a")
				time.Sleep(20 * time.Second)
				f.change(func() { f.onConnect = func() { pause(f) } })
				f.hangUp(io.EOF)
				w.wantAll("missed", "synced")
				f.change(func() { f.onConnect = nil })
				f.emit(events.ActionUpdate, "a")
				time.Sleep(20 * time.Second)
				f.hangUp(io.EOF)
				w.want("synced")
				w.quiet()
			})
		})
	}
}

// Where the engine refuses its events, containers are found by lists all the same, but
// portwatcher is not ready, and the log reports why.
func TestEventsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.eventsErr = errors.New("403 Forbidden")
		f.run("a", 10)
		w := follow(t, f)
		w.wantAll("lost", "started a")
		f.run("b", 20)
		for change := w.next(); change.Kind != Started; change = w.next() {
			if change.Kind != Lost {
				t.Fatalf("got %s", describe(change))
			}
		}
		w.while(Lost, 5*time.Minute)
		lines := w.lines(logrus.WarnLevel)
		if len(lines) < 4 || len(lines) > 6 || !strings.Contains(lines[0], "events: 403") {
			t.Errorf("want one line a minute, got %q", lines)
		}
		f.change(func() { f.eventsErr = nil })
		w.want("synced")
	})
}

// A list that hangs or fails delays no event; it is repeated, and reported when it fails
// again.
func TestListTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine()
		f.alive = func(*model.Container) bool { return true }
		f.run("a", 10)
		w := follow(t, f)
		w.want("started a", "synced")
		f.change(func() { f.hangs[""] = true })
		time.Sleep(listInterval + time.Second)
		began := time.Now()
		f.run("b", 20)
		f.emit(events.ActionStart, "b")
		w.want("started b")
		f.kill("a")
		f.emit(events.ActionDie, "a")
		w.want("stopped a")
		if since := time.Since(began); since > 0 {
			t.Errorf("changes came after %v", since)
		}
		got := w.want("lost")[0]
		if !strings.Contains(got.Err.Error(), "list containers") {
			t.Errorf("lost: %v", got.Err)
		}
		f.change(func() { f.hangs[""] = false })
		w.want("synced")
		w.quiet()
	})
}
