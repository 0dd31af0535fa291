// Package clock measures time on the host's boot clock.
//
// The wall clock can be set while portwatcher runs, back as well as forward. All
// that is compared, ordered or waited for inside is therefore an [Instant] of
// CLOCK_BOOTTIME, which never steps and which eBPF programs read too. Only an
// event that leaves the capture carries wall-clock time; see [Wall].
//
// It knows nothing else of the project.
package clock

import "time"

// Instant is a moment on the boot clock, in nanoseconds since the host was
// started. The zero value means "not known". An Instant of before the start of
// the host, which a wall-clock time of an earlier boot becomes, is negative.
type Instant int64

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from other to i.
func (i Instant) Sub(other Instant) time.Duration { return time.Duration(i - other) }

// Before says whether i is earlier than other.
func (i Instant) Before(other Instant) bool { return i < other }

// After says whether i is later than other.
func (i Instant) After(other Instant) bool { return i > other }

// IsZero says whether the instant is not known.
func (i Instant) IsZero() bool { return i == 0 }

// Since returns the time from an instant to now.
func Since(i Instant) time.Duration { return Now().Sub(i) }

// Until returns the time from now to an instant.
func Until(i Instant) time.Duration { return i.Sub(Now()) }
