package server

import (
	"context"
	"sync"
	"time"
)

// stalledAfter is how long a write has to last before its answer may be broken off
// for another.
const stalledAfter = 250 * time.Millisecond

// budget bounds the bytes of the answers that wait for clients to read them. Where
// it is used up, the answer whose client has taken nothing for longest is broken
// off.
type budget struct {
	most int // bytes

	mutex   sync.Mutex
	used    int
	answers map[*answer]struct{}
	freed   chan struct{} // closed when bytes are given back
}

// answer is one answer that is sent. A nil *conn cannot be broken off.
type answer struct {
	budget *budget
	conn   *conn
	body   *body

	// Guarded by budget.mutex.
	stalled time.Time // since when the present write lasts; zero between writes
	broken  bool
}

// body is what answers hold in memory: several can share one.
type body struct {
	size    int
	holders int // guarded by budget.mutex
}

func newBudget(most int) *budget {
	return &budget{most: most, answers: map[*answer]struct{}{}, freed: make(chan struct{})}
}

// hold waits until there is room for a body, at most for the patience. It returns
// nil where there is none in time. The caller releases the answer.
func (b *budget) hold(ctx context.Context, c *conn, what *body, patience time.Duration) *answer {
	one := &answer{budget: b, conn: c, body: what}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		victim, freed, held := b.tryHold(one)
		if held {
			return one
		}
		if victim != nil {
			victim.conn.abort()
		}
		// Another answer may become one that can be broken off.
		timer := time.NewTimer(stalledAfter)
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

func (b *budget) tryHold(one *answer) (victim *answer, freed <-chan struct{}, held bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	// What is larger than all has its turn when it is alone.
	if one.body.holders > 0 || b.used == 0 || b.used+one.body.size <= b.most {
		if one.body.holders == 0 {
			b.used += one.body.size
		}
		one.body.holders++
		b.answers[one] = struct{}{}
		return nil, nil, true
	}
	before := time.Now().Add(-stalledAfter)
	for other := range b.answers {
		if !other.broken && other.conn != nil && !other.stalled.IsZero() && other.stalled.Before(before) {
			victim, before = other, other.stalled
		}
	}
	if victim != nil {
		victim.broken = true
	}
	return victim, b.freed, false
}

// release gives back what an answer held.
func (a *answer) release() {
	b := a.budget
	b.mutex.Lock()
	defer b.mutex.Unlock()
	delete(b.answers, a)
	if a.body.holders--; a.body.holders > 0 {
		return
	}
	b.used -= a.body.size
	close(b.freed)
	b.freed = make(chan struct{})
}

// writing notes that a write begins, or has ended.
func (a *answer) writing(begins bool) {
	a.budget.mutex.Lock()
	defer a.budget.mutex.Unlock()
	a.stalled = time.Time{}
	if begins {
		a.stalled = time.Now()
	}
}
