package journal

import (
	"math"
	"math/bits"
	"time"

	"portwatcher/internal/model"
)

// The range of times that unix nanoseconds can express, about 1677 to 2262.
// Times beyond are taken as its ends; the lowest value stands for the zero
// time.
var earliestTime, latestTime = time.Unix(0, math.MinInt64+1), time.Unix(0, math.MaxInt64)

func nanos(t time.Time) int64 {
	switch {
	case t.IsZero():
		return math.MinInt64
	case t.Before(earliestTime):
		return math.MinInt64 + 1
	case t.After(latestTime):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func timeOf(nanos int64) time.Time {
	if nanos == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// spanOf says how long the endpoint of a closed event was open: the smallest n
// such that it was less than 2^n nanoseconds. told is false where the event
// does not tell of a time when it was open.
//
// An endpoint of span n that was open at t closed between t and t + 2^n: with
// the index on (span, time), a few short ranges hold all that was open at t.
func spanOf(e *model.Event) (n int64, told bool) {
	if e.Type != model.Closed || e.Transient || e.OpenedAt.IsZero() || !e.OpenedAt.Before(e.Time) {
		return 0, false
	}
	open := e.Time.Sub(e.OpenedAt)
	n = int64(bits.Len64(uint64(open)))
	return n, n <= spanMost
}

// spanMost is the longest span, 2^62 nanoseconds or 146 years: a time may be
// added to it.
const spanMost = 62
