package model_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// TestOpenSet reads the table that the page's test reads too.
func TestOpenSet(t *testing.T) {
	content, err := os.ReadFile("testdata/openset.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name  string
		Steps []struct {
			Expect bool
			Event  *model.Event
			List   *[]model.Open
		}
		Want []string
	}
	if err := json.Unmarshal(content, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("the table has no case")
	}
	for _, test := range cases {
		t.Run(test.Name, func(t *testing.T) {
			var set model.OpenSet
			for _, step := range test.Steps {
				switch {
				case step.Expect:
					set.Expect()
				case step.Event != nil:
					set.Apply(step.Event)
				case !set.Replace(*step.List):
					t.Fatal("the list is refused")
				}
			}
			got := []string{}
			for endpoint, o := range set.All() {
				got = append(got, line(endpoint, o))
			}
			if slices.Sort(got); !slices.Equal(got, test.Want) || set.Len() != len(got) {
				t.Errorf("open are %q, %d; want %q", got, set.Len(), test.Want)
			}
		})
	}
}

// line is an endpoint as the table has it.
func line(endpoint model.Endpoint, o *model.Open) string {
	process := "-"
	if len(o.Processes) > 0 {
		process = o.Processes[0].Name
	}
	return fmt.Sprintf("%s %d/%s %s %s %s %s", endpoint.Container, endpoint.Port, endpoint.Protocol, endpoint.Address,
		process, cmp.Or(string(o.Exposure), "-"), o.OpenedAt.Format(time.RFC3339Nano))
}

func TestOpenSetRefusesAListAfterTooManyEvents(t *testing.T) {
	var set model.OpenSet
	e := &model.Event{ID: 1, Type: model.Opened, Time: time.Unix(1, 0), Listener: model.Listener{Protocol: model.TCP, Port: 80}}
	set.Expect()
	for range 1 << 16 {
		set.Apply(e)
	}
	if set.Replace(nil) || set.Len() != 1 {
		t.Errorf("the list is accepted, %d are open; want it refused, and 1", set.Len())
	}
	if set.Expect(); !set.Replace(nil) || set.Len() != 0 {
		t.Errorf("the next list is refused, %d are open; want it accepted, and 0", set.Len())
	}
}

// TestFoldDrift: events carry an endpoint's drift into what is open, with its beginning.
func TestFoldDrift(t *testing.T) {
	at := func(second int64) time.Time { return time.Unix(second, 0).UTC() }
	e := func(second int64, kind model.Type, d model.Drift, x model.Exposure) *model.Event {
		return &model.Event{Time: at(second), Type: kind, Drift: d, Listener: model.Listener{Protocol: model.TCP, Port: 80, Exposure: x}}
	}
	ended := e(60, model.Drifted, model.DriftUnexpected, model.Published)
	ended.Ended = true
	for _, test := range []struct {
		name   string
		events []*model.Event
		drift  model.Drift
		since  time.Time
	}{
		{"none", []*model.Event{e(10, model.Opened, "", model.Network)}, "", time.Time{}},
		{"opened", []*model.Event{e(10, model.Opened, model.DriftUnexpected, model.Network)}, model.DriftUnexpected, at(10)},
		{"another process", []*model.Event{e(10, model.Opened, model.DriftUnexpected, model.Network), e(20, model.Changed, model.DriftUnexpected, model.Network)}, model.DriftUnexpected, at(10)},
		{"another exposure", []*model.Event{e(10, model.Opened, model.DriftUnexpected, model.Network), e(20, model.Changed, model.DriftUnexpected, model.Published)}, model.DriftUnexpected, at(20)},
		{"another kind", []*model.Event{e(10, model.Opened, model.DriftUnexpected, model.Network), e(20, model.Drifted, model.DriftWider, model.Network)}, model.DriftWider, at(20)},
		{"repeated", []*model.Event{e(10, model.Opened, model.DriftWider, model.Network), e(20, model.Drifted, model.DriftWider, model.Network)}, model.DriftWider, at(10)},
		{"ended by a change", []*model.Event{e(10, model.Opened, model.DriftWider, model.Published), e(20, model.Changed, "", model.Network)}, "", time.Time{}},
		{"ended by a reload", []*model.Event{e(10, model.Opened, model.DriftUnexpected, model.Published), ended}, "", time.Time{}},
	} {
		var o *model.Open
		for _, event := range test.events {
			o = model.Fold(o, event)
		}
		if o == nil || o.Drift != test.drift || !o.DriftSince.Equal(test.since) || !o.OpenedAt.Equal(at(10)) {
			t.Errorf("%s: %+v; want drift %q since %s", test.name, o, test.drift, test.since)
		}
	}
	if o := model.Fold(nil, ended); o != nil {
		t.Errorf("a drift of an endpoint that is not open makes %+v", o)
	}
}
