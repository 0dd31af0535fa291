package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

var begin = time.Date(2026, 11, 22, 18, 36, 28, 0, time.UTC)

// happened is a fact that took a millisecond, so many milliseconds after begin.
func happened(action string, number uint16, after int) fact {
	at := begin.Add(time.Duration(after) * time.Millisecond)
	return fact{Action: action, Time: at, After: at.Add(time.Millisecond), Protocol: "tcp", Address: "0.0.0.0", Port: number, PID: 7}
}

// told is the event that reports a fact as eBPF does.
func told(id uint64, f fact) *model.Event {
	e := &model.Event{ID: id, Time: f.Time.Add(time.Microsecond), Type: model.Type(f.Action)}
	e.Container = &model.ContainerRef{ID: "1", Name: "demo"}
	e.Protocol, e.Address, e.Port = model.TCP, netip.MustParseAddr(f.Address), f.Port
	e.Processes = []model.Process{{PID: 4000 + f.PID, ContainerPID: f.PID, Name: "workload"}}
	e.Exposure, e.Source = model.Network, model.SourceEBPF
	return e
}

// two ports, of which the second opens before the first closes.
func twoPorts() (facts []fact, events []*model.Event) {
	facts = []fact{happened(actionOpened, 81, 0), happened(actionOpened, 82, 10), happened(actionClosed, 81, 50), happened(actionClosed, 82, 60)}
	for i, f := range facts {
		events = append(events, told(uint64(i+1), f))
	}
	return facts, events
}

func onNetwork(report) model.Exposure { return model.Network }

func TestCompareFinds(t *testing.T) {
	for _, test := range []struct {
		name          string
		change        func(events []*model.Event) []*model.Event
		missing, want string // part of the only finding; empty: none
	}{
		{"nothing where all is right", func(e []*model.Event) []*model.Event { return e }, "", ""},
		{"a missing report", func(e []*model.Event) []*model.Event { return e[:3] }, "closed 82/tcp on 0.0.0.0", ""},
		{"a duplicate", func(e []*model.Event) []*model.Event { return append(e, told(5, happened(actionOpened, 81, 0))) }, "",
			"opened 81/tcp on 0.0.0.0 is reported 2 times and happened 1 times"},
		{"a port that was never opened", func(e []*model.Event) []*model.Event { return append(e, told(5, happened(actionOpened, 83, 70))) }, "",
			"opened 83/tcp on 0.0.0.0 is reported and did not happen"},
		{"a change of owner that was none", func(e []*model.Event) []*model.Event { return append(e, told(5, happened("changed", 81, 20))) }, "",
			"changed 81/tcp on 0.0.0.0 is reported and did not happen"},
		{"another process", func(e []*model.Event) []*model.Event { e[0].Processes[0].ContainerPID = 8; return e }, "",
			"opened 81/tcp on 0.0.0.0 names the process 8 of the container, want [7]"},
		{"another name", func(e []*model.Event) []*model.Event { e[0].Processes[0].Name = "nginx"; return e }, "",
			"names the process nginx, want workload"},
		{"no process", func(e []*model.Event) []*model.Event { e[2].Processes = nil; return e }, "",
			"closed 81/tcp on 0.0.0.0 names no process"},
		{"a process too many", func(e []*model.Event) []*model.Event {
			e[0].Processes = append(e[0].Processes, model.Process{PID: 1, ContainerPID: 1})
			return e
		}, "", "names the process 1 of the container"},
		{"another exposure", func(e []*model.Event) []*model.Event { e[1].Exposure = model.Published; return e }, "",
			"opened 82/tcp on 0.0.0.0 has the exposure published, want network"},
		{"the same in another container too", func(e []*model.Event) []*model.Event {
			other := *e[0]
			other.ID, other.Container = 5, &model.ContainerRef{Name: "web"}
			return append(e, &other)
		}, "", "opened 81/tcp on 0.0.0.0 is reported of the container web"},
		{"a closing before the opening", func(e []*model.Event) []*model.Event {
			e[0].ID, e[2].ID = e[2].ID, e[0].ID
			return e
		}, "", "closed 81/tcp on 0.0.0.0 is reported before its opening"},
		{"times in another order", func(e []*model.Event) []*model.Event {
			e[1].Time = e[0].Time.Add(-time.Microsecond)
			return e
		}, "", "opened 82/tcp on 0.0.0.0 has a time before that of opened 81/tcp on 0.0.0.0"},
	} {
		facts, events := twoPorts()
		c := compare(&truth{container: "demo", facts: facts, exposure: onNetwork}, test.change(events))
		if got := strings.Join(c.missing, "; "); got != test.missing {
			t.Errorf("%s: missing %q, want %q", test.name, got, test.missing)
		}
		if got := strings.Join(c.wrong, "; "); len(c.wrong) > 1 || !strings.Contains(got, test.want) || (test.want == "") != (got == "") {
			t.Errorf("%s: found %q, want %q alone", test.name, got, test.want)
		}
	}
}

