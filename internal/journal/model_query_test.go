package journal

import (
	"path"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// checkQuery asks for something, and compares the answer with all events that
// plainly match.
func (m *reference) checkQuery(r *Reader) {
	m.t.Helper()
	q := m.query()
	var want []*model.Event
	for _, e := range m.events {
		if plainlyMatches(&q, e) {
			want = append(want, e)
		}
	}
	if q.Limit > 0 && len(want) > q.Limit {
		if q.FromStart {
			want = want[:q.Limit]
		} else {
			want = want[len(want)-q.Limit:]
		}
	}
	wantEvents(m.t, asJSON(m.t, q), events(m.t, r, q), want)
}

func (m *reference) query() Query {
	r := m.random
	var q Query
	some := func() bool { return r.IntN(4) == 0 }
	if some() {
		q.Since = m.moment()
	}
	if some() {
		q.Until = m.moment()
		if !q.Since.IsZero() && !q.Since.Before(q.Until) {
			q.Until = q.Since.Add(time.Minute)
		}
	}
	first := m.events[0].ID
	if some() {
		q.AfterID = first + r.Uint64N(m.nextID-first)
	}
	if some() {
		q.BeforeID = first + r.Uint64N(m.nextID-first+2)
	}
	if some() {
		q.Containers = append(q.Containers, pick(r, "web", "db*", "db-?", "shop/db", "shop/*", "s*/d*", "aaaabbbbcccc", "nothing"))
	}
	if some() {
		q.Containers = append(q.Containers, "web")
	}
	if some() {
		q.Project = pick(r, "shop", "other")
	}
	if some() {
		q.Ports = append(q.Ports, pick(r, PortRange{First: 80, Last: 80}, PortRange{First: 1, Last: 100, Protocol: model.UDP}, PortRange{First: 0, Last: 65535}))
	}
	if some() {
		q.Types = append(q.Types, pick(r, model.Opened, model.Closed, model.Changed, model.Bursts, model.Gap), model.Gap)
	}
	if some() {
		q.Protocols = append(q.Protocols, model.TCP)
	}
	if some() {
		q.Exposures = append(q.Exposures, model.Network)
	}
	if some() {
		transient := some()
		q.Transient = &transient
	}
	if r.IntN(2) == 0 {
		q.Limit, q.FromStart = 1+r.IntN(30), some()
	}
	return q
}

// plainlyMatches says what the documentation of Query says.
func plainlyMatches(q *Query, e *model.Event) bool {
	c := e.Container
	named := func(word string) bool {
		project, service, both := strings.Cut(word, "/")
		if both {
			inProject, _ := path.Match(project, c.Project)
			isService, _ := path.Match(service, c.Service)
			return c.Project != "" && inProject && isService
		}
		matched, _ := path.Match(word, c.Name)
		return matched || len(word) >= 12 && strings.HasPrefix(c.ID, word)
	}
	return (q.Since.IsZero() || !e.Time.Before(q.Since)) && (q.Until.IsZero() || e.Time.Before(q.Until)) &&
		e.ID > q.AfterID && (q.BeforeID == 0 || e.ID < q.BeforeID) &&
		(len(q.Containers) == 0 || c != nil && slices.ContainsFunc(q.Containers, named)) &&
		(q.Project == "" || c != nil && c.Project == q.Project) &&
		(len(q.Ports) == 0 || e.Type != model.Gap && slices.ContainsFunc(q.Ports, func(p PortRange) bool {
			burst := e.Type == model.Bursts
			return (p.First <= e.Port && e.Port <= p.Last || burst && e.Port == 0) &&
				(p.Protocol == 0 || p.Protocol == e.Protocol || burst && e.Protocol == 0)
		})) &&
		(len(q.Types) == 0 || slices.Contains(q.Types, e.Type)) &&
		(len(q.Protocols) == 0 || slices.Contains(q.Protocols, e.Protocol) || e.Type == model.Bursts && e.Protocol == 0) &&
		(len(q.Exposures) == 0 || slices.Contains(q.Exposures, e.Exposure)) &&
		(q.Transient == nil || *q.Transient == e.Transient)
}
