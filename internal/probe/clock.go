package probe

import "time"

// resampleAfter is how old a reading of the clocks may be when an event is
// newer: a step of the wall clock is noticed within it.
const resampleAfter = 100 * time.Millisecond

// reading is the wall clock read between two readings of the boot clock, all in
// nanoseconds.
type reading struct {
	before, wall, after int64
}

// clock turns stamps of CLOCK_BOOTTIME into wall-clock time.
//
// Both clocks come from the kernel's one timekeeper and differ by a number that
// changes only when the wall clock is set: frequency corrections act on both. A
// reading bounds that number from both sides. As long as the readings agree,
// their bounds are intersected, and the number gets more exact with each; when
// one contradicts the bounds, the clock was set, and it alone counts.
//
// A clock is not safe for concurrent use.
type clock struct {
	read      func() (reading, error)
	low, high int64 // bounds of wall minus boot
	sampled   int64 // boot time of the last reading; 0 before the first
}

// sample reads the clocks.
func (c *clock) sample() error {
	r, err := c.read()
	if err != nil {
		return err
	}
	low, high := r.wall-r.after, r.wall-r.before
	if c.sampled != 0 && max(low, c.low) <= min(high, c.high) {
		low, high = max(low, c.low), min(high, c.high)
	}
	c.low, c.high, c.sampled = low, high, r.after
	return nil
}

// time returns the wall-clock time of a boot-clock stamp.
func (c *clock) time(boot uint64) (time.Time, error) {
	stamp := int64(boot)
	if c.sampled == 0 || stamp-c.sampled > int64(resampleAfter) {
		if err := c.sample(); err != nil {
			return time.Time{}, err
		}
	}
	return time.Unix(0, stamp+c.low+(c.high-c.low)/2).UTC(), nil
}
