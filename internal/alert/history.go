package alert

import (
	"context"
	"iter"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// History is the record of events; a [journal.Journal] and a [journal.Reader] are.
type History interface {
	Events(ctx context.Context, q journal.Query) iter.Seq2[*model.Event, error]
}

const (
	// askTime bounds one question to the journal.
	askTime = 5 * time.Second
	// lastEvents is how many events of a port are read to find when it was last open.
	lastEvents = 16
	// together is how long after the first of its addresses a container opens the others.
	together = time.Minute
)

// before returns what the journal has of the port of an event before that event.
func before(h History, e *model.Event) (*previous, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	target, err := model.ParseSelection(e.Container.Target())
	if err != nil {
		return nil, err
	}
	q := journal.Query{BeforeID: e.ID, Limit: lastEvents, Filter: model.Filter{
		Containers: target, Project: e.Container.Project, Ports: model.OnePort(e.Protocol, e.Port),
		Types: []model.Type{model.Opened, model.Closed, model.Changed},
	}}
	var events []*model.Event
	for found, err := range h.Events(ctx, q) {
		if err != nil {
			return nil, err
		}
		if found.Container != nil && found.Container.Target() == e.Container.Target() {
			events = append(events, found)
		}
	}
	return foldBefore(events, e), nil
}

// foldBefore returns what events, in their order, are before another one.
func foldBefore(events []*model.Event, e *model.Event) *previous {
	p := &previous{}
	for i := len(events) - 1; i >= 0; i-- {
		one := events[i]
		own := one.Container.ID == e.Container.ID
		if p.Event == nil {
			p.Event = one
		}
		twin := own && one.Type != model.Closed && e.Time.Sub(one.Time) < together // another address of the same opening
		if r := p.Reach; !twin && one.Outside != nil && (r == nil || r.Container.ID == one.Container.ID && further(&one.Listener, r)) {
			p.Reach = &one.Listener
		}
		if !own && p.Image == "" {
			p.Image = one.Container.Image
		}
		if p.Seen.IsZero() && !twin {
			if p.Seen = one.Time; one.Type != model.Closed {
				p.Seen = e.Time // it is open in another container of the target
			}
		}
	}
	return p
}
