// Package clock measures time on the host's boot clock.
//
// The wall clock can be set while portwatcher runs, back as well as forward. Whatever
// the program compares, orders or waits for is therefore an [Instant] of
// CLOCK_BOOTTIME, which never steps and which eBPF programs read too. Only an
// event that leaves the capture has wall-clock time; see [Wall]. Functions and the
// methods of Instant are safe for concurrent use.
package clock

import (
	"context"
	"time"
)

// Instant is a moment on the boot clock, in nanoseconds since the host was started.
// Zero is an unknown moment. A wall-clock time of an earlier boot becomes negative.
type Instant int64

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from other to i.
func (i Instant) Sub(other Instant) time.Duration { return time.Duration(i - other) }

// Before reports whether i is earlier than other.
func (i Instant) Before(other Instant) bool { return i < other }

// After reports whether i is later than other.
func (i Instant) After(other Instant) bool { return i > other }

// IsZero reports whether the instant is unknown.
func (i Instant) IsZero() bool { return i == 0 }

// Since returns the time from an instant to now.
func Since(i Instant) time.Duration { return Now().Sub(i) }

// Rest returns the time until the next multiple of an interval on the boot clock. What waits
// like this, for intervals that are multiples of each other, shares its wake-ups of the
// process: on an idle machine they are most of what portwatcher costs.
func Rest(interval time.Duration) time.Duration {
	rest := interval - time.Duration(Now())%interval
	if rest < interval/16 { // a timer that fired early
		rest += interval
	}
	return rest
}

// StoppedTimer returns a timer that does not run before its first Reset.
func StoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// Sleep waits. It returns false where ctx ended before.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
