package server

import (
	"context"
	"net/http"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

func (s *Server) getDrift(w http.ResponseWriter, r *http.Request, p *parameters) error {
	q := journal.DriftQuery{Filter: p.filter(), Since: p.time("since"), Until: p.time("until"), Limit: p.count("limit", standardLimit, maxLimit)}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		p.wrong("until", p.values.Get("until"), "times after since=")
	}
	if err := p.problem(); err != nil {
		return err
	}
	return s.reply(w, r, func() (any, error) {
		view := s.capture.View()
		answer := api.Drifts{Time: time.Now().UTC(), Expecting: view.Expecting, Drifts: []model.OpenDrift{}}
		matcher := q.Filter.Matcher(view.Named)
		for i := range view.Drifts {
			if d := &view.Drifts[i]; matcher.Drift(d) {
				answer.Drifts = append(answer.Drifts, *d)
			}
		}
		if q.Since.IsZero() && q.Until.IsZero() {
			return answer, nil
		}
		err := s.query(r.Context(), func(ctx context.Context) (err error) {
			answer.History, err = s.history.Drifts(ctx, q)
			return err
		})
		return answer, err
	})
}
