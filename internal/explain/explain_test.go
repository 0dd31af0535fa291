package explain

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/firewall"
	"portwatcher/internal/model"
)

// web returns the facts of a container with one network whose port 80 is open, published at
// 8080, and answers everywhere, with changes.
func web(changes ...func(*Facts)) *Facts {
	address := netip.MustParseAddr("172.17.0.2")
	ref := model.ContainerRef{ID: strings.Repeat("a", 64), Name: "web"}
	host := netip.MustParseAddrPort("0.0.0.0:8080")
	f := &Facts{
		Question: Question{Container: "web", Port: 80, Protocol: model.TCP}, Inside: 80,
		Subject: &engine.Description{
			Listed: engine.Listed{ContainerRef: ref, State: "running"},
			Container: &model.Container{
				ID: ref.ID, Name: "web", NetworkMode: "bridge", Addresses: []netip.Addr{address},
				Ports: []model.PublishedPort{{Protocol: model.TCP, Port: 80, Host: host}},
			},
			Requested: []model.PublishedPort{{Protocol: model.TCP, Port: 80, Host: host}},
			Networks:  []engine.Network{{Name: "bridge", Driver: "bridge", Addresses: []netip.Addr{address}}},
		},
		Open: []model.Open{{Listener: model.Listener{
			Container: &ref, Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: 80, Processes: []model.Process{{PID: 7, Name: "nginx"}},
		}}},
		Own:       []Try{{To: netip.MustParseAddrPort("127.0.0.1:80"), Result: Accepted}},
		FromHost:  []Try{{To: netip.AddrPortFrom(address, 80), Result: Accepted}},
		Published: []Try{{To: netip.MustParseAddrPort("192.0.2.1:8080"), Result: Accepted}}, HostListeners: []HostListener{{Address: netip.IPv4Unspecified()}},
	}
	for _, change := range changes {
		change(f)
	}
	return f
}

// TestExplain has the set-ups that are hard to make; the integration tests have the others.
func TestExplain(t *testing.T) {
	result := func(r Result) func(*Facts) { return func(f *Facts) { f.Published[0].Result = r } }
	udp := func(r Result) func(*Facts) {
		return func(f *Facts) {
			f.Protocol, f.ProbeUDP, f.Open[0].Protocol, f.Subject.Container.Ports[0].Protocol = model.UDP, true, model.UDP, model.UDP
			f.Own[0].Result, f.FromHost[0].Result, f.Published[0].Result = r, r, r
		}
	}
	unpublished := func(f *Facts) { f.Subject.Container.Ports, f.Published = nil, nil }
	for name, test := range map[string]struct {
		facts *Facts
		want  Diagnosis
		text  string // in the last link
	}{
		"right":     {web(), Reachable, "192.0.2.1:8080: accepted"},
		"not bound": {web(unpublished), NotBound, "was to be published at 0.0.0.0:8080"},
		"the host's port is taken": {web(func(f *Facts) {
			f.Subject.Container, f.Subject.State, f.Publisher = nil, "created", "other"
		}), HostPortTaken, "0.0.0.0:8080, is held by container other"},
		"the proxy is gone": {web(result(Refused), func(f *Facts) { f.HostListeners = nil }), NotForwarded, "does not forward"},
		"nobody behind":     {web(result(Dropped)), ForwardsElsewhere, "closed at once"},
		"a firewall":        {web(result(NoAnswer)), Filtered, "no answer"},
		"a rule": {web(result(NoAnswer), func(f *Facts) {
			f.Published[0].Blocked = []Blocked{{firewall.Rule{Family: "ip", Table: "filter", Chain: "OUTPUT", Number: 3, Verdict: "drop", Packets: 2}, "the host"}}
		}), Filtered, "rule 3 of chain OUTPUT in table ip filter (drop) of the host counted 2"},
		"a policy": {web(result(NoAnswer), func(f *Facts) {
			f.Published[0].Policies = []string{"the policy of chain INPUT in table ip filter (drop) of container web"}
		}), Filtered, "is dropped by the policy of chain INPUT"},
		"a rule inside": {web(func(f *Facts) {
			f.Own[0].Result = Refused
			f.Own[0].Blocked = []Blocked{{firewall.Rule{Family: "inet", Table: "mine", Chain: "input", Number: 1, Verdict: "reject", Packets: 1}, "container web"}}
		}), NotAnswering, "rule 1 of chain input in table inet mine (reject) of container web counted 1"},
		"UDP that is silent":   {web(udp(Silent)), Reachable, "no answer and no rejection, as is usual with UDP"},
		"UDP that answers":     {web(udp(Accepted)), Reachable, "192.0.2.1:8080: accepted"},
		"UDP that is rejected": {web(udp(Silent), result(Refused)), Filtered, "sending from the host to 192.0.2.1:8080: refused"},
		"UDP that a rule drops": {web(udp(Silent), func(f *Facts) {
			f.FromHost[0].Blocked = []Blocked{{firewall.Rule{Family: "ip", Table: "filter", Chain: "INPUT", Number: 1, Verdict: "drop", Packets: 1}, "container web"}}
		}), Filtered, "counted 1"},
		"the host listens there, too": {web(func(f *Facts) {
			f.HostListeners = []HostListener{{netip.IPv4Unspecified(), []model.Process{{PID: 9, Name: "nginx"}}}}
		}), Reachable, "accepted"},
		"a firewall rejects": {web(result(Refused)), Filtered, "refused"},
		"macvlan": {web(unpublished, func(f *Facts) {
			f.Subject.Requested, f.Open[0].Exposure = nil, model.Lan
		}), Reachable, "macvlan"},
		"shared namespace": {web(func(f *Facts) {
			f.Owner, f.Open[0].Container = "vpn", &model.ContainerRef{ID: "b", Name: "vpn"}
		}), Reachable, "accepted"},
		"its owner has ended": {web(unpublished, func(f *Facts) {
			f.Owner, f.Subject.Container.Addresses, f.Subject.Networks = "vpn", nil, nil
		}), NoNetwork, "container vpn, which has ended"},
		"listened before": {web(func(f *Facts) {
			f.Open[0].Port = 8080
			f.Last = &model.Event{Time: time.Date(2026, 11, 28, 14, 2, 0, 0, time.UTC), Type: model.Closed, Listener: f.Open[0].Listener}
		}), OtherPort, "nginx listened until 2026-11-28 "},
	} {
		t.Run(name, func(t *testing.T) {
			e := Explain(test.facts)
			last := e.Links[len(e.Links)-1]
			if e.Diagnosis != test.want || !strings.Contains(last.Text, test.text) || last.OK != e.Reachable || e.Reachable != (test.want == Reachable) {
				t.Errorf("want %q and %q:\n%s", test.want, test.text, e)
			}
			if e.Reachable != (e.Remedy == "") {
				t.Errorf("the remedy is %q", e.Remedy)
			}
		})
	}
}

// TestTerminal has a process that chose a name with the start of an escape sequence.
func TestTerminal(t *testing.T) {
	e := Explain(web(func(f *Facts) { f.Open[0].Processes[0].Name = "ng\x1b[2J\u202einx" }))
	if text := e.String(); strings.ContainsAny(text, "\x1b\u202e") || !strings.Contains(text, "by ng?[2J?inx (pid 7)") {
		t.Errorf("the text is %q", text)
	}
}
