package tracker

import "portwatcher/internal/clock"

const (
	// keepEndings is the least time for which the end of a socket is remembered: a snapshot
	// that took up to a second needs those from settleTime before it began.
	keepEndings = 2 * settleTime
	// maxEndings bounds a generation of tombstones, and so the memory of a namespace to
	// some 10 MB. Only more than 65,000 closings a second for a while reach it.
	maxEndings = 1 << 17
)

// ending is how a socket closed.
type ending struct {
	at    clock.Instant
	exact bool // false where a snapshot lacked it
}

// tombstones remember closes for keepEndings at least and twice that at most, and never
// more than twice maxEndings of them. They may be added in any order in time. The zero
// value is ready.
type tombstones[K comparable] struct {
	recent, older generation[K]
	since         clock.Instant // newest when recent was begun
	newest        clock.Instant
	// forgotten is the time of the latest forgotten ending.
	forgotten clock.Instant
}

// generation are endings of which the newest is of the time newest.
type generation[K comparable] struct {
	endings map[K]ending
	newest  clock.Instant
}

// add remembers an ending. Of two endings of the same key an exact one counts, and of
// two exact ones the later.
func (t *tombstones[K]) add(key K, e ending) {
	if known, ok := t.get(key); ok && known.exact && e.exact && known.at.After(e.at) {
		return
	}
	t.newest = max(t.newest, e.at)
	if t.recent.endings == nil || t.newest.Sub(t.since) > keepEndings || len(t.recent.endings) >= maxEndings {
		t.forget(&t.older)
		t.older, t.recent, t.since = t.recent, generation[K]{endings: map[K]ending{}}, t.newest
	}
	t.recent.endings[key] = e
	t.recent.newest = max(t.recent.newest, e.at)
}

func (t *tombstones[K]) forget(g *generation[K]) {
	t.forgotten = max(t.forgotten, g.newest)
	*g = generation[K]{}
}

func (t *tombstones[K]) get(key K) (ending, bool) {
	e, ok := t.recent.endings[key]
	if !ok {
		e, ok = t.older.endings[key]
	}
	return e, ok
}

// prune forgets all endings when the newest is old.
func (t *tombstones[K]) prune(now clock.Instant) {
	if now.Sub(t.newest) > keepEndings {
		t.forget(&t.older)
		t.forget(&t.recent)
	}
}

// outdates reports whether a snapshot that began at this moment may show a socket that
// has closed since: the close is remembered, or would be forgotten by now.
func (t *tombstones[K]) outdates(key K, began clock.Instant) bool {
	settled := began.Add(-settleTime)
	if !t.forgotten.IsZero() && t.forgotten.After(settled) {
		return true
	}
	e, ok := t.get(key)
	return ok && (e.exact && e.at.After(settled) || e.at.After(began))
}

// late reports whether a socket that opened at this moment has closed after it. A socket
// that listens again opens after its close.
func (t *tombstones[K]) late(key K, opened clock.Instant) bool {
	e, ok := t.get(key)
	return ok && !e.at.Before(opened)
}
