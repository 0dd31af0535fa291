package model

import (
	"strings"
	"testing"
)

// TestFilterOfBursts compares filters with bursts of one port and of several.
func TestFilterOfBursts(t *testing.T) {
	web := &ContainerRef{ID: "x", Name: "web"}
	one := Event{Type: Bursts, Listener: Listener{Container: web, Protocol: TCP, Port: 80}, Burst: &Burst{PortCount: 1}}
	several := Event{Type: Bursts, Listener: Listener{Container: web}, Burst: &Burst{PortCount: 900}}
	gap := Event{Type: Gap, Listener: Listener{Container: web}}
	ports := func(protocol Protocol) Filter {
		return Filter{Ports: PortSet{[]portRange{{81, 90, protocol}}}}
	}
	db, err := ParseSelection("db")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		filter            Filter
		one, several, gap bool
	}{
		"none":              {Filter{}, true, true, true},
		"type":              {Filter{Types: []Type{Bursts}}, true, true, false},
		"another type":      {Filter{Types: []Type{Opened}}, false, false, false},
		"port":              {Filter{Ports: OnePort(0, 80)}, true, true, false},
		"another port":      {ports(0), false, true, false},
		"port and protocol": {ports(UDP), false, true, false},
		"protocol":          {Filter{Protocols: []Protocol{UDP}}, false, true, false},
		"container":         {Filter{Containers: db, Ports: ports(0).Ports}, false, false, false},
		"outside":           {Filter{Outside: &inside}, false, false, false},
		"exposure":          {Filter{Exposures: []Exposure{Host}}, false, false, false},
	} {
		m := test.filter.Matcher(NamesOf([]*ContainerRef{web}))
		if a, b, c := m.Event(&one), m.Event(&several), m.Event(&gap); a != test.one || b != test.several || c != test.gap {
			t.Errorf("%s: a burst of one port %v, of several %v, a gap %v; want %v, %v, %v", name, a, b, c, test.one, test.several, test.gap)
		}
	}
}

// Whether another machine can reach a port follows from its exposure and the addresses of
// the host that forward to it.
func TestOutside(t *testing.T) {
	for text, want := range map[string]bool{
		"loopback": false, "network": false, "lan": true, "host": true, "published": true, "published 0.0.0.0:80": true, "published 127.0.0.1:80": false,
		"published 127.9.9.9:80 [::1]:80": false, "published 127.0.0.1:80 [::]:80": true, "published [::ffff:127.0.0.1]:80": false, "published garbled": true,
	} {
		var l Listener
		words := strings.Fields(text)
		l.SetReach(Exposure(words[0]), words[1:])
		if l.Outside == nil || *l.Outside != want {
			t.Errorf("%s: outside %v, want %t", text, l.Outside, want)
		}
		for _, asked := range []*bool{&outside, &inside, nil} {
			filter := Filter{Outside: asked}
			if got := filter.Matcher(nil).Listener(&l); got != (asked == nil || *asked == want) {
				t.Errorf("%s: selected %t by %s", text, got, filter.String())
			}
		}
	}
	var unknown Listener
	unknown.SetReach("", nil)
	if filter := (Filter{Outside: &inside}); unknown.Outside != nil || filter.Matcher(nil).Listener(&unknown) || filter.All() {
		t.Errorf("an unknown exposure: %+v, or it is selected", unknown)
	}
}

func TestParseExposure(t *testing.T) {
	if e, err := ParseExposure("published"); err != nil || e != Published {
		t.Errorf("%q, error %v", e, err)
	}
	if _, err := ParseExposure("public"); err == nil || !strings.Contains(err.Error(), "loopback, network, lan, published, host") {
		t.Errorf("error %v, want those that are allowed", err)
	}
}

func TestFilterOfDrifts(t *testing.T) {
	filter := Filter{Drifts: []Drift{DriftWider, DriftMissing}}
	m := filter.Matcher(nil)
	for drift, want := range map[Drift]bool{DriftWider: true, DriftMissing: true, DriftUnexpected: false, "": false} {
		if e, o, d := m.Event(&Event{Drift: drift}), m.Open(&Open{Drift: drift}), m.Drift(&OpenDrift{Drift: drift}); e != want || o != want || d != want {
			t.Errorf("%q: an event %t, an endpoint %t, a drift %t; want %t", drift, e, o, d, want)
		}
	}
	if filter.All() || filter.String() == (&Filter{}).String() {
		t.Errorf("%s selects all", filter.String())
	}
	if _, err := ParseDrift("gone"); err == nil || !strings.Contains(err.Error(), "unexpected, missing, wider, process, uncovered") {
		t.Errorf("error %v, want those that are allowed", err)
	}
	if d, err := ParseDrift("wider"); err != nil || d != DriftWider {
		t.Errorf("%q, error %v", d, err)
	}
}

func TestTarget(t *testing.T) {
	for want, c := range map[string]ContainerRef{
		"web":      {Name: "web"},
		"shop/web": {Name: "shop-web-1", Project: "shop", Service: "web"},
		"shop":     {Name: "shop", Project: "shop"},
	} {
		if got := c.Target(); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}