// In another container in place of the right one: both are told.
func TestCompareFindsAnotherContainer(t *testing.T) {
	facts, events := twoPorts()
	events[0].Container = &model.ContainerRef{Name: "web"}
	c := compare(&truth{container: "demo", facts: facts, exposure: onNetwork}, events)
	if len(c.missing) != 1 || len(c.wrong) != 1 || c.wrong[0] != "opened 81/tcp on 0.0.0.0 is reported of the container web" {
		t.Errorf("missing %v, wrong %v", c.missing, c.wrong)
	}
}

// What a source cannot know is not asked of it, and said not to be compared.
func TestCompareAsksWhatTheSourceKnows(t *testing.T) {
	facts, events := twoPorts()
	for _, e := range events {
		e.Source, e.Processes, e.Exposure = model.SourceDestroy, nil, ""
		e.Time = begin.Add(time.Second - time.Duration(e.ID)) // when it was noticed
	}
	events[2].Time, events[3].Time = begin.Add(2*time.Second), begin.Add(2*time.Second)
	other := told(5, happened(actionOpened, 81, 0)) // another container's own port 81
	other.Container, other.Processes[0].PID = &model.ContainerRef{Name: "web"}, 99
	own := told(6, happened(actionOpened, 9000, 0))
	c := compare(&truth{container: "demo", facts: facts, exposure: onNetwork, others: map[number]bool{{"tcp", 9000}: true}}, append(events, other, own))
	if len(c.missing)+len(c.wrong) > 0 {
		t.Errorf("missing %v, wrong %v; want neither", c.missing, c.wrong)
	}
	if got, want := c.String(), "4 reports by destroy, each once, in order, of the right container and in the log; process right in 0, "+
		"exposure in 0; nothing else reported"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A port is open while one of its sockets is.
func TestChanges(t *testing.T) {
	facts := []fact{happened(actionOpened, 81, 0), happened(actionOpened, 81, 1), happened(actionHeld, 81, 2), happened(actionClosed, 81, 3), happened(actionClosed, 81, 4)}
	if got := changes(facts); len(got) != 2 || got[0] != facts[0] || got[1] != facts[4] {
		t.Errorf("%+v; want the first opening and the last closing", got)
	}
}

func TestExposureOfAnInspection(t *testing.T) {
	for _, test := range []struct {
		inspection, address string
		want                model.Exposure
	}{
		{`{"HostConfig":{"NetworkMode":"shop_default"},"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"}}}}`, "0.0.0.0", model.Network},
		{`{"HostConfig":{"NetworkMode":"shop_default"},"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"}}}}`, "127.0.0.1", model.Loopback},
		{`{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}},"Ports":{"80/tcp":[{"HostPort":"8080"}]}}}`, "::", model.Published},
		{`{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}},"Ports":{"80/tcp":null}}}`, "0.0.0.0", model.Network},
		{`{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}`, "172.17.0.2", ""},
		{`{"HostConfig":{"NetworkMode":"host"},"NetworkSettings":{"Networks":{"host":{}}}}`, "0.0.0.0", model.Host},
		{`{"HostConfig":{"NetworkMode":"none"},"NetworkSettings":{"Networks":{"none":{}}}}`, "0.0.0.0", model.Loopback},
		{`{"HostConfig":{"NetworkMode":"container:5f"}}`, "0.0.0.0", ""},
	} {
		d := fakeDocker(t, fakeEngine{inspection: test.inspection})
		exposure, err := d.exposure(t.Context(), "demo")
		if err != nil {
			t.Fatal(err)
		}
		if got := exposure(report{actionOpened, "tcp", test.address, 80}); got != test.want {
			t.Errorf("%s on %s: %q, want %q", test.inspection, test.address, got, test.want)
		}
	}
}
