package server

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
	"portwatcher/internal/server/api"
)

func (s *Server) getPorts(w http.ResponseWriter, r *http.Request, p *parameters) error {
	filter, at := p.filter(), p.time("at")
	wait, waits := p.duration("wait", maxWait)
	count, counts := p.containerCount()
	if counts && !waits {
		p.wrong("count", p.values.Get("count"), "with wait=")
	}
	if !at.IsZero() && waits {
		p.wrong("wait", p.values.Get("wait"), "waits for what is open now, without at=")
	}
	if err := p.problem(); err != nil {
		return err
	}
	if !at.IsZero() {
		return s.reply(w, r, func() (any, error) {
			open, err := s.openAt(r.Context(), &filter, at)
			if problem, ok := errors.AsType[*api.Problem](err); ok && problem.Parameter == "at" {
				problem.Value = p.values.Get("at")
			}
			return open, err
		})
	}
	view := s.capture.View()
	if waits {
		// The time to send begins when there is something to send. If the connection is closed,
		// writing fails.
		sending := http.NewResponseController(w)
		_ = sending.SetWriteDeadline(time.Time{})
		found, err := s.await(r.Context(), &filter, count, wait)
		_ = sending.SetWriteDeadline(time.Now().Add(s.limits.sendTime))
		if err != nil {
			return err
		}
		view = found
	}
	return s.answer(w, r, s.requests, func() (*whole, error) {
		if filter.All() {
			return s.portList.of(view).form(r)
		}
		return asWhole(r, "application/json", func(into *bytes.Buffer) error {
			into.Write(appendPorts(into.AvailableBuffer(), view, filter.Matcher(view.Named)))
			return nil
		})
	})
}

func (s *Server) openAt(ctx context.Context, filter *model.Filter, at time.Time) (answer api.Ports, err error) {
	err = s.query(ctx, func(ctx context.Context) error {
		open, watching, err := s.history.At(ctx, at, *filter)
		answer = api.Ports{Time: at, Ports: append([]model.Open{}, open...), Watching: &watching}
		return err
	})
	return answer, err
}

// portList is the answer with all open endpoints, which requests share while it is the same. The
// zero value is ready.
type portList struct {
	mutex sync.Mutex
	view  *model.View
	made  time.Time
	list  *rendered
}

// listAge bounds the age of Time in an answer.
const listAge = time.Second

func (l *portList) of(view *model.View) *rendered {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.view == nil || !sameOpen(l.view, view) || time.Since(l.made) > listAge {
		capacity := 0
		if l.list != nil {
			capacity = len(l.list.plain.content) * 9 / 8
		}
		l.view, l.made = view, time.Now()
		l.list = newRendered("application/json", appendPorts(make([]byte, 0, capacity), view, new(model.Filter).Matcher(view.Named)))
	}
	return l.list
}

// sameOpen reports whether two views share the list of open endpoints.
func sameOpen(a, b *model.View) bool {
	return a.Version == b.Version || len(a.Open) == len(b.Open) && (len(a.Open) == 0 || &a.Open[0] == &b.Open[0])
}

// appendPorts appends an [api.Ports] as JSON.
func appendPorts(dst []byte, view *model.View, matcher *model.Matcher) []byte {
	dst = time.Now().UTC().AppendFormat(append(dst, `{"time":"`...), time.RFC3339Nano)
	dst = append(dst, `","ports":[`...)
	first := true
	for i := range view.Open {
		o := &view.Open[i]
		if !matcher.Open(o) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = output.AppendOpen(dst, o)
	}
	return append(dst, "]}\n"...)
}
