package server

import (
	"testing"

	"portwatcher/internal/journal"
	"portwatcher/internal/port"
)

// The journal finds the same; see its model.
func TestFilterOfBursts(t *testing.T) {
	web := &port.ContainerRef{ID: "x", Name: "web"}
	one := port.Event{Type: port.Bursts, Listener: port.Listener{Container: web, Protocol: port.TCP, Port: 80}, Burst: &port.Burst{PortCount: 1}}
	several := port.Event{Type: port.Bursts, Listener: port.Listener{Container: web}, Burst: &port.Burst{PortCount: 900}}
	gap := port.Event{Type: port.Gap, Listener: port.Listener{Container: web}}
	ports := func(protocol port.Protocol) Filter {
		return Filter{Ports: []journal.PortRange{{First: 81, Last: 90, Protocol: protocol}}}
	}
	for name, test := range map[string]struct {
		filter            Filter
		one, several, gap bool
	}{
		"none":              {Filter{}, true, true, true},
		"type":              {Filter{Types: []port.Type{port.Bursts}}, true, true, false},
		"another type":      {Filter{Types: []port.Type{port.Opened}}, false, false, false},
		"port":              {Filter{Ports: []journal.PortRange{{First: 80, Last: 80}}}, true, true, false},
		"another port":      {ports(0), false, true, false},
		"port and protocol": {ports(port.UDP), false, true, false},
		"protocol":          {Filter{Protocols: []port.Protocol{port.UDP}}, false, true, false},
		"container":         {Filter{Containers: []string{"db"}, Ports: ports(0).Ports}, false, false, false},
		"exposure":          {Filter{Exposures: []port.Exposure{port.Host}}, false, false, false},
	} {
		if a, b, c := test.filter.Event(&one), test.filter.Event(&several), test.filter.Event(&gap); a != test.one || b != test.several || c != test.gap {
			t.Errorf("%s: a burst of one port %v, of several %v, a gap %v; want %v, %v, %v", name, a, b, c, test.one, test.several, test.gap)
		}
	}
}
