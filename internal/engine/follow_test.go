package engine

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/sirupsen/logrus"
)

func TestFollowReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := running(t, "a", "b")
		time.Sleep(30 * time.Second)

		// Die events of before the end of the connection count; the end itself does not.
		f.kill("b")
		died := time.Now()
		f.change(func() { f.absent = syscall.ECONNREFUSED })
		f.emit(events.ActionDie, "b")
		f.hangUp(errors.New("unexpected EOF"))
		got := w.want("stopped b", "lost")
		if !got[0].Time.Equal(died) {
			t.Errorf("stopped at %v, want %v", got[0].Time, died)
		}
		if !errors.Is(got[1].Err, syscall.ECONNREFUSED) {
			t.Errorf("lost: %v", got[1].Err)
		}
		w.while(Lost, 10*time.Minute)
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
		f, w := running(t, "a", "b", "c")
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
		w.want("lost")
		lines := w.lines(logrus.WarnLevel)
		if len(lines) != 1 {
			t.Fatalf("want one line, got %q", lines)
		}
		for _, part := range []string{"unix:///fake.sock", "no such file", "-v /fake.sock:/fake.sock"} {
			if !strings.Contains(lines[0], part) {
				t.Errorf("line %q lacks %q", lines[0], part)
			}
		}
		w.while(Lost, 5*time.Minute+30*time.Second)
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

func TestBackOff(t *testing.T) {
	b := newBackOff(maxPause)
	pause := minPause
	for range 20 {
		if got := b.NextBackOff(); got < pause/4 || got > pause {
			t.Errorf("pause %v, want about a third of %v, up to all of it", got, pause)
		}
		pause = min(2*pause, maxPause)
	}
	b.Reset()
	if got := b.NextBackOff(); got > minPause {
		t.Errorf("pause after reset: %v", got)
	}
}
