package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// many is more than a page and a window have: there are some pages of events,
// and few of the ids are used.
func many(t *testing.T) (*running, []*model.Event) {
	t.Helper()
	j := start(t, Options{Path: temporary(t)})
	all := journaltest.New(30, 1, time.Now().Add(-24*time.Hour), time.Second)
	var made []*model.Event
	for len(made) < 4*pageLength {
		if all.ID > 1 && len(made) > 3*pageLength {
			all.ID += 200 // some were dropped
		}
		if len(made) == 3*pageLength {
			all.ID += 1 << 20 // it was killed
		}
		made = append(made, all.Next())
		j.offer(Record{Event: made[len(made)-1]})
	}
	j.await(all.ID)
	return j, made
}

func TestLongAnswers(t *testing.T) {
	j, made := many(t)
	r, err := OpenReader(j.Place().Path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	middle := made[len(made)/2]
	for _, q := range []Query{
		{},
		{Limit: 2*pageLength + 1},
		{Limit: len(made) - 1},
		{Limit: len(made) + 1},
		{Limit: 2*pageLength + 1, FromStart: true},
		{AfterID: 2990, BeforeID: made[3500].ID},
		{Since: middle.Time},
		{Until: middle.Time},
		{Filter: containers(t, "shop_web_7")},             // by the index
		{Filter: containers(t, "shop_web_1 shop_web_2?")}, // too
		{Filter: model.Filter{Project: "shop"}},           // by reading all
		{Filter: containers(t, "shop_web_7"), Limit: 50},
		{Filter: model.Filter{Types: []model.Type{model.Closed}}, Limit: pageLength + 500},
	} {
		var want []*model.Event
		for _, e := range made {
			if plainlyMatches(&q, e, namesOf(made)) {
				want = append(want, e)
			}
		}
		if q.Limit > 0 && q.Limit < len(want) && q.FromStart {
			want = want[:q.Limit]
		} else if q.Limit > 0 && q.Limit < len(want) {
			want = want[len(want)-q.Limit:]
		}
		got := events(t, r, q)
		if len(got) != len(want) {
			t.Errorf("%+v: %d events, want %d", q, len(got), len(want))
			continue
		}
		for i := range got {
			if got[i].ID != want[i].ID {
				t.Errorf("%+v: event %d is %d, want %d", q, i, got[i].ID, want[i].ID)
				break
			}
		}
	}
}

func TestRandomEventsComeBack(t *testing.T) {
	path := temporary(t)
	j := start(t, Options{Path: path})
	random := newRandom(3)
	var want []*model.Event
	for id := uint64(1); id <= 2000; id++ {
		want = append(want, randomEvent(random, id))
	}
	j.write(want...)
	wantEvents(t, "inside", events(t, j, Query{}), want)
	j.stop()
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wantEvents(t, "after the end", events(t, r, Query{}), want)
}

func TestOpenReaderErrors(t *testing.T) {
	folder := t.TempDir()
	text, empty := filepath.Join(folder, "text"), filepath.Join(folder, "empty")
	for path, content := range map[string]string{text: strings.Repeat("no database", 1000), empty: ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(folder, "none.db"): "there is no journal at " + folder + "/none.db: `portwatcher run` writes it; name its file with --state",
		folder:                           "it is no file; name the database of `portwatcher run` with --state",
		text:                             "file is not a database",
		empty:                            "has no tables yet: " + empty + ": start `portwatcher run` once",
	} {
		if _, err := OpenReader(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", path, err, want)
		}
	}
	if _, err := OpenReader(filepath.Join(folder, "none.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is not ErrNotExist", err)
	}
	if names, err := os.ReadDir(folder); err != nil || len(names) != 2 {
		t.Errorf("reading left %v (%v)", names, err)
	}
}

// TestInterruptedInMemory ends queries in the middle: with its only connection,
// a database in memory would be gone.
func TestInterruptedInMemory(t *testing.T) {
	j := start(t, Options{})
	all := journaltest.New(3, j.NextID(), time.Now(), time.Millisecond)
	var want []*model.Event
	for range 3 * pageLength {
		want = append(want, all.Next())
	}
	j.write(want...)
	for n := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*100*time.Microsecond)
		for _, err := range j.Events(ctx, Query{}) {
			if err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
		}
		cancel()
	}
	wantEvents(t, "after queries were interrupted", events(t, j, Query{}), want)
}

// containers returns a filter that selects containers.
func containers(t testing.TB, text string) model.Filter {
	t.Helper()
	selection, err := model.ParseSelection(text)
	if err != nil {
		t.Fatal(err)
	}
	return model.Filter{Containers: selection}
}

// While the writer makes another file, a reader reads what was there.
func TestReaderOfAFileThatIsBeingReplaced(t *testing.T) {
	path, last := filled(t)
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, step := range []func() error{
		func() error { return os.Rename(path, path+".aside") },
		func() error { return os.WriteFile(path, nil, 0o600) }, // as the writer begins
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		var seen uint64
		for e, err := range r.Events(t.Context(), Query{Limit: 1}) {
			if err != nil {
				t.Fatal(err)
			}
			seen = e.ID
		}
		if seen != last {
			t.Errorf("the last event is %d, want %d", seen, last)
		}
	}
}
