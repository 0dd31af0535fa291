package alert

import (
	"net/url"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/model"
)

// maxEnriched bounds the alerts of one message for which the journal is asked: those that the
// message describes.
const maxEnriched = notify.MaxItems

// enrich adds what a person needs who is woken by an alert.
func (s *surroundings) enrich(c *Config, a *notify.Alert, ask bool) {
	e := a.Event
	a.URL = c.link(e)
	if e.Container == nil {
		return
	}
	if !e.Container.StartedAt.IsZero() {
		a.LastChange = &notify.ContainerChange{At: e.Container.StartedAt, Image: e.Container.Image}
	}
	if e.Drift != "" && a.Status == notify.Firing && s.entry != nil {
		a.Expectation = s.entry(e)
	}
	if !ask {
		return
	}
	before := s.previousOf(e)
	switch {
	case e.Type == model.Closed, e.Type == model.Changed:
		a.LastSeen = &e.Time
	case !before.Seen.IsZero():
		a.LastSeen = &before.Seen
	}
	if a.LastChange != nil && before.Image != e.Container.Image {
		a.LastChange.PreviousImage = before.Image
	}
}

// link returns the address of the page that shows an event; empty where it is not known.
func (c *Config) link(e *model.Event) string {
	if c.PublicURL == "" {
		return ""
	}
	link := c.PublicURL + "/"
	if e.Container != nil {
		link += "?container=" + url.QueryEscape(e.Container.Name)
		if e.Port != 0 {
			link += "&port=" + portOf(e)
		}
	}
	return link
}
