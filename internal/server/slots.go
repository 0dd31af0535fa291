package server

import (
	"context"
	"time"
)

// slots bound how many do something at one time. The capacity is their number.
type slots chan struct{}

func (s slots) tryEnter() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// enter takes a slot. It returns false where none is free in time, or ctx ends.
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
