package clock

import (
	"math"
	"time"
)

// resampleAfter is how much newer than the last reading an instant may be: a step of
// the wall clock has effect within it.
const resampleAfter = 100 * time.Millisecond

// reading is the wall clock read between two readings of the boot clock, all in
// nanoseconds.
type reading struct {
	before, wall, after int64
}

// Wall converts between instants and wall-clock time.
//
// Both clocks come from the kernel's one timekeeper. Their difference changes only when
// the wall clock is set: frequency corrections act on both. A reading gives bounds of the
// difference. While readings agree, Wall intersects their bounds; when one contradicts
// the others, the clock was set, and only that one counts. The difference in use changes
// only when the bounds exclude it, so that an instant always has the same wall-clock
// time.
//
// A Wall is not safe for concurrent use.
type Wall struct {
	read      func() reading
	low, high int64 // bounds of wall minus boot
	offset    int64 // between the bounds
	sampled   int64 // boot time of the last reading
}

// NewWall reads the clocks.
func NewWall() *Wall { return newWall(readClocks) }

func newWall(read func() reading) *Wall {
	w := &Wall{read: read, low: math.MinInt64, high: math.MaxInt64, offset: math.MinInt64}
	w.sample()
	return w
}

// sample reads the clocks again.
func (w *Wall) sample() {
	r := w.read()
	low, high := r.wall-r.after, r.wall-r.before
	if max(low, w.low) <= min(high, w.high) {
		low, high = max(low, w.low), min(high, w.high)
	}
	w.low, w.high, w.sampled = low, high, r.after
	if w.offset < low || w.offset > high {
		w.offset = low + (high-low)/2
	}
}

// readClocks returns the reading with the smallest interval of a few: one that was
// interrupted has a large one.
func readClocks() reading {
	var best reading
	for try := range 4 {
		r := reading{before: int64(Now()), wall: time.Now().UnixNano(), after: int64(Now())}
		if try == 0 || r.after-r.before < best.after-best.before {
			best = r
		}
	}
	return best
}

// Time returns the wall-clock time of an instant, in UTC, by the present wall clock. The
// zero instant is the zero time.
func (w *Wall) Time(i Instant) time.Time {
	if i == 0 {
		return time.Time{}
	}
	if int64(i)-w.sampled > int64(resampleAfter) {
		w.sample()
	}
	return time.Unix(0, int64(i)+w.offset).UTC()
}

// Instant returns the instant of a wall-clock time, by the present wall clock. The zero
// time is the zero instant.
func (w *Wall) Instant(t time.Time) Instant {
	if t.IsZero() {
		return 0
	}
	return Instant(t.UnixNano() - w.offset)
}
