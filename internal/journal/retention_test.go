package journal

import (
	"errors"
	"os"
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// standing returns an open journal whose writer takes a step only when the test calls
// it.
func standing(t *testing.T, o Options) *Journal {
	t.Helper()
	o.Logger = quiet()
	j, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func writeNow(t *testing.T, j *Journal, records ...Record) {
	t.Helper()
	for _, r := range records {
		if !j.Offer(r) {
			t.Fatalf("refused: %+v", r)
		}
	}
	for j.writer.next() {
		if err := j.writer.write(); err != nil {
			t.Fatal(err)
		}
	}
}

// trimNow takes steps of retention until there is no more to do, and checks
// that each is small.
func trimNow(t *testing.T, j *Journal) (steps int) {
	t.Helper()
	j.writer.trim.written = 0
	for more := true; more; steps++ {
		before := count(t, j, "events")
		var err error
		if more, err = j.writer.trimStep(); err != nil {
			t.Fatal(err)
		}
		j.writer.trim.written = 0
		if gone := before - count(t, j, "events"); gone > trimRows {
			t.Fatalf("a step deleted %d events, want at most %d", gone, trimRows)
		}
		if steps > 1000 {
			t.Fatal("retention does not end")
		}
	}
	return steps
}

func sizeNow(j *Journal) (size int64, err error) {
	err = j.writer.transact(func(t transaction) (err error) {
		size, _, err = sizeOf(t)
		return err
	})
	return size, err
}

func count(t *testing.T, j *Journal, table string) (n int) {
	t.Helper()
	if err := j.store.db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRetentionByAge(t *testing.T) {
	c := newClock()
	j := standing(t, Options{Path: temporary(t), Now: c.Now, Retain: time.Hour})
	old, recent := journaltest.New(3, 1, c.Now(), time.Second), journaltest.New(2, 2301, c.Now(), time.Second)
	var all []*model.Event
	for range 2300 {
		all = append(all, old.Next())
	}
	recent.Now = old.Now
	recent.Containers = recent.Containers[1:]
	for range 2000 {
		all = append(all, recent.Next())
	}
	for i, e := range all {
		c.add(e.Time.Sub(c.Now()))
		j.offerOrFail(t, e)
		if i == 2299 {
			for _, c := range old.Containers {
				writeNow(t, j, Record{Forget: c.ID})
			}
		}
	}
	writeNow(t, j)
	trimNow(t, j)
	cutoff := c.Now().Add(-time.Hour)
	kept := all
	for kept[0].Time.Before(cutoff) {
		kept = kept[1:]
	}
	wantEvents(t, "an hour", events(t, j, Query{}), kept)

	c.add(time.Hour - 1000*time.Second)
	if steps := trimNow(t, j); steps < 2600/trimRows {
		t.Errorf("it took %d steps, want one for each %d events", steps, trimRows)
	}
	wantEvents(t, "1000 s", events(t, j, Query{}), all[len(all)-1001:])
	for table, want := range map[string]int{"origins": 1, "states WHERE until IS NOT NULL": 0, "runs": 1} {
		if n := count(t, j, table); n != want {
			t.Errorf("%s: %d rows are left, want %d", table, n, want)
		}
	}
	_, _, err := j.At(t.Context(), all[len(all)-1003].Time, model.Filter{})
	if unknown, ok := errors.AsType[*UnknownTimeError](err); !ok || !unknown.From.Equal(all[len(all)-1002].Time) {
		t.Errorf("before the record begins: %v", err)
	}
	if _, _, err := j.At(t.Context(), all[len(all)-1002].Time, model.Filter{}); err != nil {
		t.Errorf("where the record begins: %v", err)
	}
	writeNow(t, j, Record{Event: recent.Next()}) // the row of its container was deleted
	if n := count(t, j, "events"); n != 1002 || len(events(t, j, Query{})) != n {
		t.Error("the event after retention cannot be read")
	}
}

// TestClockSetBack writes an hour again: nothing is lost, and retention waits
// for the events that seem to be of the future.
func TestClockSetBack(t *testing.T) {
	c := newClock()
	j := standing(t, Options{Path: temporary(t), Now: c.Now, Retain: 30 * time.Minute})
	all := journaltest.New(3, 1, c.Now(), time.Second)
	var want []*model.Event
	write := func(n int) {
		for range n {
			e := all.Next()
			c.add(e.Time.Sub(c.Now()))
			want = append(want, e)
			j.offerOrFail(t, e)
		}
		writeNow(t, j)
	}
	write(600)
	all.Now = all.Now.Add(-time.Hour)
	write(600)
	wantEvents(t, "after the clock was set back", events(t, j, Query{}), want)
	early := events(t, j, Query{Until: want[0].Time})
	wantEvents(t, "the hour before", early, want[600:])
	wantEvents(t, "the first pass", events(t, j, Query{Since: want[300].Time}), want[300:600])
	wantEvents(t, "of the second pass", events(t, j, Query{Since: want[900].Time, Until: want[1000].Time}), want[900:1000])
	trimNow(t, j)
	wantEvents(t, "nothing is old", events(t, j, Query{}), want)
	c.add(time.Hour + 10*time.Minute) // the second half is 70 minutes old, the first 10
	trimNow(t, j)
	wantEvents(t, "the first are young", events(t, j, Query{}), want)
	c.add(time.Hour)
	trimNow(t, j)
	wantEvents(t, "all are old", events(t, j, Query{}), nil)
}

func TestRetentionBySizeUnderLoad(t *testing.T) {
	load := 2*trimWritten + 10_000
	if testing.Short() {
		load = trimWritten + 5_000 // all of it takes half a minute with -race
	}
	const limit = 1 << 20
	path := temporary(t)
	j := start(t, Options{Path: path, RetainSize: limit})
	all := journaltest.New(50, 1, time.Now(), time.Millisecond)
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for range load {
		j.offer(Record{Event: all.Next()}) // nothing is refused
	}
	j.await(all.ID)
	if first, _, err := j.Bounds(t.Context()); err != nil || first == 1 {
		t.Errorf("nothing was deleted under load (%v)", err)
	}
	within(t, func() bool { return size() < limit+(1<<20) })
	within(t, func() bool { return j.Stats().Size <= limit })
	left := events(t, j, Query{})
	first, last := left[0].ID, left[len(left)-1].ID
	if last != all.ID || len(left) != int(last-first+1) || len(left) < limit/250 {
		t.Errorf("%d events are left from %d to %d, want all up to %d", len(left), first, last, all.ID)
	}
	if s := j.Stats(); s.Size < limit/2 || s.Dropped > 0 {
		t.Errorf("stats %+v: want about %d bytes, and nothing dropped", s, limit)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const limit = 1 << 19
	j := standing(t, Options{RetainSize: limit})
	all := journaltest.New(3, j.NextID(), time.Now(), time.Millisecond)
	for range 10_000 {
		j.offerOrFail(t, all.Next())
	}
	writeNow(t, j)
	trimNow(t, j)
	size, err := sizeNow(j)
	if err != nil || size > limit || size < limit*8/10 {
		t.Errorf("%d bytes are left (%v), want a little less than %d", size, err, limit)
	}
}

func (j *Journal) offerOrFail(t *testing.T, e *model.Event) {
	t.Helper()
	if !j.Offer(Record{Event: e}) {
		t.Fatal("refused")
	}
}

// TestOnlyForgottenContainers has no event to delete, but much of what ended
// without one.
func TestOnlyForgottenContainers(t *testing.T) {
	c := newClock()
	j := standing(t, Options{Path: temporary(t), Now: c.Now, RetainSize: 1 << 20})
	all := journaltest.New(1, 1, c.Now(), time.Millisecond)
	for range 10 {
		var full []model.State
		for range 300 {
			c.add(time.Second)
			l := all.Next().Listener
			full = append(full, model.State{Open: model.Open{Time: c.Now(), Listener: l, OpenedAt: c.Now()}})
		}
		writeNow(t, j, Record{State: full, Full: true})
	}
	trimNow(t, j)
	if size, err := sizeNow(j); err != nil || size > 1<<20 {
		t.Errorf("%d bytes are left (%v), want at most %d", size, err, 1<<20)
	}
	if open, _, err := j.At(t.Context(), c.Now(), model.Filter{}); err != nil || len(open) < 100 {
		t.Errorf("%d are open (%v): what is open must stay", len(open), err)
	}
}

// A change of the limits counts from the next step on; in memory there is
// always one.
func TestSetRetention(t *testing.T) {
	clock := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	j := standing(t, Options{Path: t.TempDir() + "/j.db", Now: func() time.Time { return clock }})
	for i := range 10 {
		writeNow(t, j, Record{Event: &model.Event{
			ID: j.NextID() + uint64(i), Time: clock.Add(-time.Duration(10-i) * time.Hour), Type: model.Gap, Reason: "x",
		}})
	}
	trimNow(t, j)
	if got := count(t, j, "events"); got != 10 {
		t.Fatalf("%d events are left without a limit, want 10", got)
	}
	j.SetRetention(150*time.Minute, 0)
	trimNow(t, j)
	if got := count(t, j, "events"); got != 2 {
		t.Errorf("%d events are left, want the 2 that are not older than 150 minutes", got)
	}
	inMemory := standing(t, Options{})
	inMemory.SetRetention(0, 0)
	if size := inMemory.retainSize.Load(); size != memorySize {
		t.Errorf("in memory it may grow to %d bytes, want %d", size, memorySize)
	}
}
