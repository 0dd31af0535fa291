package server

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"portwatcher/internal/port"
	"portwatcher/internal/server/api"
)

const (
	standardLimit = 500
	maxLimit      = 5000
)

// getEvents answers with a page of events, or with a stream.
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request, p *parameters) error {
	w.Header().Add("Vary", "Accept")
	if acceptsStream(r) {
		return s.streamEvents(w, r, p)
	}
	filter := p.filter()
	q := filter.query()
	q.Since, q.Until = p.time("since"), p.time("until")
	after, forward := p.id("after")
	before, backward := p.id("before")
	if forward && backward {
		p.wrong("before", p.values.Get("before"), "either after= or before=")
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		p.wrong("until", p.values.Get("until"), "times after since=")
	}
	limit := p.count("limit", standardLimit, maxLimit)
	if err := p.problem(); err != nil {
		return err
	}
	if backward && before <= 1 {
		// 0 would be no bound in a Query, and ids begin at 1.
		return s.reply(w, r, func() (any, error) { return s.page(r, p, found{}, limit, forward) })
	}
	q.AfterID, q.BeforeID, q.FromStart = after, before, forward
	q.Limit = limit + 1 // one more tells whether there is a next page
	return s.reply(w, r, func() (any, error) {
		all, err := s.collect(r.Context(), q)
		if err != nil {
			return nil, err
		}
		return s.page(r, p, all, limit, forward)
	})
}

// acceptsStream says whether the client asked for the stream by name.
func acceptsStream(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept") {
		for entry := range strings.SplitSeq(line, ",") {
			if kind, _, err := mime.ParseMediaType(entry); err == nil && kind == api.MediaTypeStream {
				return true
			}
		}
	}
	return false
}

// page cuts what was found, which may be one more than the limit, and says where
// the next page is.
func (s *Server) page(r *http.Request, p *parameters, all found, limit int, forward bool) (api.Events, error) {
	answer := api.Events{Events: all.events, LastID: s.History.LastID()}
	next := all.last
	if len(all.events) > limit && forward {
		answer.Events = all.events[:limit]
		next = answer.Events[limit-1].ID
	} else if len(all.events) > limit {
		answer.Events = all.events[1:]
	}
	if answer.Events == nil {
		answer.Events = []*port.Event{}
	}
	switch {
	case all.count <= limit:
	case forward:
		answer.Next = nextPage(r, p, "after", next)
	case len(answer.Events) > 0:
		answer.Next = nextPage(r, p, "before", answer.Events[0].ID)
	}
	var err error
	answer.FirstID, err = s.firstID(r.Context())
	return answer, err
}

func nextPage(r *http.Request, p *parameters, name string, id uint64) string {
	p.values.Set(name, strconv.FormatUint(id, 10))
	return r.URL.Path + "?" + p.values.Encode()
}
