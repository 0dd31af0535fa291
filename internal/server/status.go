package server

import (
	"bytes"
	"cmp"
	"errors"
	"net/http"

	"portwatcher/internal/metrics"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request, _ *parameters) error {
	return s.reply(w, r, func() (any, error) {
		view := s.capture.View()
		status := newStatus(&view.Status)
		status.Version, status.Ports, status.Journal = s.options.Version, len(view.Open), s.history.Stats()
		status.Streams.Most = cap(s.streams)
		status.Streams.Open, status.Streams.CutOff = s.Streams()
		if s.options.Alerts != nil {
			status.Alerts = newAlertsSummary(s.options.Alerts.Status())
		}
		for _, c := range view.Containers {
			if c.Monitored {
				status.Containers++
			}
		}
		if err := s.ready(); err != nil {
			status.NotReady = err.Error()
		}
		status.Ready = status.NotReady == ""
		first, err := s.firstID(r.Context())
		if err != nil { // the rest of the status is still of use
			status.Journal.Error = cmp.Or(status.Journal.Error, err.Error())
		}
		status.Journal.FirstID = first
		return status, nil
	})
}

// ready returns nil while everything works.
func (s *Server) ready() error { return errors.Join(s.capture.Ready(), s.history.Err()) }

func (s *Server) getHealth(w http.ResponseWriter, r *http.Request) error {
	return s.answer(w, r, nil, func() (*whole, error) { return asJSON(r, map[string]string{"status": "ok"}) })
}

func (s *Server) getReady(w http.ResponseWriter, r *http.Request) error {
	if err := s.ready(); err != nil {
		return newProblem(http.StatusServiceUnavailable, err.Error())
	}
	return s.answer(w, r, nil, func() (*whole, error) { return asJSON(r, map[string]string{"status": "ready"}) })
}

func (s *Server) getMetrics(w http.ResponseWriter, r *http.Request) error {
	return s.answer(w, r, s.scrapes, func() (*whole, error) {
		format := metrics.Negotiate(r.Header)
		return asWhole(r, string(format), func(into *bytes.Buffer) error { return s.options.Metrics.Write(into, format) })
	})
}

func newStatus(c *model.CaptureStatus) api.Status {
	status := api.Status{
		Host: c.Host, StartedAt: c.StartedAt, Engine: api.Engine(c.Engine), Source: api.Source(c.Source),
		Watchers: make([]api.Watcher, len(c.Watchers)), Namespaces: len(c.Watchers),
		Gaps: c.Gaps, Overruns: c.Overruns, Lost: c.Lost, Queues: make([]api.Queue, len(c.Queues)),
	}
	for i, w := range c.Watchers {
		status.Watchers[i] = api.Watcher{
			Name: w.Name, Host: w.Host, Source: w.Source, Destroy: w.Destroy, Reason: w.Reason,
			LastScan: w.LastScan, Stale: w.Stale, Containers: w.Containers,
		}
	}
	for i, q := range c.Queues {
		status.Queues[i] = api.Queue(q)
	}
	return status
}
