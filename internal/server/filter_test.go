package server

import (
	"testing"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// The journal finds the same; see its model.
func TestFilterOfBursts(t *testing.T) {
	web := &model.ContainerRef{ID: "x", Name: "web"}
	one := model.Event{Type: model.Bursts, Listener: model.Listener{Container: web, Protocol: model.TCP, Port: 80}, Burst: &model.Burst{PortCount: 1}}
	several := model.Event{Type: model.Bursts, Listener: model.Listener{Container: web}, Burst: &model.Burst{PortCount: 900}}
	gap := model.Event{Type: model.Gap, Listener: model.Listener{Container: web}}
	ports := func(protocol model.Protocol) Filter {
		return Filter{Ports: []journal.PortRange{{First: 81, Last: 90, Protocol: protocol}}}
	}
	for name, test := range map[string]struct {
		filter            Filter
		one, several, gap bool
	}{
		"none":              {Filter{}, true, true, true},
		"type":              {Filter{Types: []model.Type{model.Bursts}}, true, true, false},
		"another type":      {Filter{Types: []model.Type{model.Opened}}, false, false, false},
		"port":              {Filter{Ports: []journal.PortRange{{First: 80, Last: 80}}}, true, true, false},
		"another port":      {ports(0), false, true, false},
		"port and protocol": {ports(model.UDP), false, true, false},
		"protocol":          {Filter{Protocols: []model.Protocol{model.UDP}}, false, true, false},
		"container":         {Filter{Containers: []string{"db"}, Ports: ports(0).Ports}, false, false, false},
		"exposure":          {Filter{Exposures: []model.Exposure{model.Host}}, false, false, false},
	} {
		if a, b, c := test.filter.Event(&one), test.filter.Event(&several), test.filter.Event(&gap); a != test.one || b != test.several || c != test.gap {
			t.Errorf("%s: a burst of one port %v, of several %v, a gap %v; want %v, %v, %v", name, a, b, c, test.one, test.several, test.gap)
		}
	}
}
