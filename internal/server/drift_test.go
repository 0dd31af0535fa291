package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

func drifting(kind model.Drift, o model.Open) model.OpenDrift {
	return model.OpenDrift{Drift: kind, Since: testTime, Target: o.Container.Target(), Listener: o.Listener, Endpoints: 1}
}

func TestDrift(t *testing.T) {
	s := start(t, nil)
	if answer := decode[api.Drifts](t, s, "/api/v1/drift"); answer.Expecting || answer.Drifts == nil || len(answer.Drifts) != 0 || answer.History != nil {
		t.Errorf("without expectations: %+v", answer)
	}
	wider := drifting(model.DriftWider, openPort(web, model.TCP, "0.0.0.0", 80, model.Published))
	unexpected := drifting(model.DriftUnexpected, openPort(db, model.UDP, "0.0.0.0", 5353, model.Network))
	missing := model.OpenDrift{Drift: model.DriftMissing, Since: testTime, Target: "shop/mail", Listener: model.Listener{
		Container: &model.ContainerRef{Name: "shop/mail", Project: "shop", Service: "mail"}, Protocol: model.TCP, Port: 25,
	}}
	s.capture.set(func(c *fakeCapture) {
		c.drifts = []model.OpenDrift{wider, unexpected, missing}
		c.open[0].Drift, c.open[0].DriftSince = model.DriftWider, testTime
	})
	s.history.drifts = []model.DriftPeriod{{OpenDrift: wider, Ended: testTime.Add(time.Hour)}, {OpenDrift: unexpected}}
	for query, want := range map[string]string{
		"":                                "wider 80, unexpected 5353, missing 25",
		"drift=wider,missing":             "wider 80, missing 25",
		"project=shop":                    "wider 80, missing 25",
		"container=shop/mail":             "missing 25",
		"container=db&protocol=udp":       "unexpected 5353",
		"port=1-100&outside=true":         "wider 80",
		"exposure=network":                "unexpected 5353",
		"since=2026-11-22T19:00:00Z":      "wider 80, unexpected 5353, missing 25; wider 80, unexpected 5353",
		"since=2026-11-23T00:00:00Z":      "wider 80, unexpected 5353, missing 25; unexpected 5353",
		"until=0s&limit=1&container=shop": "; ",
		"until=0s&limit=1":                "wider 80, unexpected 5353, missing 25; wider 80",
	} {
		answer := decode[api.Drifts](t, s, "/api/v1/drift?"+query)
		var parts [2][]string
		for _, d := range answer.Drifts {
			parts[0] = append(parts[0], fmt.Sprint(d.Drift, " ", d.Port))
		}
		for _, p := range answer.History {
			parts[1] = append(parts[1], fmt.Sprint(p.Drift, " ", p.Port))
		}
		got := strings.Join(parts[0], ", ")
		if strings.Contains(query, "since") || strings.Contains(query, "until") {
			got += "; " + strings.Join(parts[1], ", ")
		}
		if got != want || !answer.Expecting {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for _, query := range []string{"drift=gone", "limit=0", "since=x", "since=1h&until=2h", "at=1h"} {
		s.problem(t, http.StatusBadRequest, "/api/v1/drift?"+query)
	}
	if got := decode[api.Ports](t, s, "/api/v1/ports?drift=wider").Ports; len(got) != 1 || got[0].Port != 80 || !got[0].DriftSince.Equal(testTime) {
		t.Errorf("ports that drift: %+v", got)
	}
	e := event(model.Opened, openPort(db, model.UDP, "0.0.0.0", 5353, model.Network))
	e.Drift = model.DriftUnexpected
	s.history.record(event(model.Opened, openPort(web, model.TCP, "0.0.0.0", 80, model.Published)), e)
	if got := decode[api.Events](t, s, "/api/v1/events?drift=unexpected").Events; len(got) != 1 || got[0].ID != 2 {
		t.Errorf("events that drift: %+v", got)
	}
}
