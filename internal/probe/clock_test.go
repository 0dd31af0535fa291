package probe

import (
	"errors"
	"testing"
	"time"
)

// fakeClocks are a boot clock and a wall clock that is offset nanoseconds ahead.
type fakeClocks struct {
	boot, offset    int64
	earlier, later  int64 // how far from the wall clock's reading the others are
	readings, fails int
}

func (f *fakeClocks) read() (reading, error) {
	if f.fails > 0 {
		f.fails--
		return reading{}, errors.New("no clock")
	}
	f.readings++
	return reading{f.boot - f.earlier, f.boot + f.offset, f.boot + f.later}, nil
}

func (f *fakeClocks) stamp(t *testing.T, c *clock) int64 {
	t.Helper()
	at, err := c.time(uint64(f.boot))
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixNano()
}

func TestClockConvergesAndFollowsSteps(t *testing.T) {
	const epoch = 1_700_000_000_000_000_000
	f := &fakeClocks{boot: 5_000_000_000, offset: epoch, earlier: 400, later: 100}
	c := &clock{read: f.read}

	if off := f.stamp(t, c) - f.boot - epoch; off < -400 || off > 400 {
		t.Errorf("first stamp is off by %d ns, want within the reading's 400", off)
	}
	// A reading with its slack on the other side leaves 100 ns on each.
	f.boot += int64(time.Second)
	f.earlier, f.later = 100, 400
	if off := f.stamp(t, c) - f.boot - epoch; off < -1 || off > 1 {
		t.Errorf("after two readings the stamp is off by %d ns, want 0", off)
	}
	// A wide reading must not make it worse.
	f.boot += int64(time.Second)
	f.earlier, f.later = 50, 90_000
	if off := f.stamp(t, c) - f.boot - epoch; off < -100 || off > 100 {
		t.Errorf("a wide reading moved the stamp by %d ns", off)
	}
	// The clock is set back an hour.
	f.boot += int64(time.Second)
	f.offset -= int64(time.Hour)
	f.earlier, f.later = 50, 50
	if off := f.stamp(t, c) - f.boot - f.offset; off < -50 || off > 50 {
		t.Errorf("after the clock was set, the stamp is off by %d ns", off)
	}
}

func TestClockReadsRarely(t *testing.T) {
	f := &fakeClocks{boot: 5_000_000_000, earlier: 50, later: 50}
	c := &clock{read: f.read}
	for range 1000 {
		f.stamp(t, c)
		f.boot += 50_000
	}
	if f.readings != 1 {
		t.Errorf("%d readings for 50 ms of events, want 1", f.readings)
	}
}

func TestClockReportsFailure(t *testing.T) {
	f := &fakeClocks{boot: 5_000_000_000, fails: 1}
	c := &clock{read: f.read}
	if _, err := c.time(1); err == nil {
		t.Error("no error from a clock that cannot be read")
	}
}
