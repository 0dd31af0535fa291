package controller

import (
	"context"
	"time"
)

// flushTime is how long a snapshot waits at most for what eBPF has told before
// it: longer only in a storm.
const flushTime = 250 * time.Millisecond

// flushes are those who wait until the events of before their asking are taken
// over. One flush of the probe is under way at a time: it answers those who
// asked before it began.
type flushes struct {
	next    []chan struct{} // wait for a flush that has not begun
	current []chan struct{} // wait for the one under way
	done    []chan struct{} // their events are in waiting
}

func (f *flushes) take() []chan struct{} {
	done := f.done
	f.done = nil
	return done
}

// flush waits, until ctx ends at most, until the tracker has what eBPF has told
// so far, and says whether it has. A snapshot that was taken before then knows no
// socket earlier than eBPF, and only finds what that has missed.
func (r *factReader) flush(ctx context.Context) (done bool) {
	flushed := make(chan struct{})
	r.mutex.Lock()
	r.flushes.next = append(r.flushes.next, flushed)
	r.startFlush()
	r.mutex.Unlock()
	select {
	case <-flushed:
		return true
	case <-r.stopped: // nothing more will come
		return true
	case <-ctx.Done():
		return false
	}
}

// flushSoon is flush for flushTime at most.
func (r *factReader) flushSoon() (done bool) {
	soon, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	return r.flush(soon)
}

// In a storm the tracker is behind what eBPF tells. A snapshot from the future
// would open what it is about to be told, and hide all that happened there
// before: it is put off, but not for ever.
const (
	postponeTime      = 500 * time.Millisecond
	maxPostponed      = 60
	maxPostponedFirst = 4 // before anything is known of the namespace
)

// inOrder waits until the tracker has what eBPF told before now. Where that
// takes too long it has the namespace scanned later, and returns false.
func (w *watcher) inOrder(facts *factReader) bool {
	if facts == nil || w.session.netnsCookie == 0 || facts.flushSoon() {
		w.postponed = 0
		return true
	}
	limit := maxPostponed
	if w.scannedAt().IsZero() {
		limit = maxPostponedFirst
	}
	if w.postponed++; w.postponed > limit {
		w.postponed = 0
		return true
	}
	time.AfterFunc(postponeTime, func() { signal(w.poke) })
	return false
}

// startFlush begins the next flush unless one is under way. The caller holds
// the lock.
func (r *factReader) startFlush() {
	f := &r.flushes
	if len(f.current) > 0 || len(f.next) == 0 {
		return
	}
	f.current, f.next = f.next, nil
	if err := r.probe.Flush(); err != nil { // the probe is closed: nothing more will come
		f.done, f.current = append(f.done, f.current...), nil
		signal(r.received)
	}
}

// flushed ends the flush under way: everything of before it is in waiting.
func (r *factReader) flushed() {
	r.mutex.Lock()
	f := &r.flushes
	f.done, f.current = append(f.done, f.current...), nil
	r.startFlush()
	r.mutex.Unlock()
	signal(r.received)
}
