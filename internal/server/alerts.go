package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"portwatcher/internal/alert"
	"portwatcher/internal/journal"
	"portwatcher/internal/server/api"
)

// Alerts provides the state of alerts. Its methods are safe for concurrent use.
type Alerts interface {
	// Status returns the state without reading the journal.
	Status() *alert.Status
	// Deliveries returns deliveries, the newest first.
	Deliveries(ctx context.Context, q journal.DeliveryQuery) ([]journal.Delivery, error)
}

// FromAlerts returns the [Alerts] of this process.
func FromAlerts(a *alert.Alerts, j *journal.Journal) Alerts { return evaluated{a, j} }

type evaluated struct {
	*alert.Alerts
	journal *journal.Journal
}

// Deliveries implements [Alerts].
func (e evaluated) Deliveries(ctx context.Context, q journal.DeliveryQuery) ([]journal.Delivery, error) {
	return e.journal.Deliveries(ctx, q)
}

const (
	// mostConditions bounds the conditions in an answer.
	mostConditions = 1000
	// standardDeliveries and mostDeliveries are how many deliveries an answer has, and can have.
	standardDeliveries, mostDeliveries = 50, 500
)

func (s *Server) getAlerts(w http.ResponseWriter, r *http.Request, p *parameters) error {
	q := journal.DeliveryQuery{Limit: standardDeliveries}
	limit, given := single(p, "limit", fmt.Sprintf("1 to %d", mostDeliveries), func(text string) (int, bool) {
		n, err := strconv.Atoi(text)
		return n, err == nil && n >= 1 && n <= mostDeliveries
	})
	if given {
		q.Limit = limit
	}
	q.State, _ = single(p, "state", "pending, delivered, dead", func(text string) (journal.DeliveryState, bool) {
		return journal.DeliveryState(text), slices.Contains(journal.DeliveryStates, journal.DeliveryState(text))
	})
	q.Receiver, _ = single(p, "receiver", "the name of a receiver", func(text string) (string, bool) { return text, true })
	if err := p.problem(); err != nil {
		return err
	}
	return s.reply(w, r, func() (any, error) {
		answer := newAlerts(&alert.Status{})
		if s.options.Alerts == nil {
			return answer, nil
		}
		answer = newAlerts(s.options.Alerts.Status())
		err := s.query(r.Context(), func(ctx context.Context) error {
			deliveries, err := s.options.Alerts.Deliveries(ctx, q)
			for i := range deliveries {
				answer.Deliveries = append(answer.Deliveries, newDelivery(&deliveries[i]))
			}
			return err
		})
		return answer, err
	})
}

func newAlertsSummary(s *alert.Status) api.AlertsSummary {
	summary := api.AlertsSummary{Enabled: s.Enabled, Dropped: s.Dropped}
	for i := range s.Receivers {
		summary.Pending += s.Receivers[i].Pending
		summary.Dead += s.Receivers[i].Dead
		summary.Held += s.Receivers[i].Held
	}
	for i := range s.Conditions {
		if !s.Conditions[i].Waiting {
			summary.Conditions++
		}
	}
	return summary
}

func newAlerts(s *alert.Status) api.Alerts {
	answer := api.Alerts{
		AlertsSummary: newAlertsSummary(s), Standard: s.Standard, GroupWaitSeconds: s.GroupWait.Seconds(), RepeatSeconds: s.Repeat.Seconds(),
		MaxPerHour: s.MaxPerHour, Quiet: []api.Quiet{}, Rules: []api.Rule{}, Receivers: []api.Receiver{}, Open: []api.Condition{},
		Deliveries: []api.Delivery{}, EvaluatedID: s.Cursor,
	}
	for _, q := range s.Quiet {
		answer.Quiet = append(answer.Quiet, api.Quiet{From: q.FromText(), To: q.ToText(), Zone: q.Zone.String(), Except: string(q.Except)})
	}
	for _, r := range s.Rules {
		answer.Rules = append(answer.Rules, api.Rule{
			Name: r.Name, When: r.When, ForSeconds: r.For.Seconds(), Severity: string(r.Severity), To: append([]string{}, r.To...),
			Evaluated: r.Evaluated, Matched: r.Matched, Failed: r.Failed,
		})
	}
	for _, r := range s.Receivers {
		answer.Receivers = append(answer.Receivers, api.Receiver{
			Name: r.Name, Kind: r.Kind, Removed: r.Removed, Pending: r.Pending, Dead: r.Dead, Held: r.Held,
			Delivered: r.Delivered, FailedTries: r.Failed, GivenUp: r.GivenUp,
			LastTry: r.LastTry, LastDelivered: r.LastDelivered, Problem: r.Problem,
		})
	}
	for _, c := range s.Conditions[:min(len(s.Conditions), mostConditions)] {
		answer.Open = append(answer.Open, api.Condition{
			Key: c.Alert.Key, Rule: c.Alert.Rule, Severity: string(c.Alert.Severity), To: c.To, Since: c.Alert.Since, Waiting: c.Waiting, Event: c.Alert.Event,
		})
	}
	return answer
}

func newDelivery(d *journal.Delivery) api.Delivery {
	answer := api.Delivery{
		ID: d.ID, Receiver: d.Receiver, State: string(d.State), Made: d.Made, Due: d.Due, Finished: d.Finished,
		Title: d.Title, Severity: d.Severity, Digest: d.Digest, Alerts: d.Alerts, Tried: d.Tried, Tries: []api.Try{},
	}
	if d.State != journal.DeliveryPending {
		answer.Due = time.Time{}
	}
	for _, t := range d.Tries {
		answer.Tries = append(answer.Tries, api.Try{Time: t.Time, Delivered: t.Delivered, Status: t.Status, Response: t.Response, Error: t.Error})
	}
	return answer
}
