package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// MaxEventAlerts is the number of alerts in one CloudEvent; alerts_omitted counts those beyond
// it. Receivers refuse bodies of some megabytes, and would refuse them at each try.
const MaxEventAlerts = 500

// eventMediaType is that of an event in structured mode
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md).
const eventMediaType = "application/cloudevents+json; charset=utf-8"

// cloudEvent is a CloudEvent 1.0. A notification is one event and not a batch of one for each
// alert: it is signed, delivered, retried and recognized at its repetition as a whole, and id
// and webhook-id are the same.
type cloudEvent struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject,omitempty"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	// Severity is an extension, for routing without reading the data.
	Severity Severity  `json:"severity"`
	Data     eventData `json:"data"`
}

type eventData struct {
	Status   Status       `json:"status"`
	Severity Severity     `json:"severity"`
	Host     string       `json:"host"`
	Project  string       `json:"project,omitempty"`
	Digest   bool         `json:"digest,omitempty"`
	Test     bool         `json:"test,omitempty"`
	Title    string       `json:"title"`
	Text     string       `json:"text"`
	Alerts   []eventAlert `json:"alerts"`
	Omitted  int          `json:"alerts_omitted,omitempty"`
}

type eventAlert struct {
	Key         string           `json:"key"`
	Rule        string           `json:"rule"`
	Severity    Severity         `json:"severity"`
	Status      Status           `json:"status"`
	Type        string           `json:"type"`
	Subject     string           `json:"subject,omitempty"`
	Title       string           `json:"title"`
	Since       time.Time        `json:"since"`
	Until       time.Time        `json:"until,omitzero"`
	LastSeen    *time.Time       `json:"last_seen,omitempty"`
	LastChange  *eventLastChange `json:"last_change,omitempty"`
	URL         string           `json:"url,omitempty"`
	Expectation string           `json:"expectation,omitempty"`
	// Event is the event as the API has it.
	Event json.RawMessage `json:"event"`
}

type eventLastChange struct {
	At            time.Time `json:"at"`
	Image         string    `json:"image,omitempty"`
	PreviousImage string    `json:"previous_image,omitempty"`
}

// The types of events that stand for several alerts of different types.
const (
	typeAlerts = "portwatcher.alerts"
	typeDigest = "portwatcher.digest"
)

// eventType is the type of an event with one alert: portwatcher.drift.unexpected,
// portwatcher.port.opened, portwatcher.gap.
func eventType(e *model.Event) string {
	if e.Drift != "" {
		return "portwatcher.drift." + string(e.Drift)
	}
	switch e.Type {
	case model.Opened, model.Closed, model.Changed:
		return "portwatcher.port." + string(e.Type)
	}
	return "portwatcher." + string(e.Type)
}

// eventSubject is "shop/web/80/tcp", or the target alone; empty for what is about the host.
func eventSubject(e *model.Event) string {
	text := ""
	if e.Container != nil {
		text = e.Container.Target()
	}
	if e.Port == 0 {
		return text
	}
	if text != "" {
		text += "/"
	}
	return fmt.Sprintf("%s%d/%s", text, e.Port, e.Protocol)
}

// encodeEvent returns a notification as a CloudEvent in JSON.
func encodeEvent(n *Notification) ([]byte, error) {
	m := compose(n)
	event := cloudEvent{
		SpecVersion: "1.0", ID: webhookID(n.ID), Source: strings.ReplaceAll(url.QueryEscape(n.Host), "+", "%20"), Time: n.Time.UTC(),
		ContentType: "application/json", Severity: n.Severity,
		Data: eventData{
			Status: n.NotificationStatus(), Severity: n.Severity, Host: n.Host, Project: n.Project, Digest: n.Digest, Test: n.Test,
			Title: m.title, Text: m.text(), Alerts: make([]eventAlert, 0, len(n.Alerts)),
		},
	}
	if event.Source == "" {
		event.Source = "unknown"
	}
	event.Type, event.Subject = envelope(n)
	for i := range n.Alerts {
		if i == MaxEventAlerts {
			event.Data.Omitted = len(n.Alerts) - i
			break
		}
		event.Data.Alerts = append(event.Data.Alerts, encodeAlert(&n.Alerts[i]))
	}
	return encodeJSON(event)
}

// envelope returns type and subject of a notification: those that all of its alerts have.
func envelope(n *Notification) (kind, subject string) {
	if n.Digest {
		return typeDigest, n.Project
	}
	for i := range n.Alerts {
		e := n.Alerts[i].Event
		if i == 0 {
			kind, subject = eventType(e), eventSubject(e)
			continue
		}
		if eventType(e) != kind {
			kind = typeAlerts
		}
		if eventSubject(e) != subject {
			subject = n.Project
		}
	}
	return kind, subject
}

func encodeAlert(a *Alert) eventAlert {
	encoded := eventAlert{
		Key: a.Key, Rule: a.Rule, Severity: a.Severity, Status: a.Status, Type: eventType(a.Event), Subject: eventSubject(a.Event),
		Title: sentence(a), Since: a.Since.UTC(), Until: a.Until.UTC(), LastSeen: a.LastSeen, URL: a.URL, Expectation: a.Expectation,
		Event: output.AppendJSON(nil, a.Event),
	}
	if c := a.LastChange; c != nil {
		encoded.LastChange = &eventLastChange{c.At.UTC(), c.Image, c.PreviousImage}
	}
	return encoded
}

// encodeJSON returns a value as JSON in which what shows nothing is escaped.
func encodeJSON(value any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("encode the notification: %w", err)
	}
	return output.EscapeMarks(bytes.TrimSuffix(b.Bytes(), []byte{'\n'})), nil
}
