package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

func TestFirstRun(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "new", "folder", "journal?a=%41#x.db")
	j := start(t, Options{Path: path})
	if p := j.Previous(); p != nil {
		t.Errorf("previous %+v: want none", p)
	}
	if id := j.NextID(); id != 1 {
		t.Errorf("next id %d, want 1", id)
	}
	if got := j.Place().String(); got != path {
		t.Errorf("place %s, want %s", got, path)
	}
	j.write(&model.Event{ID: 1, Time: time.Now(), Type: model.Gap})
	for name, want := range map[string]os.FileMode{path: 0o640, path + ".lock": 0o640, path + "-wal": 0o640, filepath.Dir(path): 0o755 | os.ModeDir} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
	j.stop()
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 2 {
		t.Errorf("%v are left (%v): want the database and its lock", names, err)
	}
}

// unclean ends a journal as kill -9 does: nothing is marked.
func unclean(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestIDsAfterAnUncleanStop(t *testing.T) {
	path := temporary(t)
	for range 3 { // also when it stops so before anything is written
		j, err := Open(Options{Path: path, Logger: quiet(), BootID: "one"})
		if err != nil {
			t.Fatal(err)
		}
		unclean(t, j)
	}
	j := start(t, Options{Path: path, BootID: "one"})
	first := j.NextID()
	if first != 1+3*reserveLength {
		t.Errorf("after three unclean stops the next id is %d, want %d", first, 1+3*reserveLength)
	}
	j.write(&model.Event{ID: first, Time: time.Now(), Type: model.Gap}, &model.Event{ID: first + reserveLength*3/4, Time: time.Now(), Type: model.Gap})
	// Events up to first + reserveLength*3/4 may have been shown since, and as
	// many as the queue holds.
	copied := copyJournal(t, path)
	k, err := Open(Options{Path: copied, Logger: quiet(), BootID: "two"})
	if err != nil {
		t.Fatal(err)
	}
	if least := first + reserveLength*3/4 + reserveLength/2; k.NextID() <= least {
		t.Errorf("after a kill the next id is %d, want more than %d", k.NextID(), least)
	}
	p := k.Previous()
	if p == nil || p.Clean || p.SameBoot || time.Since(p.LastAlive) > time.Minute {
		t.Errorf("previous %+v: want an unclean stop just now, before a boot", p)
	}
	unclean(t, k)
}

// copyJournal copies the files as they are now: what a kill leaves.
func copyJournal(t *testing.T, path string) string {
	t.Helper()
	to := temporary(t)
	for _, suffix := range []string{"", "-wal", ".lock"} {
		content, err := os.ReadFile(path + suffix)
		if err == nil {
			err = os.WriteFile(to+suffix, content, 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestIDsWithoutTheDatabaseOrTheLock(t *testing.T) {
	for _, lost := range []string{"", ".lock"} {
		path := temporary(t)
		j := start(t, Options{Path: path})
		j.write(&model.Event{ID: 41, Time: time.Now(), Type: model.Gap})
		j.stop()
		if err := os.Remove(path + lost); err != nil {
			t.Fatal(err)
		}
		k := start(t, Options{Path: path})
		if k.NextID() != 42 {
			t.Errorf("without %s the next id is %d, want 42", path+lost, k.NextID())
		}
	}
}

func TestAnIDIsNotTakenTwice(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	j := start(t, Options{Path: temporary(t), Logger: log})
	kept := &model.Event{ID: 5, Time: time.Now().UTC(), Type: model.Gap, Reason: "first"}
	j.write(kept)
	for range 2 {
		j.offer(Record{Event: &model.Event{ID: 5, Time: time.Now(), Type: model.Gap, Reason: "second"}})
	}
	last := &model.Event{ID: 6, Time: time.Now().UTC(), Type: model.Gap}
	j.write(last)
	wantEvents(t, "after an id came twice", events(t, j, Query{}), []*model.Event{kept, last})
	if s := j.Stats(); s.Dropped != 2 || s.Written != 2 {
		t.Errorf("%d written and %d dropped, want 2 and 2", s.Written, s.Dropped)
	}
	if len(hook.AllEntries()) != 1 || !strings.Contains(hook.LastEntry().Message, "Event 5 is not recorded") {
		t.Errorf("logged %v: want one line that names event 5", messages(hook))
	}
}

func messages(hook *logtest.Hook) []string {
	var all []string
	for _, e := range hook.AllEntries() {
		all = append(all, fmt.Sprintf("%s: %s (%v)", e.Level, e.Message, e.Data[logrus.ErrorKey]))
	}
	return all
}

func TestTwoInstances(t *testing.T) {
	path := temporary(t)
	j := start(t, Options{Path: path})
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		_, err := Open(Options{Path: name, Logger: quiet()})
		if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Path != path {
			t.Fatalf("a second instance on %s: %v", name, err)
		}
		want := fmt.Sprintf("the journal %s is in use by another instance (pid %d): stop that, or name another file with --state", path, os.Getpid())
		if err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	}
	j.write(&model.Event{ID: j.NextID(), Time: time.Now(), Type: model.Gap}) // the first goes on
	j.stop()
	start(t, Options{Path: path})
}

func TestInMemory(t *testing.T) {
	j := start(t, Options{Now: newClock().Now})
	if got := j.Place().String(); got != "memory" {
		t.Errorf("place %q, want memory", got)
	}
	if want := uint64(newClock().Now().Unix())<<20 + 1; j.NextID() != want {
		t.Errorf("next id %d, want %d: ids of an earlier run must not come again", j.NextID(), want)
	}
	e := journaltest.New(1, j.NextID(), time.Now(), time.Millisecond)
	want := []*model.Event{e.Next(), e.Next(), e.Next()}
	j.write(want...)
	wantEvents(t, "in memory", events(t, j, Query{}), want)
	if s := j.Stats(); !s.InMemory || s.Written != 3 || s.Queued != 0 {
		t.Errorf("stats %+v", s)
	}
	if j.Err() != nil || j.Previous() != nil {
		t.Errorf("error %v, previous %v: want none", j.Err(), j.Previous())
	}
	if size := j.retainSize.Load(); size != memorySize {
		t.Errorf("it may grow to %d bytes, want %d", size, memorySize)
	}
}

// TestNoPlace covers what also root meets; see disk_linux_test.go.
func TestNoPlace(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{
		filepath.Join(file, "journal.db"): "not a directory",
		folder:                            "is a directory",
		filepath.Join(folder, strings.Repeat("n", 300)):          "file name too long",
		filepath.Join("/proc/self", "portwatcher", "journal.db"): "no such file or directory",
		filepath.Join(folder, "nul\x00byte.db"):                  "invalid argument",
	} {
		wantInMemory(t, path, why)
	}
}

func wantInMemory(t *testing.T, path, why string) {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	j := start(t, Options{Path: path, Logger: log})
	place := j.Place()
	if place.Path != "" || place.Why == nil || !strings.Contains(place.String(), why) {
		t.Errorf("place %q: want memory, because %q", place, why)
	}
	all := hook.AllEntries()
	if len(all) != 1 || all[0].Level != logrus.WarnLevel || !strings.Contains(all[0].Message, "--state") {
		t.Errorf("logged %v: want one warning with what to do", messages(hook))
	}
	j.write(&model.Event{ID: j.NextID(), Time: time.Now(), Type: model.Gap})
	if j.Err() != nil {
		t.Errorf("in memory for lack of a place: %v, want no error", j.Err())
	}
}

func TestStopWritesWhatIsQueued(t *testing.T) {
	path := temporary(t)
	j := start(t, Options{Path: path})
	all := journaltest.New(3, 1, time.Now(), time.Millisecond)
	var want []*model.Event
	for range batchLength + 10 {
		want = append(want, all.Next())
		j.offer(Record{Event: want[len(want)-1]})
	}
	j.stop()
	open := len(all.Open)
	if j.Offer(Record{Event: all.Next()}) {
		t.Error("it took a record after its end")
	}
	k := start(t, Options{Path: path})
	wantEvents(t, "after a stop", events(t, k, Query{}), want)
	if p := k.Previous(); !p.Clean || len(p.Open) != open {
		t.Errorf("clean %v with %d open, want true with %d", p.Clean, len(p.Open), open)
	}
	if s := j.Stats(); s.Written != uint64(len(want)) || s.Dropped != 1 {
		t.Errorf("%d written and %d dropped, want %d and 1", s.Written, s.Dropped, len(want))
	}
}

func TestAClosedJournal(t *testing.T) {
	j := start(t, Options{Path: temporary(t)})
	reader := j
	j.stop()
	if _, _, err := reader.Bounds(context.Background()); !errors.Is(err, errClosed) {
		t.Errorf("reading: %v, want %v", err, errClosed)
	}
	if err := j.SetCursor("mail", 1); !errors.Is(err, errClosed) {
		t.Errorf("cursor: %v, want %v", err, errClosed)
	}
	if err := j.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func TestCursors(t *testing.T) {
	path := temporary(t)
	j := start(t, Options{Path: path})
	if _, found, err := j.Cursor("mail"); found || err != nil {
		t.Errorf("a cursor that was never set: %v, %v", found, err)
	}
	names := []string{"mail", "a", "0-9_z.", strings.Repeat("x", 64)}
	for i, name := range names {
		for id := range uint64(3) {
			if err := j.SetCursor(name, id*1000+uint64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	j.stop()
	k := start(t, Options{Path: path})
	for i, name := range names {
		if id, found, err := k.Cursor(name); id != 2000+uint64(i) || !found || err != nil {
			t.Errorf("cursor %s: %d, %v, %v; want %d", name, id, found, err, 2000+i)
		}
	}
	for _, name := range []string{"", "Mail", "a b", "ä", strings.Repeat("x", 65), "a\n"} {
		_, _, err := k.Cursor(name)
		if set := k.SetCursor(name, 1); set == nil || err == nil || set.Error() != err.Error() || !strings.Contains(err.Error(), "1 to 64 of a-z") {
			t.Errorf("cursor %q: %v and %v: want an error with what is allowed", name, set, err)
		}
	}
	if err := k.SetCursor("mail", 1<<63); err == nil {
		t.Error("an id that no event can have was taken")
	}
}
