package page

import (
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

// exampleAlerts are those of a host on which something happens.
func exampleAlerts(web container) api.Alerts {
	now := time.Now().UTC()
	opened := event(model.Opened, web, "0.0.0.0", 4444, by("nc", 4600), func(e *model.Event) { e.Drift, e.Exposure = model.DriftUnexpected, model.Published })
	return api.Alerts{
		AlertsSummary: api.AlertsSummary{Enabled: true, Pending: 1, Dead: 1, Held: 2, Conditions: 1}, MaxPerHour: 60, GroupWaitSeconds: 10, RepeatSeconds: 86400,
		Quiet: []api.Quiet{}, Open: []api.Condition{{Key: "rule=unexpected", Rule: "unexpected", Severity: "warning", To: []string{"ops"}, Since: now.Add(-7 * time.Minute), Event: &opened}},
		Rules: []api.Rule{
			{Name: "unexpected", When: `drift == "unexpected" && exposure in ["published", "host"]`, ForSeconds: 5, Severity: "warning", To: []string{"ops"}, Evaluated: 900, Matched: 1},
			{Name: "blind", When: `type == "gap"`, Severity: "warning", To: []string{"chat", "ops"}, Evaluated: 900},
		},
		Receivers: []api.Receiver{
			{Name: "chat", Kind: "shoutrrr", Pending: 1, Dead: 1, Held: 2, FailedTries: 18, GivenUp: 1, LastTry: now, Problem: "429 Too Many Requests"},
			{Name: "ops", Kind: "webhook", Delivered: 12, LastTry: now, LastDelivered: now.Add(-6 * time.Minute)},
		},
		Deliveries: []api.Delivery{
			{ID: "node1/42/3", Receiver: "chat", State: "pending", Made: now.Add(-time.Minute), Due: now.Add(4 * time.Minute), Title: "[warning] node1: port 4444/tcp of shop/web is open and not expected", Severity: "warning", Alerts: 1, Tried: 2,
				Tries: []api.Try{{Time: now.Add(-time.Minute), Status: 429, Error: "429 Too Many Requests"}, {Time: now, Status: 429, Error: "429 Too Many Requests"}}},
			{ID: "node1/42/2", Receiver: "ops", State: "delivered", Made: now.Add(-6 * time.Minute), Finished: now.Add(-6 * time.Minute), Title: "[warning] node1: port 4444/tcp of shop/web is open and not expected", Severity: "warning", Alerts: 1, Tried: 1,
				Tries: []api.Try{{Time: now.Add(-6 * time.Minute), Delivered: true, Status: 200, Response: "<b>ok</b>"}}},
			{ID: "node1/9/1", Receiver: "chat", State: "dead", Made: now.Add(-80 * time.Hour), Finished: now.Add(-8 * time.Hour), Title: "[info] node1: 3 alerts", Severity: "info", Digest: true, Alerts: 3, Tried: 40, Tries: []api.Try{}},
		},
	}
}

func TestAlerts(t *testing.T) {
	f := newFake(t)
	web, _, _ := shop(f)
	p := newTab(t, 1280, 900)
	p.live(f, "/?view=alerts")
	p.waitText("#alerts-none", "Nobody is alerted")
	f.set(func() { f.alerts = exampleAlerts(web) })
	p.live(f, "/?view=alerts")
	p.waitText("#alerts-none", "1 condition lasts or waits.")
	p.waitText("#alerts-none", "2 alerts held back")
	if eval[bool](p, "document.querySelector('main').checkVisibility()") || !eval[bool](p, "document.querySelector('#timeline').checkVisibility()") {
		t.Error("the list of ports is shown beside the alerts, or the events are not")
	}
	p.waitText("#alerts-count", "2")
	p.waitText("#notices", "1 alert message was given up: see Alerts.")
	p.waitText("#alerts-open", "shop/web 4444/tcp")
	p.waitText("#alerts-receivers", "429 Too Many Requests")
	p.waitText("#alerts-rules", `drift == "unexpected" && exposure in ["published", "host"]`)
	p.wait("document.querySelectorAll('#alerts-deliveries > li').length === 3")
	p.click("#alerts-deliveries > li:nth-child(2) summary")
	p.waitText("#alerts-deliveries > li:nth-child(2) .tries", "delivered · 200 · <b>ok</b>")
	for _, dark := range []bool{false, true} {
		p.scheme(dark)
		p.shoot("alerts" + map[bool]string{true: "-dark", false: "-light"}[dark])
		if small := eval[string](p, illegible); small != "" {
			t.Errorf("dark %t: too little contrast: %s", dark, small)
		}
	}
	f.set(func() { f.alerts.Deliveries[0].State, f.alerts.Deliveries[0].Tried = "delivered", 3 })
	p.waitText("#alerts-deliveries > li:first-child", "3 tries") // it is read again by itself
	if !eval[bool](p, "document.querySelector('#alerts-deliveries > li:nth-child(2) details').open") {
		t.Error("what was unfolded is folded again")
	}
	p.click("#alerts-open .subject")
	p.waitText("#detail", web.Name)

	narrow := newTab(t, 390, 800)
	narrow.live(f, "/?view=alerts")
	narrow.wait("document.querySelectorAll('#alerts-deliveries > li').length === 3")
	narrow.shoot("alerts-narrow")
	if wide := eval[int](narrow, "document.documentElement.scrollWidth"); wide > 390 {
		t.Errorf("the page is %d pixels wide on a screen of 390", wide)
	}
}

// noAlerts are those of an instance whose settings have no receiver.
var noAlerts = api.Alerts{
	Quiet: []api.Quiet{}, Rules: []api.Rule{}, Receivers: []api.Receiver{}, Open: []api.Condition{}, Deliveries: []api.Delivery{},
}
