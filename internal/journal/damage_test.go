package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// filledLast is the last id of a journal that filled makes.
const filledLast = 5000

// template is the database and the lock file of such a journal.
var template [2][]byte

// filled makes a journal with some thousands of events, which was stopped in
// order.
func filled(t *testing.T) (path string, last uint64) {
	t.Helper()
	path = temporary(t)
	if template[0] == nil {
		writeTemplate(t, path)
	}
	for i, name := range []string{path, path + ".lock"} {
		var err error
		if template[i] == nil {
			template[i], err = os.ReadFile(name)
		} else {
			err = os.WriteFile(name, template[i], 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return path, filledLast
}

// writeTemplate writes a journal in batches of the same size each time, so that
// the same things are in the same places of the file.
func writeTemplate(t *testing.T, path string) {
	t.Helper()
	j, err := Open(Options{Path: path, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	all := journaltest.New(5, 1, time.Now().Add(-time.Hour), time.Millisecond)
	for range filledLast {
		if !j.Offer(Record{Event: all.Next()}) {
			t.Fatal("the queue is full")
		}
	}
	for j.writer.next() {
		if err := j.writer.write(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.writer.stop(), j.Close()); err != nil {
		t.Fatal(err)
	}
}

func damaged(t *testing.T, path string, damage func(content []byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, damage(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

var stamped = regexp.MustCompile(`\.corrupt-\d{8}T\d{6}Z(-\d+)?$`)

// wantAnew checks that a journal that cannot be read was moved aside, and that
// the new one works.
func wantAnew(t *testing.T, path string, last uint64) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	log, hook := logtest.NewNullLogger()
	j := start(t, Options{Path: path, Logger: log})
	p := j.Previous()
	if p == nil || !stamped.MatchString(p.Corrupt) || len(p.Open) != 0 {
		t.Fatalf("previous %+v: want a file that was set aside", p)
	}
	if aside, err := os.ReadFile(p.Corrupt); err != nil || string(aside) != string(content) {
		t.Errorf("the file set aside has %d bytes (%v), want the %d that were there", len(aside), err, len(content))
	}
	if all := hook.AllEntries(); len(all) != 1 || all[0].Level != logrus.ErrorLevel || all[0].Data["aside"] != p.Corrupt {
		t.Errorf("logged %v: want one error that names %s", messages(hook), p.Corrupt)
	}
	if j.NextID() <= last {
		t.Errorf("next id %d, but %d was used", j.NextID(), last)
	}
	e := &model.Event{ID: j.NextID(), Time: time.Now().UTC(), Type: model.Gap}
	j.write(e)
	wantEvents(t, "the new journal", events(t, j, Query{}), []*model.Event{e})
	j.stop()
}

func TestCorrupt(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"magic":              func(b []byte) []byte { copy(b, "SQLite format 4"); return b },
		"header":             func(b []byte) []byte { return overwrite(b, 0, 100) },
		"first page":         func(b []byte) []byte { return overwrite(b, 0, 4096) },
		"schema":             func(b []byte) []byte { return overwrite(b, 100, 3000) },
		"application id":     func(b []byte) []byte { return overwrite(b, 68, 4) },
		"pages of the state": func(b []byte) []byte { return overwrite(b, 4096, len(b)-4096) },
		"no database":        func([]byte) []byte { return []byte(strings.Repeat("This is a text.\n", 1000)) },
		"a word":             func([]byte) []byte { return []byte("hello") },
		"two bytes":          func([]byte) []byte { return []byte{0, 0} },
		"zeros":              func(b []byte) []byte { clear(b); return b },
	} {
		t.Run(name, func(t *testing.T) {
			path, last := filled(t)
			damaged(t, path, damage)
			wantAnew(t, path, last)
		})
	}
}

func overwrite(b []byte, at, length int) []byte {
	random := newRandom(uint64(at))
	for i := at; i < at+length; i++ {
		b[i] = byte(random.Uint32())
	}
	return b
}

func TestTruncated(t *testing.T) {
	path, last := filled(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int{2, 15, 16, 99, 100, 511, 512, 4095, 4096, 4097, 8192, len(whole) / 2, len(whole) - 4096} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			damaged(t, path, func([]byte) []byte { return whole[:length] })
			wantAnew(t, path, last)
		})
	}
	// That is how every database begins. SQLite takes 1 byte as none.
	for length := range 2 {
		damaged(t, path, func([]byte) []byte { return whole[:length] })
		j := start(t, Options{Path: path})
		if p := j.Previous(); p != nil || j.NextID() <= last {
			t.Errorf("a file of %d bytes: previous %+v and next id %d; want none, and more than %d", length, p, j.NextID(), last)
		}
		j.stop()
	}
}

// TestCorruptWhileReading overwrites pages of events, which nothing reads at the
// start: the damage is found later, by a reader or by the writer.
func TestCorruptWhileReading(t *testing.T) {
	path, last := filled(t)
	damaged(t, path, func(b []byte) []byte { return overwrite(b, len(b)/4, len(b)/2) })
	var asides []string
	log, hook := logtest.NewNullLogger()
	reported := make(chan string, 10)
	j := start(t, Options{Path: path, Logger: log, SetAside: func(aside string) { reported <- aside }})
	if p := j.Previous(); p.Corrupt != "" {
		// What the start reads was hit as well: that is the other test.
		t.Fatalf("the damage showed at the start: %+v", p)
	}
	if j.NextID() != last+1 {
		t.Fatalf("next id %d, want %d", j.NextID(), last+1)
	}
	if err := j.SetCursor("mail", 4711); err != nil {
		t.Fatal(err)
	}
	open := j.Previous().Open
	var failure error
	for _, err := range j.Events(t.Context(), Query{}) {
		failure = err
	}
	// The writer finds it as well, as it indexes the events, and may be first.
	if failure != nil && !isCorrupt(failure) && !errors.Is(failure, errClosed) {
		t.Fatalf("reading all: %v, want that it is corrupt, or was moved aside", failure)
	}
	asides = append(asides, <-reported)
	e := &model.Event{ID: last + 1, Time: time.Now().UTC(), Type: model.Gap}
	j.write(e)
	wantEvents(t, "the new journal", events(t, j, Query{}), []*model.Event{e})
	if j.Err() != nil || len(reported) > 0 || !stamped.MatchString(asides[0]) {
		t.Errorf("error %v, set aside %v and %d more: want no error and one file", j.Err(), asides, len(reported))
	}
	if len(hook.AllEntries()) == 0 || hook.AllEntries()[0].Level != logrus.ErrorLevel {
		t.Errorf("logged %v: want an error", messages(hook))
	}
	j.stop()
	k := start(t, Options{Path: path})
	if id, found, err := k.Cursor("mail"); id != 4711 || !found || err != nil {
		t.Errorf("cursor %d, %v, %v: want 4711", id, found, err)
	}
	if p := k.Previous(); !p.Clean || asJSON(t, p.Open) != asJSON(t, open) {
		t.Errorf("the state after the damage is\n%s, want\n%s", asJSON(t, p.Open), asJSON(t, open))
	}
	if k.NextID() != last+2 {
		t.Errorf("next id %d, want %d", k.NextID(), last+2)
	}
}

func TestCorruptWhileWriting(t *testing.T) {
	path, last := filled(t)
	damaged(t, path, func(b []byte) []byte { return overwrite(b, len(b)/4, len(b)/2) })
	j := start(t, Options{Path: path})
	all := journaltest.New(5, last+1, time.Now(), time.Millisecond)
	aside := func() bool {
		found, err := filepath.Glob(path + ".corrupt-*")
		return err == nil && len(found) > 0
	}
	within(t, func() bool {
		j.write(all.Next())
		return aside()
	})
	want := []*model.Event{all.Next(), all.Next()}
	j.write(want...)
	got := events(t, j, Query{AfterID: want[0].ID - 1})
	wantEvents(t, "after the damage", got, want)
}

func TestRemovedWhileInUse(t *testing.T) {
	path := temporary(t)
	log, hook := logtest.NewNullLogger()
	j := start(t, Options{Path: path, Logger: log})
	all := journaltest.New(1, 1, time.Now(), time.Millisecond)
	first := all.Next()
	j.write(first)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil {
			t.Fatal(err)
		}
	}
	j.writer.check <- struct{}{}
	want := []*model.Event{all.Next()}
	j.write(want...)
	wantEvents(t, "after the removal", events(t, j, Query{}), want)
	if len(hook.AllEntries()) != 1 || hook.LastEntry().Level != logrus.ErrorLevel {
		t.Errorf("logged %v: want one error", messages(hook))
	}
	j.stop()
	k := start(t, Options{Path: path})
	if p := k.Previous(); !p.Clean || len(p.Open) != len(all.Open) {
		t.Errorf("previous %+v: want all that is open", p)
	}
}

func TestNewerSchemaAndOtherPrograms(t *testing.T) {
	for statement, want := range map[string]string{
		"PRAGMA user_version = 99": "the journal PATH has schema version 99, and this portwatcher reads 4 and older: run a newer portwatcher, or name another file with --state",
		"DROP TABLE origins; DROP TABLE events; DROP TABLE states; DROP TABLE runs; PRAGMA application_id = 7": "the journal PATH is the database of another program: name another file with --state",
	} {
		path, _ := filled(t)
		s, _, err := openStore(path, quiet())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.db.Exec(statement); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want = strings.ReplaceAll(want, "PATH", path)
		for range 2 { // the lock is released
			if _, err := Open(Options{Path: path, Logger: quiet()}); err == nil || err.Error() != want {
				t.Errorf("%s: error %v, want %s", statement, err, want)
			}
		}
		if _, err := OpenReader(path); err == nil || err.Error() != want {
			t.Errorf("%s: reading: error %v, want %s", statement, err, want)
		}
		after, err := os.ReadFile(path)
		if err != nil || string(after) != string(before) {
			t.Errorf("%s: the file was changed (%v)", statement, err)
		}
	}
}

func TestADamagedRowIsNamed(t *testing.T) {
	path, last := filled(t)
	j := start(t, Options{Path: path})
	for id, change := range map[int]string{10: "detail = '['", 20: "type = ''", 30: "origin = 999999", 40: "port = 70000", 50: "processes = '[[1]]'", 60: "address = '?'"} {
		if _, err := j.store.db.Exec(fmt.Sprintf("UPDATE events SET %s WHERE id = %d", change, id)); err != nil {
			t.Fatal(err)
		}
	}
	var damagedIDs []uint64
	count := 0
	for e, err := range j.Events(t.Context(), Query{}) {
		if err == nil {
			count++
			continue
		}
		d, ok := errors.AsType[*DamagedError](err)
		if !ok || e != nil || !strings.Contains(err.Error(), fmt.Sprintf("event %d of the journal is damaged: ", d.ID)) {
			t.Fatalf("%v, %v: want an error that names the event", e, err)
		}
		damagedIDs = append(damagedIDs, d.ID)
	}
	if fmt.Sprint(damagedIDs) != "[10 20 30 40 50 60]" || count != int(last)-6 {
		t.Errorf("%v are damaged and %d are not, want 10 to 60 and %d", damagedIDs, count, last-6)
	}
}
