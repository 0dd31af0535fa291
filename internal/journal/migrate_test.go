package journal

import (
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// schema1 copies testdata/schema-1.db, which the last version with schema 1 wrote: two
// runs with events of every type. Beside it are its events, what was open at several
// times, and at the end, as that version returned them.
func schema1(t *testing.T, statements string) (path string) {
	t.Helper()
	path = temporary(t)
	content, err := os.ReadFile("testdata/schema-1.db")
	if err == nil {
		err = os.WriteFile(path, content, 0o640)
	}
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err == nil {
		_, err = db.Exec(statements)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// readLines reads a file of JSON lines.
func readLines[T any](t *testing.T, path string) (read []T) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		var value T
		if err := json.Unmarshal([]byte(line), &value); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		read = append(read, value)
	}
	return read
}

func TestMigrateFromSchema1(t *testing.T) {
	j := start(t, Options{Path: schema1(t, ""), BootID: "boot-1"})
	want := readLines[*model.Event](t, "testdata/schema-1.jsonl")
	wantEvents(t, "all", events(t, j, Query{}), want)
	wantEvents(t, "since", events(t, j, Query{Since: want[50].Time}), want[50:])
	for _, moment := range readLines[struct {
		At       time.Time
		Open     []model.Open
		Watching Watching
	}](t, "testdata/schema-1.at.jsonl") {
		open, watching, err := j.At(t.Context(), moment.At, model.Filter{})
		if err != nil || asJSON(t, open) != asJSON(t, moment.Open) || watching != moment.Watching {
			t.Errorf("at %v: %v\n%s, want\n%s; %+v, want %+v", moment.At, err, asJSON(t, open), asJSON(t, moment.Open), watching, moment.Watching)
		}
	}
	if id, found, err := j.Cursor("mail"); id != 17 || !found || err != nil {
		t.Errorf("cursor %d, %v, %v: want 17", id, found, err)
	}
	last := want[len(want)-1]
	p := j.Previous()
	if j.NextID() != last.ID+1 || p == nil || !p.Clean || !p.SameBoot || !p.LastAlive.Equal(last.Time) {
		t.Fatalf("next id %d, previous %+v", j.NextID(), p)
	}
	if open := readLines[[]model.State](t, "testdata/schema-1.open.json")[0]; asJSON(t, p.Open) != asJSON(t, open) {
		t.Errorf("open\n%s, want\n%s", asJSON(t, p.Open), asJSON(t, open))
	}
	e := &model.Event{ID: last.ID + 1, Time: time.Now().UTC(), Type: model.Gap}
	j.write(e)
	wantEvents(t, "and one more", events(t, j, Query{}), append(want, e))
}

// Damaged rows stay where they are, and are reported.
func TestMigrateDamagedRows(t *testing.T) {
	j := start(t, Options{Path: schema1(t, "UPDATE events SET detail = x'ff' WHERE id = 3; UPDATE events SET type = 77 WHERE id = 5; UPDATE events SET origin = 999 WHERE id = 7")})
	count := 0
	var damagedIDs []uint64
	for _, err := range j.Events(t.Context(), Query{}) {
		if damaged, ok := errors.AsType[*DamagedError](err); ok {
			damagedIDs = append(damagedIDs, damaged.ID)
		} else if err != nil {
			t.Fatal(err)
		}
		count++
	}
	if asJSON(t, damagedIDs) != "[3,5,7]" || count != len(readLines[*model.Event](t, "testdata/schema-1.jsonl")) {
		t.Errorf("%v of %d are damaged, want 3, 5 and 7", damagedIDs, count)
	}
}

// TestAMigrationThatFailsChangesNothing stops in the middle of one.
func TestAMigrationThatFailsChangesNothing(t *testing.T) {
	path := schema1(t, "CREATE TABLE events1 (id INTEGER)")
	if s, _, err := openStore(path, quiet()); err == nil || !strings.Contains(err.Error(), "migrate from schema version 1") {
		t.Fatalf("%v, %v: want an error of the migration", s, err)
	}
	if _, err := OpenReader(path); err == nil || !strings.Contains(err.Error(), "has schema version 1, and this portwatcher reads 4: start `portwatcher run` once, which brings it up to date") {
		t.Errorf("reading: %v", err)
	}
	db, err := sql.Open("sqlite", path)
	if err == nil {
		_, err = db.Exec("DROP TABLE events1")
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, "after the failure", events(t, start(t, Options{Path: path}), Query{}), readLines[*model.Event](t, "testdata/schema-1.jsonl"))
}
