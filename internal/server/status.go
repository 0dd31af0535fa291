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
		view := s.Capture.View()
		status := api.Status{
			Version: s.Version, CaptureStatus: view.Status,
			Ports: len(view.Open), Journal: s.History.Stats(), Streams: s.streamStatus(),
		}
		status.Namespaces = len(status.Watchers)
		for _, c := range view.Containers {
			if c.Monitored {
				status.Containers++
			}
		}
		if err := s.ready(); err != nil {
			status.NotReady = err.Error()
		}
		status.Ready = status.NotReady == ""
		if status.Watchers == nil {
			status.Watchers = []model.WatcherStatus{}
		}
		if status.Queues == nil {
			status.Queues = []model.QueueStatus{}
		}
		first, err := s.firstID(r.Context())
		if err != nil {
			// What can be told is told: a status is asked for when things are bad.
			status.Journal.Error = cmp.Or(status.Journal.Error, err.Error())
		}
		status.Journal.FirstID = first
		return status, nil
	})
}

// ready returns nil while everything works.
func (s *Server) ready() error { return errors.Join(s.Capture.Ready(), s.History.Err()) }

func (s *Server) getReady(w http.ResponseWriter, r *http.Request) {
	if err := s.ready(); err != nil {
		s.fail(w, r, newProblem(http.StatusServiceUnavailable, err.Error()))
		return
	}
	s.finish(w, r, s.answer(w, r, nil, func() (*whole, error) { return asJSON(r, map[string]string{"status": "ready"}) }))
}

func (s *Server) streamStatus() api.Streams {
	return api.Streams{Open: len(s.streams), Most: cap(s.streams), CutOff: s.cutOff.Load()}
}

func (s *Server) getMetrics(w http.ResponseWriter, r *http.Request) {
	s.finish(w, r, s.answer(w, r, s.scrapes, func() (*whole, error) {
		format := metrics.Negotiate(r.Header)
		return asWhole(r, string(format), func(into *bytes.Buffer) error { return s.Metrics.Write(into, format) })
	}))
}

// state is what the metrics read.
type state struct{ *Server }

func (s state) View() *model.View { return s.Capture.View() }
func (s state) Ready() error      { return s.ready() }

func (s state) Published(view *model.View) (published []metrics.Published) {
	for _, c := range inventory(view.Containers, view.Open) {
		for _, d := range c.Declared {
			if c.Monitored && len(d.Published) > 0 {
				published = append(published, metrics.Published{Container: c.Name, Protocol: d.Protocol, Port: d.Port, Listening: d.Listening})
			}
		}
	}
	return published
}

func (s state) Journal() metrics.Journal {
	stats := s.History.Stats()
	return metrics.Journal{Writable: stats.Error == "", LagSeconds: stats.LagSeconds, SizeBytes: stats.SizeBytes, Written: stats.Written}
}

func (s state) Streams() (open int, cutOff uint64) { return len(s.streams), s.cutOff.Load() }
