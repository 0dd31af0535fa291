package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// follow gathers what a query finds, from now on.
func follow(t *testing.T, r source, q Query) (next func() *model.Event, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	found := make(chan *model.Event, 1000)
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
	next = func() *model.Event {
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
			t.Errorf("event %d came unexpectedly", e.ID)
		}
	}
}

func TestFollow(t *testing.T) {
	j := start(t, Options{Path: temporary(t)})
	all := journaltest.New(2, 1, time.Now(), time.Millisecond)
	made := []*model.Event{}
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
	for name, r := range map[string]source{"inside": j, "another process": other} {
		t.Run(name, func(t *testing.T) {
			web := Query{Filter: containers(t, "shop_web_1")}
			before := len(made)
			next, end := follow(t, r, Query{Limit: 3})
			nextWeb, endWeb := follow(t, r, Query{Filter: web.Filter, AfterID: made[before-1].ID})
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
					if plainlyMatches(&web, want, namesOf(made)) {
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
	for e, err := range j.Follow(t.Context(), Query{BeforeID: 4}) {
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
		next, end := follow(t, j, Query{Limit: 3})
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
	inside, endInside := follow(t, j, Query{AfterID: last})
	all := journaltest.New(1, last+1, time.Now(), time.Millisecond)
	j.write(all.Next())
	if e, f := next(), inside(); e.ID != last+1 || f.ID != last+1 {
		t.Fatalf("events %d and %d came, want %d", e.ID, f.ID, last+1)
	}
	j.suspect <- suspicion{j.store, damage{errors.New("a test")}}
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
			for e, err := range j.Follow(t.Context(), Query{}) {
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
