package server

import (
	"context"
	"sync"
	"time"
)

// stalledAfter is how long a write has to last before its connection may be closed to make room
// for another answer.
const stalledAfter = 250 * time.Millisecond

// budget bounds the bytes of the answers that wait for clients to read them. Where it is used
// up, it closes the connection whose present write has lasted longest.
type budget struct {
	most int // bytes

	mutex    sync.Mutex
	used     int
	holdings map[*holding]struct{}
	freed    chan struct{} // closed when bytes are released
}

// holding is one answer that is being sent. Where conn is nil, it cannot be closed.
type holding struct {
	budget *budget
	conn   *conn
	body   *body

	// Guarded by budget.mutex.
	stalled time.Time // since when the present write lasts; zero between writes
	closed  bool
}

// body is the memory of answers: several can share one.
type body struct {
	size    int
	holders int // guarded by budget.mutex
}

func newBudget(most int) *budget {
	return &budget{most: most, holdings: map[*holding]struct{}{}, freed: make(chan struct{})}
}

// hold waits for room for a body, at most for the patience. It returns nil where there is none
// in time, or ctx ended. The caller releases the holding.
func (b *budget) hold(ctx context.Context, c *conn, what *body, patience time.Duration) *holding {
	held := &holding{budget: b, conn: c, body: what}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		victim, freed, ok := b.tryHold(held)
		if ok {
			return held
		}
		if victim != nil {
			victim.conn.abort()
		}
		timer := time.NewTimer(stalledAfter) // by then another write may have stalled
		select {
		case <-freed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (b *budget) tryHold(held *holding) (victim *holding, freed <-chan struct{}, ok bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	// A body that is larger than the budget is held alone.
	if held.body.holders > 0 || b.used == 0 || b.used+held.body.size <= b.most {
		if held.body.holders == 0 {
			b.used += held.body.size
		}
		held.body.holders++
		b.holdings[held] = struct{}{}
		return nil, nil, true
	}
	before := time.Now().Add(-stalledAfter)
	for other := range b.holdings {
		if !other.closed && other.conn != nil && !other.stalled.IsZero() && other.stalled.Before(before) {
			victim, before = other, other.stalled
		}
	}
	if victim != nil {
		victim.closed = true
	}
	return victim, b.freed, false
}

func (h *holding) release() {
	b := h.budget
	b.mutex.Lock()
	defer b.mutex.Unlock()
	delete(b.holdings, h)
	if h.body.holders--; h.body.holders > 0 {
		return
	}
	b.used -= h.body.size
	close(b.freed)
	b.freed = make(chan struct{})
}

// writing marks that a write begins, or has ended.
func (h *holding) writing(begins bool) {
	h.budget.mutex.Lock()
	defer h.budget.mutex.Unlock()
	h.stalled = time.Time{}
	if begins {
		h.stalled = time.Now()
	}
}

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
