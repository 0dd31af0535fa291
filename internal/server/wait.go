package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"portwatcher/internal/model"
)

const (
	// maxWait bounds wait=.
	maxWait = 10 * time.Minute

	// matchPause is the time between two times that what opened is compared with
	// what requests wait for, and matchShare how often longer than that comparing
	// took the pause is at least: it takes a tenth of a core at most.
	matchPause = 20 * time.Millisecond
	matchShare = 9
)

// await returns a view in which something open is wanted, as soon as there is one.
func (s *Server) await(ctx context.Context, filter *model.Filter, wait time.Duration) (*model.View, error) {
	if !s.waits.tryEnter() {
		return nil, newProblem(http.StatusServiceUnavailable, fmt.Sprintf("%d requests wait already", cap(s.waits)))
	}
	defer s.waits.leave()
	one := s.waiters.join(filter)
	defer s.waiters.leave(one)
	// What opens from now on is compared by the waiters.
	view := s.Capture.View()
	matcher := filter.Matcher(view.Named)
	if slices.ContainsFunc(view.Open, func(o model.Open) bool { return matcher.Listener(&o.Listener) }) {
		return view, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-one.found:
		return one.view, nil
	case <-timer.C:
		return nil, newProblem(http.StatusRequestTimeout, fmt.Sprintf("waited %s, and no open port matched", wait))
	case <-s.stopping:
		return nil, newProblem(http.StatusServiceUnavailable, "portwatcher stops")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// waiters are the requests that wait for a port to open. One goroutine compares
// what opened since the last time with what they wait for, at a bounded rate, and
// once for all that wait for the same. An event costs one send to a channel,
// however many wait.
type waiters struct {
	view    func() *model.View
	changed chan struct{} // has room for one: something may have opened

	mutex   sync.Mutex
	waiting map[string]*waiter // by what they wait for
	// last is the view up to which was compared; nil while nobody waits.
	last *model.View
}

// waiter is what one or more requests wait for.
type waiter struct {
	key      string
	filter   *model.Filter
	requests int           // guarded by waiters.mutex
	found    chan struct{} // closed when it is open
	view     *model.View   // in which it is open; set before found is closed
}

func newWaiters(view func() *model.View) *waiters {
	return &waiters{view: view, changed: make(chan struct{}, 1), waiting: map[string]*waiter{}}
}

// join adds a request. What is open already is not compared for it.
func (w *waiters) join(filter *model.Filter) *waiter {
	key := filter.String()
	view := w.view() // before the request takes its own
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if len(w.waiting) == 0 {
		w.last = view
	}
	one := w.waiting[key]
	if one == nil {
		one = &waiter{key: key, filter: filter, found: make(chan struct{})}
		w.waiting[key] = one
	}
	one.requests++
	return one
}

func (w *waiters) leave(one *waiter) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if one.requests--; one.requests == 0 && w.waiting[one.key] == one {
		delete(w.waiting, one.key)
	}
	if len(w.waiting) == 0 {
		w.last = nil
	}
}

// wake makes the waiters compare. It does not block.
func (w *waiters) wake() {
	select {
	case w.changed <- struct{}{}:
	default: // they have not compared since the last time
	}
}

// run compares when something may have changed, until ctx ends.
func (w *waiters) run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-w.changed:
		case <-ctx.Done():
			return
		}
		// Twice: the view that has an event may be published after it.
		for range 2 {
			began := time.Now()
			w.compare()
			pause.Reset(max(matchPause, matchShare*time.Since(began)))
			select {
			case <-pause.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// compare lets go of those whose port is open now and was not the last time.
func (w *waiters) compare() {
	view := w.view()
	w.mutex.Lock()
	last, waiting := w.last, make([]*waiter, 0, len(w.waiting))
	for _, one := range w.waiting {
		waiting = append(waiting, one)
	}
	if last != nil {
		w.last = view
	}
	w.mutex.Unlock()
	if last == nil || view.Version == last.Version {
		return
	}
	opened := opened(last.Open, view.Open)
	for _, one := range waiting {
		matcher := one.filter.Matcher(view.Named)
		if slices.ContainsFunc(opened, func(o *model.Open) bool { return matcher.Listener(&o.Listener) }) {
			w.found(one, view)
		}
	}
}

func (w *waiters) found(one *waiter, view *model.View) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.waiting[one.key] == one { // nobody joins it from now on
		delete(w.waiting, one.key)
	}
	one.view = view
	close(one.found)
	if len(w.waiting) == 0 {
		w.last = nil
	}
}

// opened returns what is in now and was not in before, or was different in what a
// filter compares. Both are in the order of [model.View.Open]; where they are not,
// more is returned.
func opened(before, now []model.Open) (opened []*model.Open) {
	i := 0
	for j := range now {
		for i < len(before) && order(&before[i].Listener, &now[j].Listener) < 0 {
			i++
		}
		if i < len(before) && alike(&before[i].Listener, &now[j].Listener) {
			i++
			continue
		}
		opened = append(opened, &now[j])
	}
	return opened
}

// order is that of [model.View.Open].
func order(a, b *model.Listener) int {
	return cmp.Or(
		cmp.Compare(containerName(a), containerName(b)), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Protocol, b.Protocol), a.Address.Compare(b.Address),
	)
}

// alike says whether two are the same to every [model.Filter].
func alike(a, b *model.Listener) bool {
	if a.Container != b.Container && (a.Container == nil || b.Container == nil || !a.Container.Same(b.Container)) {
		return false
	}
	return a.Port == b.Port && a.Protocol == b.Protocol && a.Address == b.Address && a.Exposure == b.Exposure
}

func containerName(l *model.Listener) string {
	if l.Container == nil {
		return ""
	}
	return l.Container.Name
}

// count returns how many wait for different things.
func (w *waiters) count() int {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return len(w.waiting)
}
