package controller

import (
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

// flush waits, for flushTime at most, until the tracker has what eBPF has told
// so far. A snapshot that was taken before then knows no socket earlier than
// eBPF, and only finds what that has missed.
func (r *factReader) flush() {
	done := make(chan struct{})
	r.mutex.Lock()
	r.flushes.next = append(r.flushes.next, done)
	r.startFlush()
	r.mutex.Unlock()
	late := time.NewTimer(flushTime)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
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
