package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/port"
)

// many is more than a page and a window have, from two times.
func many(t *testing.T) (*running, []*port.Event) {
	t.Helper()
	j := start(t, Options{Path: temporary(t)})
	all := journaltest.New(30, 1, time.Now().Add(-24*time.Hour), time.Second)
	var made []*port.Event
	for len(made) < windowBlocks<<blockShift+3*pageLength {
		made = append(made, all.Next())
		if len(made) == 5000 {
			all.ID += 1 << 20 // it was killed
		}
		for !j.Offer(Record{Event: made[len(made)-1]}) {
			time.Sleep(time.Millisecond)
		}
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
		{AfterID: 4990, BeforeID: made[6000].ID},
		{Since: middle.Time},
		{Until: middle.Time},
		{Containers: []string{"shop_web_7"}},                // by the index
		{Containers: []string{"shop_web_1", "shop_web_2?"}}, // too
		{Project: "shop"},                                   // by reading all
		{Containers: []string{"shop_web_7"}, Limit: pageLength + 1},
		{Types: []port.Type{port.Closed}, Limit: 3 * pageLength},
	} {
		var want []*port.Event
		for _, e := range made {
			if plainlyMatches(&q, e) {
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
	var want []*port.Event
	for id := uint64(1); id <= 2000; id++ {
		want = append(want, randomEvent(random, id))
	}
	j.write(want...)
	wantEvents(t, "inside", events(t, j.Reader(), Query{}), want)
	j.stop()
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wantEvents(t, "after the end", events(t, r, Query{}), want)
}

func TestABadQuerySaysWhy(t *testing.T) {
	j := start(t, Options{})
	now := time.Now()
	for _, test := range []struct {
		query Query
		want  string
	}{
		{Query{Limit: -1}, "limit -1: "},
		{Query{Since: now, Until: now}, "is not before until"},
		{Query{AfterID: 1 << 63}, "the largest id is"},
		{Query{Ports: []PortRange{{First: 2, Last: 1}}}, "ports 2-1: "},
		{Query{Types: []port.Type{"open"}}, `type "open": allowed are opened, closed, changed and gap`},
		{Query{Exposures: []port.Exposure{"all"}}, `exposure "all": allowed are loopback, network, published and host`},
		{Query{Containers: []string{"a", ""}}, `container "": allowed are names`},
		{Query{Containers: []string{"a/b/c"}}, `container "a/b/c": allowed are names`},
		{Query{Containers: []string{"[a"}}, `container "[a": allowed are names`},
		{Query{Containers: []string{"shop/"}}, `container "shop/": allowed are names`},
		{Query{Containers: []string{"shop/[a"}}, `container "shop/[a": allowed are names`},
	} {
		for name, answer := range map[string]iter.Seq2[*port.Event, error]{"events": j.Reader().Events(t.Context(), test.query), "follow": j.Reader().Follow(t.Context(), test.query)} {
			n := 0
			for e, err := range answer {
				if n++; e != nil || err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s %+v: %v, %v; want an error with %s", name, test.query, e, err, test.want)
				}
			}
			if n != 1 {
				t.Errorf("%s %+v: %d answers, want one error", name, test.query, n)
			}
		}
	}
}

func TestOpenReaderSaysWhatIsWrong(t *testing.T) {
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
		empty:                            "has schema version 0, and this portwatcher reads 1: start `portwatcher run` once",
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

// follow gathers what a query finds, from now on.
func follow(t *testing.T, r *Reader, q Query) (next func() *port.Event, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	found := make(chan *port.Event, 1000)
	var group sync.WaitGroup
	group.Go(func() {
		defer close(found)
		for e, err := range r.Follow(ctx, q) {
			if err != nil {
				t.Error(err)
				return
			}
			found <- e
		}
	})
	next = func() *port.Event {
		t.Helper()
		select {
		case e, ok := <-found:
			if !ok {
				t.Fatal("following ended")
			}
			return e
		case <-time.After(30 * time.Second):
			t.Fatal("nothing came within 30 s")
		}
		return nil
	}
	return next, func() {
		cancel()
		group.Wait()
		for e := range found {
			t.Errorf("event %d came, and nobody expected it", e.ID)
		}
	}
}

func TestFollow(t *testing.T) {
	j := start(t, Options{Path: temporary(t)})
	all := journaltest.New(2, 1, time.Now(), time.Millisecond)
	made := []*port.Event{}
	write := func(n int) {
		for range n {
			made = append(made, all.Next())
		}
		j.write(made[len(made)-n:]...)
	}
	write(10)
	other, err := OpenReader(j.Place().Path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for name, r := range map[string]*Reader{"inside": j.Reader(), "another process": other} {
		t.Run(name, func(t *testing.T) {
			web := Query{Containers: []string{"shop_web_1"}}
			before := len(made)
			next, end := follow(t, r, Query{Limit: 3})
			nextWeb, endWeb := follow(t, r, Query{Containers: web.Containers, AfterID: made[before-1].ID})
			for _, want := range made[before-3:] {
				if e := next(); e.ID != want.ID {
					t.Fatalf("event %d came, want %d", e.ID, want.ID)
				}
			}
			for range 5 {
				at := len(made)
				write(20)
				for _, want := range made[at:] {
					if e := next(); e.ID != want.ID {
						t.Fatalf("event %d came, want %d", e.ID, want.ID)
					}
					if plainlyMatches(&web, want) {
						if e := nextWeb(); e.ID != want.ID {
							t.Fatalf("event %d of the container came, want %d", e.ID, want.ID)
						}
					}
				}
			}
			end()
			endWeb()
		})
	}
	var ids []uint64
	for e, err := range other.Follow(t.Context(), Query{Limit: 12, FromStart: true, AfterID: made[len(made)-10].ID}) {
		if err != nil {
			t.Fatal(err)
		}
		if ids = append(ids, e.ID); len(ids) == 9 {
			write(5)
		}
	}
	if len(ids) != 12 { // it ends by itself
		t.Errorf("events %v came, want 12", ids)
	}
	ids = nil
	for e, err := range j.Reader().Follow(t.Context(), Query{BeforeID: 4}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if fmt.Sprint(ids) != "[1 2 3]" {
		t.Errorf("events %v came, want 1 to 3", ids)
	}
}

// TestFollowFromTheBeginning asks an empty journal for its last events: all that
// come are new.
func TestFollowFromTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := start(t, Options{})
		next, end := follow(t, j.Reader(), Query{Limit: 3})
		synctest.Wait() // it has seen that there is nothing
		first := j.NextID()
		all := journaltest.New(2, first, time.Now(), time.Millisecond)
		for range 20 {
			j.offer(Record{Event: all.Next()})
		}
		for n := range uint64(20) {
			if e := next(); e.ID != first+n {
				t.Fatalf("event %d came, want %d", e.ID, first+n)
			}
		}
		end()
		j.stop()
	})
}

// TestFollowGoesOnInAnotherFile replaces the file, as happens when it proves
// corrupt.
func TestFollowGoesOnInAnotherFile(t *testing.T) {
	path, last := filled(t)
	set := make(chan string, 1)
	j := start(t, Options{Path: path, SetAside: func(aside string) { set <- aside }})
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next, end := follow(t, r, Query{AfterID: last})
	inside, endInside := follow(t, j.Reader(), Query{AfterID: last})
	all := journaltest.New(1, last+1, time.Now(), time.Millisecond)
	j.write(all.Next())
	if e, f := next(), inside(); e.ID != last+1 || f.ID != last+1 {
		t.Fatalf("events %d and %d came, want %d", e.ID, f.ID, last+1)
	}
	j.suspect <- suspicion{j.store, damage{errors.New("a test says so")}}
	<-set
	j.write(all.Next())
	if e, f := next(), inside(); e.ID != last+2 || f.ID != last+2 {
		t.Fatalf("events %d and %d came, want %d", e.ID, f.ID, last+2)
	}
	end()
	endInside()
}

// TestManyFollowers wakes 200 of them.
func TestManyFollowers(t *testing.T) {
	j := start(t, Options{Path: temporary(t)})
	all := journaltest.New(2, 1, time.Now(), time.Millisecond)
	j.write(all.Next())
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			want := uint64(1)
			for e, err := range j.Reader().Follow(t.Context(), Query{}) {
				if err != nil || e.ID != want {
					t.Errorf("event %v, %v: want %d", e, err, want)
					return
				}
				if want++; want > 20 {
					return
				}
			}
		})
	}
	for range 19 {
		j.write(all.Next())
	}
	group.Wait()
}

// TestInterruptedInMemory ends queries in the middle: with its only connection,
// a database in memory would be gone.
func TestInterruptedInMemory(t *testing.T) {
	j := start(t, Options{})
	all := journaltest.New(3, j.NextID(), time.Now(), time.Millisecond)
	var want []*port.Event
	for range 3 * pageLength {
		want = append(want, all.Next())
	}
	j.write(want...)
	for n := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*100*time.Microsecond)
		for _, err := range j.Reader().Events(ctx, Query{}) {
			if err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
		}
		cancel()
	}
	wantEvents(t, "after queries were interrupted", events(t, j.Reader(), Query{}), want)
}
