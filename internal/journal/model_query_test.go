package journal

import (
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// checkQuery asks for something, and compares the answer with all events that
// plainly match.
func (m *reference) checkQuery(r source) {
	m.t.Helper()
	q := m.query()
	var want []*model.Event
	for _, e := range m.events {
		if plainlyMatches(&q, e, namesOf(m.events)) {
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
	var words []string
	if some() {
		words = append(words, pick(r, "web", "db", "db*", "db-?", "shop/db", "shop/*", "s*/d*", "aaaabbbbcccc", "nothing", "!web"))
	}
	if some() {
		words = append(words, "web")
	}
	q.Containers = containers(m.t, strings.Join(words, ",")).Containers
	if some() {
		q.Project = pick(r, "shop", "other")
	}
	if some() {
		var err error
		if q.Ports, err = model.ParsePorts(pick(r, "80", "1-100/udp", "1-65535", "80/tcp 443")); err != nil {
			m.t.Fatal(err)
		}
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
		outside := some()
		q.Outside = &outside
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

// plainlyMatches compares as the documentation of Query states: the filter, as it is
// compared with events that are not in a journal, and the bounds.
func plainlyMatches(q *Query, e *model.Event, names model.Names) bool {
	return (q.Since.IsZero() || !e.Time.Before(q.Since)) && (q.Until.IsZero() || e.Time.Before(q.Until)) &&
		e.ID > q.AfterID && (q.BeforeID == 0 || e.ID < q.BeforeID) && q.Matcher(names).Event(e)
}

// namesOf returns the names of the containers that events name.
func namesOf(events []*model.Event) model.Names {
	return func(name string) bool {
		return slices.ContainsFunc(events, func(e *model.Event) bool { return e.Container != nil && e.Container.Name == name })
	}
}
