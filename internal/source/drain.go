package source

import (
	"context"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/sockdiag"
)

const (
	postponeTime      = 500 * time.Millisecond
	maxPostponed      = 60
	maxPostponedFirst = 4 // before anything is known of the namespace
)

// inOrder waits until the capture has what the kernel reported before a snapshot: a
// snapshot that comes first would open what is about to be reported, and hide all that
// happened there before. Where that takes too long it returns false, and requests another
// scan; after maxPostponed times it returns true.
func (w *Watcher) inOrder(ctx context.Context) (bool, error) {
	done := true
	switch reader := w.env.Prober.Load(); {
	case w.receiver != nil:
		if err := w.receive(); err != nil {
			return false, err
		}
		if done = w.receiver.listener.Empty(); int64(clock.Now()) < w.env.lateUntil.Load() {
			done = w.drainSoon(ctx)
		}
	case reader != nil && w.session.exact:
		done = reader.flushSoon(ctx)
	}
	if done {
		w.postponed = 0
		return true, nil
	}
	limit := maxPostponed
	if w.LastScan().IsZero() {
		limit = maxPostponedFirst
	}
	if w.postponed++; w.postponed > limit {
		w.postponed = 0
		return true, nil
	}
	time.AfterFunc(postponeTime, w.Poke)
	return false, nil
}

// drainSoon drains for the time that a scan may wait. The first scan, which shows what is
// open, waits for a short time only.
func (w *Watcher) drainSoon(ctx context.Context) (done bool) {
	limit := drainTime
	if w.LastScan().IsZero() {
		limit = flushTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := clock.Now()
	done = w.drain(ctx)
	if now := clock.Now(); !done || now.Sub(began) > caughtUp {
		w.env.lateUntil.Store(int64(now.Add(lateTime)))
	}
	return done
}

// drain sends the notifications of all earlier closes, also those that have not arrived:
// the kernel sends them from a work queue of each processor, and delays them while the
// buffer is more than half full. It returns false where ctx ends before.
func (w *Watcher) drain(ctx context.Context) (done bool) {
	r := w.receiver
	if r == nil {
		return true
	}
	onItsWay := func(fence uint64) bool { _, waits := r.fences[fence]; return waits }
	for {
		newest := w.fence()
		for r.overran = false; !r.overran || !r.listener.Empty(); {
			if err := w.receive(); err != nil {
				w.Retune()
				return false
			}
			if r.listener.Empty() && !slices.ContainsFunc(newest, onItsWay) {
				w.settle()
				return true
			}
			if !clock.Sleep(ctx, caughtUp/6) {
				return false
			}
		}
		// A fence may have been dropped: make others.
	}
}

// fence makes the kernel send notifications with known cookies, after all others.
func (w *Watcher) fence() (cookies []uint64) {
	r := w.receiver
	cookies, err := sockdiag.Fence(r.handle.Do)
	if err != nil && w.env.Notices.First("fence") {
		w.env.Logger.WithError(err).Warn("It cannot be determined whether all destroy notifications of a network namespace have arrived: the last ones before the end of a container may be missed.")
	}
	for _, cookie := range cookies {
		r.fences[cookie] = struct{}{}
	}
	return cookies
}

// settle accounts for what the kernel dropped, when the newest fences have arrived: the
// older fences are among it, and the rest is reported.
func (w *Watcher) settle() {
	r := w.receiver
	fences := uint64(len(r.fences))
	clear(r.fences)
	if dropped, err := r.listener.Dropped(); err == nil && dropped > r.dropped {
		r.dropped += min(fences, dropped-r.dropped)
	}
	if lost, known := r.lost(); known && lost > 0 {
		w.sendOverrun(lost)
	}
}
