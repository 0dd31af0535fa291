package clock

import (
	"testing"
	"time"
)

// fakeClocks are a boot clock and a wall clock that is offset nanoseconds ahead.
type fakeClocks struct {
	boot, offset   int64
	earlier, later int64 // how far from the wall clock's reading the others are
	readings       int
}

func (f *fakeClocks) read() reading {
	f.readings++
	return reading{f.boot - f.earlier, f.boot + f.offset, f.boot + f.later}
}

func (f *fakeClocks) stamp(w *Wall) int64 { return w.Time(Instant(f.boot)).UnixNano() }

func TestWallConvergesAndFollowsSteps(t *testing.T) {
	const epoch = 1_700_000_000_000_000_000
	f := &fakeClocks{boot: 5_000_000_000, offset: epoch, earlier: 400, later: 100}
	c := newWall(f.read)

	if off := f.stamp(c) - f.boot - epoch; off < -400 || off > 400 {
		t.Errorf("first stamp is off by %d ns, want within the reading's 400", off)
	}
	// A reading with its slack on the other side leaves 100 ns on each.
	f.boot += int64(time.Second)
	f.earlier, f.later = 100, 400
	if off := f.stamp(c) - f.boot - epoch; off < -1 || off > 1 {
		t.Errorf("after two readings the stamp is off by %d ns, want 0", off)
	}
	// A wide reading must not make it worse.
	f.boot += int64(time.Second)
	f.earlier, f.later = 50, 90_000
	if off := f.stamp(c) - f.boot - epoch; off < -100 || off > 100 {
		t.Errorf("a wide reading moved the stamp by %d ns", off)
	}
	// The clock is set back an hour.
	f.boot += int64(time.Second)
	f.offset -= int64(time.Hour)
	f.earlier, f.later = 50, 50
	if off := f.stamp(c) - f.boot - f.offset; off < -50 || off > 50 {
		t.Errorf("after the clock was set, the stamp is off by %d ns", off)
	}
}

func TestWallReadsRarely(t *testing.T) {
	f := &fakeClocks{boot: 5_000_000_000, earlier: 50, later: 50}
	c := newWall(f.read)
	for range 1000 {
		f.stamp(c)
		f.boot += 50_000
	}
	if f.readings != 1 {
		t.Errorf("%d readings for 50 ms of events, want 1", f.readings)
	}
}

func TestInstantOfWallTime(t *testing.T) {
	f := &fakeClocks{boot: 5_000_000_000, offset: 1_700_000_000_000_000_000}
	w := newWall(f.read)
	for _, i := range []Instant{0, 1, 4_000_000_000, -70_000_000_000} {
		if got := w.Instant(w.Time(i)); got != i {
			t.Errorf("instant %d becomes %d", i, got)
		}
	}
}

// An instant is the same moment of the wall clock however often the clocks were read
// since: an event of the closing repeats the time of the opening.
func TestWallIsConsistent(t *testing.T) {
	f := &fakeClocks{boot: 1_000_000, offset: 5_000_000, earlier: 10, later: 90}
	w := newWall(f.read)
	opened := Instant(f.boot)
	before := w.Time(opened)
	f.earlier, f.later = 1, 70 // more exact, and it contradicts no earlier reading
	f.boot += int64(time.Minute)
	f.stamp(w)
	if f.readings < 2 {
		t.Fatalf("the clocks were read %d times", f.readings)
	}
	if after := w.Time(opened); !after.Equal(before) {
		t.Errorf("%v, before %v", after, before)
	}
	if back := w.Instant(before); back != opened {
		t.Errorf("the instant of %v is %d, want %d", before, back, opened)
	}
}

// What waits by Rest wakes at multiples of its interval, and not twice at one.
func TestRest(t *testing.T) {
	const interval = 160 * time.Millisecond
	for range 200 {
		before := Now()
		rest := Rest(interval)
		after := Now()
		if rest < interval/16 || rest > interval+interval/16 {
			t.Fatalf("rest %s, want about up to %s", rest, interval)
		}
		if early, late := time.Duration(before)+rest, time.Duration(after)+rest; early/interval == late/interval && early%interval != 0 && late-early < interval && late%interval > late-early {
			t.Fatalf("it ends between %s and %s, want a multiple of %s there", early, late, interval)
		}
		time.Sleep(time.Millisecond) // another moment to begin with
	}
}
