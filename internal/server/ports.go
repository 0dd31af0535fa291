package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"portwatcher/internal/port"
	"portwatcher/internal/server/api"
)

// maxWait bounds wait=.
const maxWait = 10 * time.Minute

func (s *Server) getPorts(w http.ResponseWriter, r *http.Request, p *parameters) error {
	filter, at := p.filter(), p.time("at")
	wait, waits := p.duration("wait", maxWait)
	if !at.IsZero() && waits {
		p.wrong("wait", p.values.Get("wait"), "waits for what is open now, without at=")
	}
	if err := p.problem(); err != nil {
		return err
	}
	if waits {
		// The time to send begins when there is something to send. A connection that
		// is gone is noticed then.
		sending := http.NewResponseController(w)
		_ = sending.SetWriteDeadline(time.Time{})
		err := s.await(r.Context(), &filter, wait)
		_ = sending.SetWriteDeadline(time.Now().Add(s.limits.sendTime))
		if err != nil {
			return err
		}
	}
	return s.reply(w, r, func() (any, error) {
		if at.IsZero() {
			return api.Ports{Time: time.Now().UTC(), Ports: s.open(&filter)}, nil
		}
		return s.openAt(r.Context(), &filter, at)
	})
}

// open returns what is open now and wanted; it is not nil.
func (s *Server) open(filter *Filter) []port.Open { return keepWanted(s.Capture.Open(), filter) }

func keepWanted(open []port.Open, filter *Filter) []port.Open {
	open = slices.DeleteFunc(open, func(o port.Open) bool { return !filter.Listener(&o.Listener) })
	if open == nil {
		return []port.Open{}
	}
	return open
}

func (s *Server) openAt(ctx context.Context, filter *Filter, at time.Time) (answer api.Ports, err error) {
	err = s.query(ctx, func(ctx context.Context) error {
		open, watching, err := s.History.At(ctx, at)
		answer = api.Ports{Time: at, Ports: keepWanted(open, filter), Watching: &watching}
		return err
	})
	return answer, err
}

// await returns nil as soon as something open is wanted.
func (s *Server) await(ctx context.Context, filter *Filter, wait time.Duration) error {
	if !s.waits.tryEnter() {
		return newProblem(http.StatusServiceUnavailable, fmt.Sprintf("%d requests wait already", cap(s.waits)))
	}
	defer s.waits.leave()
	// Woken for what comes from now on: what is there already is seen below.
	woken, leave := s.waiters.join(filter)
	defer leave()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		if len(s.open(filter)) > 0 {
			return nil
		}
		select {
		case <-woken:
		case <-timer.C:
			return newProblem(http.StatusRequestTimeout, fmt.Sprintf("waited %s, and no open port matched", wait))
		case <-s.stopping:
			return newProblem(http.StatusServiceUnavailable, "portwatcher stops")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waiters are those that wait for a port to open. The zero value has none.
type waiters struct {
	count   atomic.Int64 // of waiting, so that events cost nothing without any
	mutex   sync.Mutex
	waiting map[*waiter]struct{}
}

type waiter struct {
	filter *Filter
	woken  chan struct{} // has room for one
}

// join returns a channel that tells when it is worth to look again.
func (w *waiters) join(filter *Filter) (woken <-chan struct{}, leave func()) {
	one := &waiter{filter: filter, woken: make(chan struct{}, 1)}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.waiting == nil {
		w.waiting = map[*waiter]struct{}{}
	}
	w.waiting[one] = struct{}{}
	w.count.Add(1)
	return one.woken, func() {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		delete(w.waiting, one)
		w.count.Add(-1)
	}
}

// event wakes those whose port it may be. A gap wakes all: what they wait for
// may have opened in it.
func (w *waiters) event(e *port.Event) {
	if e.Type == port.Closed || w.count.Load() == 0 {
		return
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for one := range w.waiting {
		if e.Type == port.Gap || one.filter.Listener(&e.Listener) {
			select {
			case one.woken <- struct{}{}:
			default: // it has not looked since the last time
			}
		}
	}
}
