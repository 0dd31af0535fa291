package server

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

const (
	// maxWait bounds wait=.
	maxWait = 10 * time.Minute

	// readInterval is the time between two comparisons with what all containers have open: one may
	// end without an event.
	readInterval = time.Second

	// matchPause is the least time between two comparisons of what opened with what requests
	// wait for. The pause is also at least matchShare times as long as the comparison took, so
	// that comparing takes a tenth of a core at most.
	matchPause = 20 * time.Millisecond
	matchShare = 9
)

// await returns a view in which so many containers have an open endpoint that the filter selects,
// as soon as there is one.
func (s *Server) await(ctx context.Context, filter *model.Filter, count model.Count, wait time.Duration) (*model.View, error) {
	if !s.waits.tryEnter() {
		return nil, newProblem(http.StatusServiceUnavailable, fmt.Sprintf("%d requests wait already", cap(s.waits)))
	}
	defer s.waits.leave()
	w := s.waiters.join(filter, count)
	defer s.waiters.leave(w)
	// The waiters compare what opens from now on.
	if view := s.capture.View(); s.waiters.reached(w, view) {
		return view, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case view := <-w.found:
		return view, nil
	case <-timer.C:
		return nil, newProblem(http.StatusRequestTimeout, fmt.Sprintf("waited %s, and no open port matched", wait))
	case <-s.stopping:
		return nil, newProblem(http.StatusServiceUnavailable, "portwatcher stops")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// waiters are the requests that wait for a port to open. One goroutine compares what opened since
// the last time with what they wait for, at a bounded rate. An event costs one send to a channel,
// however many wait.
type waiters struct {
	view    func() *model.View
	ready   func() error  // see [Capture]
	changed chan struct{} // has room for one: something may have opened

	mutex   sync.Mutex
	waiting map[*waiter]struct{}
	// last is the view up to which was compared; nil while nobody waits.
	last *model.View
}

// waiter is one request.
type waiter struct {
	filter *model.Filter
	count  model.Count
	found  chan *model.View // has room for one: a view with what it waits for
}

func newWaiters(view func() *model.View, ready func() error) *waiters {
	return &waiters{view: view, ready: ready, changed: make(chan struct{}, 1), waiting: map[*waiter]struct{}{}}
}

// join adds a request. It is not compared with what is open already.
func (w *waiters) join(filter *model.Filter, count model.Count) *waiter {
	one := &waiter{filter: filter, count: count, found: make(chan *model.View, 1)}
	view := w.view() // before the request reads its own
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if len(w.waiting) == 0 {
		w.last = view
	}
	w.waiting[one] = struct{}{}
	return one
}

func (w *waiters) leave(one *waiter) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.waiting, one)
	if len(w.waiting) == 0 {
		w.last = nil
	}
}

func (w *waiters) wake() {
	select {
	case w.changed <- struct{}{}:
	default: // one is due already
	}
}

// reached reports whether a request has in a view what it waits for.
func (w *waiters) reached(one *waiter, view *model.View) bool {
	// Which containers are all is known as soon as all are watched.
	return one.count.Reached(view, one.filter.Matcher(view.Named)) && (one.count != model.EveryContainer || w.ready() == nil)
}

// run compares when something may have changed, until ctx ends.
func (w *waiters) run(ctx context.Context) {
	again := time.NewTicker(readInterval)
	defer again.Stop()
	for {
		select {
		case <-w.changed:
		case <-again.C:
			w.compareAll()
			continue
		case <-ctx.Done():
			return
		}
		for range 2 { // twice, because the view may be published after its event
			began := time.Now()
			w.compare()
			if !clock.Sleep(ctx, max(matchPause, matchShare*time.Since(began))) {
				return
			}
		}
	}
}

// compare ends the waits for what has opened since the last time.
func (w *waiters) compare() {
	view := w.view()
	w.mutex.Lock()
	last, waiting := w.last, slices.Collect(maps.Keys(w.waiting))
	if last != nil {
		w.last = view
	}
	w.mutex.Unlock()
	if last == nil || view.Version == last.Version {
		return
	}
	opened := newlyOpen(last.Open, view.Open)
	for _, one := range waiting {
		matcher := one.filter.Matcher(view.Named)
		more := slices.ContainsFunc(opened, func(o *model.Open) bool { return matcher.Open(o) })
		if more && (one.count.One() || w.reached(one, view)) {
			w.find(one, view)
		}
	}
}

// compareAll ends the waits for all containers, whose number may have changed.
func (w *waiters) compareAll() {
	w.mutex.Lock()
	waiting := slices.Collect(maps.Keys(w.waiting))
	w.mutex.Unlock()
	waiting = slices.DeleteFunc(waiting, func(one *waiter) bool { return one.count != model.EveryContainer })
	if len(waiting) == 0 {
		return
	}
	view := w.view()
	for _, one := range waiting {
		if w.reached(one, view) {
			w.find(one, view)
		}
	}
}

// find ends the wait of a request.
func (w *waiters) find(one *waiter, view *model.View) {
	w.leave(one) // so that it is found once
	one.found <- view
}

// newlyOpen returns the endpoints that are in now and not in before, or differ in what a filter
// compares.
func newlyOpen(before, now []model.Open) (opened []*model.Open) {
	known := make(map[model.Endpoint]*model.Listener, len(before))
	for i := range before {
		known[before[i].Endpoint()] = &before[i].Listener
	}
	for i := range now {
		if l := known[now[i].Endpoint()]; l == nil || !alike(l, &now[i].Listener) {
			opened = append(opened, &now[i])
		}
	}
	return opened
}

// alike reports whether two states of an endpoint are the same to every [model.Filter].
func alike(a, b *model.Listener) bool {
	return a.Exposure == b.Exposure && (a.Outside == b.Outside || a.Outside != nil && b.Outside != nil && *a.Outside == *b.Outside) &&
		(a.Container == b.Container || a.Container.Same(b.Container))
}

func (w *waiters) count() int {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return len(w.waiting)
}
