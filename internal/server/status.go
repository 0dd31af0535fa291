package server

import (
	"cmp"
	"errors"
	"net/http"

	"portwatcher/internal/port"
	"portwatcher/internal/server/api"
)

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request, _ *parameters) error {
	return s.reply(w, r, func() (any, error) {
		status := api.Status{
			Version: s.Version, CaptureStatus: s.Capture.Status(),
			Ports: len(s.Capture.Open()), Journal: s.History.Stats(), Streams: s.streamStatus(),
		}
		status.Namespaces = len(status.Watchers)
		for _, c := range s.Capture.Containers() {
			if c.Monitored {
				status.Containers++
			}
		}
		if err := s.ready(); err != nil {
			status.NotReady = err.Error()
		}
		status.Ready = status.NotReady == ""
		if status.Watchers == nil {
			status.Watchers = []port.WatcherStatus{}
		}
		if status.Queues == nil {
			status.Queues = []port.QueueStatus{}
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
	s.finish(w, r, writeJSON(w, r, map[string]string{"status": "ready"}))
}

func (s *Server) streamStatus() api.Streams {
	return api.Streams{Open: len(s.streams), Most: cap(s.streams), CutOff: s.cutOff.Load()}
}

// state is what the metrics read.
type state struct{ *Server }

func (s state) Open() []port.Open { return s.Capture.Open() }
func (s state) Inventory() []api.Container {
	return inventory(s.Capture.Containers(), s.Capture.Open())
}
func (s state) Status() port.CaptureStatus { return s.Capture.Status() }
func (s state) Ready() error               { return s.ready() }
func (s state) Journal() api.Journal       { return s.History.Stats() }
func (s state) Streams() api.Streams       { return s.streamStatus() }
