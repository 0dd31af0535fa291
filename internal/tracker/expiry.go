package tracker

import (
	"container/heap"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// SetGrace changes the close grace, also for endpoints that wait for its end.
func (t *Tracker) SetGrace(closeGrace time.Duration) { t.grace = closeGrace }

// Expire appends a closed change for each endpoint whose close grace has ended. Its cost
// does not depend on the number of those that wait longer.
func (t *Tracker) Expire(dst []Change, now clock.Instant) []Change {
	length := len(dst)
	for len(t.waiting) > 0 && now.Sub(t.waiting[0].closedAt) >= t.grace {
		e := t.waiting[0]
		dst = append(dst, e.change(model.Closed, e.closedAt, e.closedBy))
		t.forget(e)
	}
	slices.SortFunc(dst[length:], func(a, b Change) int { return a.Endpoint.Compare(b.Endpoint) })
	return dst
}

// NextExpiry returns when the next close grace ends, false if none runs.
func (t *Tracker) NextExpiry() (clock.Instant, bool) {
	if len(t.waiting) == 0 {
		return 0, false
	}
	return t.waiting[0].closedAt.Add(t.grace), true
}

// wait starts the close grace of an endpoint at a moment, or moves its start.
func (t *Tracker) wait(e *endpoint, at clock.Instant, source model.Source) {
	e.closedAt, e.closedBy = at, source
	if e.expiry == 0 {
		heap.Push(&t.waiting, e)
	} else {
		heap.Fix(&t.waiting, e.expiry-1)
	}
}

// wake stops the close grace of an endpoint, if it runs.
func (t *Tracker) wake(e *endpoint) {
	if e.expiry > 0 {
		heap.Remove(&t.waiting, e.expiry-1)
		t.woken = append(t.woken, e)
	}
}

// Woken appends, as opened changes, the endpoints that were opened again within their close
// grace since the last call, and are open. Their time is that of the first opening.
func (t *Tracker) Woken(dst []Change) []Change {
	for _, e := range t.woken {
		if t.endpoints[e.key] == e && !e.isWaiting() {
			dst = append(dst, e.change(model.Opened, e.openedAt, e.source))
		}
	}
	clear(t.woken)
	t.woken = t.woken[:0]
	return dst
}

// isWaiting reports whether the close grace of the endpoint runs.
func (e *endpoint) isWaiting() bool { return e.expiry > 0 }

// expiries is a heap of the endpoints whose close grace runs, by the time of their close.
// The grace is the same for all.
type expiries []*endpoint

func (x expiries) Len() int           { return len(x) }
func (x expiries) Less(i, j int) bool { return x[i].closedAt.Before(x[j].closedAt) }

func (x expiries) Swap(i, j int) {
	x[i], x[j] = x[j], x[i]
	x[i].expiry, x[j].expiry = i+1, j+1
}

// Push is part of [heap.Interface].
func (x *expiries) Push(e any) {
	waiting := e.(*endpoint)
	*x = append(*x, waiting)
	waiting.expiry = len(*x)
}

// Pop is part of [heap.Interface].
func (x *expiries) Pop() any {
	last := len(*x) - 1
	e := (*x)[last]
	(*x)[last] = nil
	*x = (*x)[:last]
	e.expiry = 0
	return e
}
