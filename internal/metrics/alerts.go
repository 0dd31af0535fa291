package metrics

import "portwatcher/internal/alert"

var (
	alertDeliveries = describe("alerts_deliveries_total", "Messages that were delivered, or given up as dead, since the start.", "receiver", "state")
	alertFailures   = describe("alerts_failed_tries_total", "Tries of a delivery that failed, since the start.", "receiver")
	alertPending    = describe("alerts_pending", "Messages that wait for a try.", "receiver")
	alertDead       = describe("alerts_dead", "Messages in the journal that were given up.", "receiver")
	alertHeld       = describe("alerts_held", "Alerts that quiet hours or the bound on the rate hold back.", "receiver")
	alertConditions = describe("alerts_conditions", "Conditions that last.", "rule")
	alertEvaluated  = describe("alerts_rule_evaluations_total", "Events with which a rule was compared, since the start.", "rule")
	alertMatched    = describe("alerts_rule_matches_total", "Events that matched a rule, since the start.", "rule")
	alertBroken     = describe("alerts_rule_failures_total", "Evaluations of a rule that failed, since the start.", "rule")
	alertDropped    = describe("alerts_dropped_total", "Alerts that were dropped because too many waited, or their receiver was removed, since the start.")
)

func collectAlerts(s sender, status *alert.Status) {
	lasting := map[string]int{}
	for i := range status.Conditions {
		if c := &status.Conditions[i]; !c.Waiting {
			lasting[c.Alert.Rule]++
		}
	}
	if status.Enabled {
		for i := range status.Rules {
			r := &status.Rules[i]
			s.gauge(alertConditions, float64(lasting[r.Name]), r.Name)
			s.counter(alertEvaluated, r.Evaluated, r.Name)
			s.counter(alertMatched, r.Matched, r.Name)
			s.counter(alertBroken, r.RuleCounts.Failed, r.Name)
		}
	}
	for i := range status.Receivers {
		r := &status.Receivers[i]
		s.counter(alertDeliveries, r.Delivered, r.Name, "delivered")
		s.counter(alertDeliveries, r.GivenUp, r.Name, "dead")
		s.counter(alertFailures, r.Failed, r.Name)
		s.gauge(alertPending, float64(r.Pending), r.Name)
		s.gauge(alertDead, float64(r.Dead), r.Name)
		s.gauge(alertHeld, float64(r.Held), r.Name)
	}
	s.counter(alertDropped, status.Dropped)
}
