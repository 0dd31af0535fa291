package server

import (
	"context"
	"sync/atomic"
	"time"
)

// slots bound how many do something at one time. Their number is the capacity.
type slots chan struct{}

func newSlots(most int) slots { return make(slots, most) }

// tryEnter takes a slot if one is free.
func (s slots) tryEnter() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// enter takes a slot, or returns false when none was free in time or ctx ended.
func (s slots) enter(ctx context.Context, patience time.Duration) bool {
	if s.tryEnter() {
		return true
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case s <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (s slots) leave() { <-s }

type counter = atomic.Uint64
