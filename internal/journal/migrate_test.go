package journal

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

var update = flag.Bool("update", false, "write the fixture of the newest schema version")

// fixture is what a new fixture records.
func fixture() []*model.Event {
	all := journaltest.New(3, 1, time.Date(2026, 11, 22, 18, 0, 0, 123456789, time.UTC), 1500*time.Millisecond)
	var made []*model.Event
	for range 50 {
		made = append(made, all.Next())
	}
	return append(made, &model.Event{ID: 51, Time: all.Now, Type: model.Gap, Listener: model.Listener{Host: "node1"}, Reason: "3 events were dropped"})
}

func fixturePath(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("schema-%d.db", version))
}

// TestMigrations opens a journal of each schema version that was ever released.
// A new version comes with a fixture: go test -run Migrations -update.
func TestMigrations(t *testing.T) {
	if *update {
		writeFixture(t, fixturePath(len(migrations)))
	}
	found, err := fs.Glob(os.DirFS("."), "testdata/schema-*.db")
	if err != nil || len(found) != len(migrations) {
		t.Fatalf("%d fixtures for %d schema versions (%v)", len(found), len(migrations), err)
	}
	for version := 1; version <= len(migrations); version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			content, err := os.ReadFile(fixturePath(version))
			if err != nil {
				t.Fatal(err)
			}
			path := temporary(t)
			if err := os.WriteFile(path, content, 0o640); err != nil {
				t.Fatal(err)
			}
			checkFixture(t, path, version)
		})
	}
}

func checkFixture(t *testing.T, path string, version int) {
	t.Helper()
	j := start(t, Options{Path: path, BootID: "boot-1"})
	want := readEvents(t, strings.TrimSuffix(fixturePath(version), ".db")+".jsonl")
	wantEvents(t, "all", events(t, j.Reader(), Query{}), want)
	if id, found, err := j.Cursor("mail"); id != 17 || !found || err != nil {
		t.Errorf("cursor %d, %v, %v: want 17", id, found, err)
	}
	if j.NextID() != 52 {
		t.Errorf("next id %d, want 52", j.NextID())
	}
	p := j.Previous()
	if p == nil || !p.Clean || !p.SameBoot || !p.LastAlive.Equal(want[50].Time) {
		t.Fatalf("previous %+v", p)
	}
	open := map[uint16]bool{}
	for _, e := range want[:50] {
		open[e.Port] = e.Type == model.Opened
		if !open[e.Port] {
			delete(open, e.Port)
		}
	}
	for _, s := range p.Open {
		if !open[s.Port] || s.Sockets == nil || s.Sockets.Cookies[0] != uint64(s.Port) {
			t.Errorf("%s is open", asJSON(t, s))
		}
		delete(open, s.Port)
	}
	if len(open) > 0 {
		t.Errorf("ports %v are not open", open)
	}
	j.write(&model.Event{ID: 52, Time: time.Now(), Type: model.Gap})
}

// TestAFileOfBeforeBursts reads events as they were written before there were
// bursts and numbers of gaps, and goes on in the same file.
func TestAFileOfBeforeBursts(t *testing.T) {
	content, err := os.ReadFile("testdata/before-bursts.db")
	if err != nil {
		t.Fatal(err)
	}
	path := temporary(t)
	if err := os.WriteFile(path, content, 0o640); err != nil {
		t.Fatal(err)
	}
	want := readEvents(t, "testdata/before-bursts.jsonl")
	j := start(t, Options{Path: path})
	wantEvents(t, "before", events(t, j.Reader(), Query{}), want)
	container, at := want[0].Container, want[0].Time
	burst := &model.Event{ID: j.NextID(), Time: at, Type: model.Bursts, Listener: model.Listener{Host: "node1", Container: container}}
	burst.Burst = &model.Burst{Opened: 31245, Closed: 31244, First: at.Add(-time.Second), Last: at, Ports: []uint16{20000, 20911}, PortCount: 2}
	gap := &model.Event{ID: burst.ID + 1, Time: at, Type: model.Gap, Listener: model.Listener{Container: container}, Reason: "an overrun", Lost: 128}
	j.write(burst, gap)
	wantEvents(t, "after", events(t, j.Reader(), Query{}), append(want, burst, gap))
	wantEvents(t, "the burst", events(t, j.Reader(), Query{Filter: model.Filter{Types: []model.Type{model.Bursts}}}), []*model.Event{burst})
	wantEvents(t, "by port", events(t, j.Reader(), Query{Filter: model.Filter{Ports: model.OnePort(model.UDP, 20500)}}), []*model.Event{burst})
}

// readEvents reads events from a file of JSON lines.
func readEvents(t *testing.T, path string) (read []*model.Event) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		e := &model.Event{}
		if err := json.Unmarshal([]byte(line), e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		read = append(read, e)
	}
	return read
}

func writeFixture(t *testing.T, path string) {
	t.Helper()
	made := temporary(t)
	c := newClock()
	j := start(t, Options{Path: made, Now: c.Now, BootID: "boot-1", Version: "fixture"})
	all := fixture()
	c.add(all[50].Time.Sub(c.Now()))
	for _, e := range all {
		j.offer(Record{Event: e, Sockets: &model.Sockets{Namespace: model.Namespace{Device: 4, Inode: 4026531840}, Cookies: []uint64{uint64(e.Port)}, Inodes: []uint32{1}}})
	}
	if err := j.SetCursor("mail", 17); err != nil {
		t.Fatal(err)
	}
	j.stop()
	content, err := os.ReadFile(made)
	if err == nil {
		err = os.WriteFile(path, content, 0o644)
	}
	var lines []byte
	for _, e := range all {
		lines = append(lines, asJSON(t, e)+"\n"...)
	}
	if err == nil {
		err = os.WriteFile(strings.TrimSuffix(path, ".db")+".jsonl", lines, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAMigrationThatFailsChangesNothing stops in the middle of one.
func TestAMigrationThatFailsChangesNothing(t *testing.T) {
	released := migrations
	defer func() { migrations = released }()
	path, _ := filled(t)
	migrations = append(append([]string{}, released...), "CREATE TABLE fine (id INTEGER); CREATE TABLE events (id INTEGER);")
	if s, _, err := openStore(path); err == nil || !strings.Contains(err.Error(), "migrate from schema version 1") {
		t.Fatalf("%v, %v: want an error of the migration", s, err)
	}
	migrations = released
	j := start(t, Options{Path: path})
	if n := len(events(t, j.Reader(), Query{})); n != 5000 {
		t.Errorf("%d events are left, want 5000", n)
	}
}
