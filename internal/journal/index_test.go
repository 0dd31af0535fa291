package journal

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// change runs statements on a journal that nobody has open.
func change(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err == nil {
		_, err = db.Exec(statements)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// number returns the number that a query of a journal's database returns.
func number(t *testing.T, j *Journal, query string) (n int) {
	t.Helper()
	err := j.read(t.Context(), func(t transaction) error { return t.get([]any{&n}, query) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitIndex waits until all events are in the index but those of the last block.
func awaitIndex(t *testing.T, j *running) {
	t.Helper()
	kernel.Eventually(t, "the events are indexed", func() bool {
		return number(t, j.Journal, "SELECT count(*) FROM sqlite_schema WHERE name = 'events_origin'") == 0 &&
			number(t, j.Journal, "SELECT count(*) FROM events WHERE id > (SELECT ifnull(max(first + length(entries) / 4 - 1), 0) FROM filter_blocks)") < blockLength
	})
}

// A filter reads the index and the newest events, not the others: these are changed here, so
// that they would match.
func TestFiltersReadTheIndex(t *testing.T) {
	path := temporary(t)
	all := journaltest.New(5, 1, time.Now().Add(-time.Hour), time.Millisecond)
	offerAll(t, path, all, 5*blockLength)
	j := start(t, Options{Path: path})
	awaitIndex(t, j)
	j.stop()
	change(t, path, "UPDATE events SET type = 'gap', port = 80, protocol = 17, exposure = 'host', transient = 1")
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	transient := true
	for name, filter := range map[string]model.Filter{
		"type": {Types: []model.Type{model.Gap}}, "port": {Ports: model.OnePort(0, 80)}, "protocol": {Protocols: []model.Protocol{model.UDP}},
		"exposure": {Exposures: []model.Exposure{model.Host}}, "transient": {Transient: &transient},
	} {
		for _, q := range []Query{{Filter: filter}, {Filter: filter, Limit: 3}, {Filter: filter, Limit: 3, FromStart: true}, {Filter: filter, Since: time.Unix(0, 1)}} {
			found := events(t, r, q)
			for _, e := range found {
				if e.ID <= 4*blockLength {
					t.Fatalf("%s: the event %d, which is indexed, was compared", name, e.ID)
				}
			}
		}
	}
}

// A file of schema 2 is opened at once, answers while it is indexed, and loses its old index.
func TestMigrateFromSchema2(t *testing.T) {
	path := temporary(t)
	all := journaltest.New(5, 1, time.Now().Add(-time.Hour), time.Millisecond)
	offerAll(t, path, all, 3*blockLength)
	want := readAll(t, path)
	change(t, path, toSchema3+"DROP TABLE filter_blocks; CREATE INDEX events_origin ON events (origin); PRAGMA user_version = 2")
	s, _, err := openStore(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	filter := Query{Filter: containers(t, "shop_web_3")}
	before := func() []*model.Event {
		r, err := OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		return events(t, r, filter)
	}()
	j := start(t, Options{Path: path})
	awaitIndex(t, j)
	wantEvents(t, "all", events(t, j, Query{}), want)
	wantEvents(t, "one container", events(t, j, filter), before)
	if blocks := number(t, j.Journal, "SELECT count(*) FROM filter_blocks"); len(before) == 0 || blocks < 2 {
		t.Errorf("%d events of the container, %d blocks", len(before), blocks)
	}
}

func readAll(t *testing.T, path string) []*model.Event {
	t.Helper()
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return events(t, r, Query{})
}

// Retention deletes the blocks of deleted events, and origins that no event has any more, but
// no name of a container that has events.
func TestRetentionOfTheIndex(t *testing.T) {
	now := time.Now()
	j := standing(t, Options{Path: temporary(t), Retain: time.Hour, block: 8})
	old, kept := &model.ContainerRef{ID: "old", Name: "old"}, &model.ContainerRef{ID: "kept", Name: "tmp_kept"}
	renamed := &model.ContainerRef{ID: "kept", Name: "kept"}
	id := uint64(0)
	offer := func(c *model.ContainerRef, events int, at time.Time) {
		for range events {
			id++
			writeNow(t, j, Record{Event: &model.Event{ID: id, Time: at, Type: model.Gap, Listener: model.Listener{Container: c}}})
		}
	}
	offer(old, 24, now.Add(-2*time.Hour))
	offer(kept, 21, now)
	writeNow(t, j, Record{Named: &model.Listener{Container: renamed}})
	for range 10 {
		j.writer.index(t.Context())
	}
	if blocks := count(t, j, "filter_blocks"); blocks != 5 {
		t.Fatalf("%d blocks of 45 events, want 5", blocks)
	}
	trimNow(t, j)
	if origins, first := count(t, j, "origins"), number(t, j, "SELECT min(first) FROM filter_blocks"); origins != 2 || first != 25 {
		t.Errorf("%d origins, the first block begins at %d; want 2 and 25", origins, first)
	}
	for _, name := range []string{"kept", "tmp_kept"} {
		if found := events(t, j, Query{Filter: containers(t, name)}); len(found) != 21 {
			t.Errorf("%s: %d events, want 21", name, len(found))
		}
	}
}

// A container that was renamed is found by each of its names, with its whole history.
func TestRenamedContainer(t *testing.T) {
	j := start(t, Options{Path: temporary(t)})
	before, after := &model.ContainerRef{ID: "abc", Name: "249662c60a09_shop-web-1"}, &model.ContainerRef{ID: "abc", Name: "shop-web-1"}
	other := &model.ContainerRef{ID: "def", Name: "other"}
	gap := func(id uint64, c *model.ContainerRef) *model.Event {
		return &model.Event{ID: id, Time: time.Now().UTC(), Type: model.Gap, Listener: model.Listener{Container: c}}
	}
	first, second := gap(j.NextID(), before), gap(j.NextID()+1, other)
	j.write(first, second)
	if found := events(t, j, Query{Filter: containers(t, "shop-web-1")}); len(found) != 0 {
		t.Errorf("before the rename: %d events", len(found))
	}
	j.Force(Record{Named: &model.Listener{Container: after}})
	kernel.Eventually(t, "the name is recorded", func() bool { return number(t, j.Journal, "SELECT count(*) FROM origins") == 3 })
	wantEvents(t, "by the new name, without an event under it", events(t, j, Query{Filter: containers(t, "shop-web-1")}), []*model.Event{first})
	third := gap(second.ID+1, after)
	j.write(third)
	fourth := &model.Event{ID: third.ID + 1, Time: time.Now().UTC(), Type: model.Opened, Listener: model.Listener{Container: before, Protocol: model.TCP, Port: 80}}
	j.write(fourth)
	for name, want := range map[string]int{"shop-web-1": 1, "249662c60a09_shop-web-1": 1, "!shop-web-1": 0, "other": 0} {
		if open, _, err := j.At(t.Context(), time.Now(), containers(t, name)); err != nil || len(open) != want {
			t.Errorf("open in %s: %d, error %v, want %d", name, len(open), err, want)
		}
	}
	for _, name := range []string{"shop-web-1", "249662c60a09_shop-web-1", "shop-web-*", "!other"} {
		wantEvents(t, name, events(t, j, Query{Filter: containers(t, name)}), []*model.Event{first, third, fourth})
	}
	for _, name := range []string{"!shop-web-1", "!249662c60a09_shop-web-1", "other"} {
		wantEvents(t, name, events(t, j, Query{Filter: containers(t, name)}), []*model.Event{second})
	}
}
