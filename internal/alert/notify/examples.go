package notify

import (
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"portwatcher/internal/model"
)

// Example is a notification that shows one kind of message.
type Example struct {
	// Name is the kind, for people.
	Name         string
	Notification *Notification
}

// Examples returns an example of each kind of message, marked as such. The first is what
// `portwatcher alerts test` sends. page is the address of the page; empty for none.
func Examples(host string, at time.Time, page string) []Example {
	m := exampleMaker{host, at.UTC(), page}
	var examples []Example
	add := func(name string, project string, alerts ...Alert) *Notification {
		n := m.notification(project, alerts)
		examples = append(examples, Example{name, n})
		return n
	}
	unexpected := m.alert("unexpected", Warning, m.unexpected())
	unexpected.Expectation = "- target: shop/web\n  port: 9229/tcp\n  exposure: published\n"
	wider := m.alert("widened", Critical, m.wider())
	wider.LastSeen = new(at.Add(-2 * time.Hour).UTC())
	wider.LastChange = &ContainerChange{At: at.Add(-12 * time.Second).UTC(), Image: "postgres:18", PreviousImage: "postgres:17"}
	wider.Expectation = "- target: shop/db\n  port: 5432/tcp\n  exposure: published\n"
	missing := m.alert("missing", Critical, m.missing())
	missing.LastSeen = new(at.Add(-45 * time.Second).UTC())
	missing.LastChange = &ContainerChange{At: at.Add(-50 * time.Second).UTC(), Image: "postgres:18"}
	resolved := m.resolved(missing)
	add("unexpected port", "shop", unexpected)
	add("wider exposure", "shop", wider)
	add("missing port", "shop", missing)
	add("another program", "shop", m.alert("process", Critical, m.process()))
	add("uncovered container", "", m.alert("uncovered", Info, m.uncovered()))
	add("new port, without expectations", "shop", m.alert("new-port", Warning, m.opened()))
	add("published port gone, without expectations", "shop", m.alert("port-gone", Critical, m.closed()))
	add("exposure changed, without expectations", "shop", m.alert("exposure", Critical, m.exposure()))
	add("burst", "", m.alert("burst", Info, m.burst()))
	add("gap", "", m.alert("blind", Warning, m.gap()))
	add("end of a condition", "shop", resolved)
	add("group: what happened together", "shop", unexpected, wider, resolved)
	night := add("digest: what quiet hours held back", "", unexpected, m.alert("new-port", Warning, m.opened()), resolved)
	night.Digest = true
	return examples
}

type exampleMaker struct {
	host string
	at   time.Time
	page string
}

func (m *exampleMaker) notification(project string, alerts []Alert) *Notification {
	n := &Notification{
		ID: m.host + "/4711", Time: m.at, Host: m.host, Project: project, Severity: Info, Test: true, Alerts: alerts,
	}
	for i := range alerts {
		if alerts[i].Severity.Compare(n.Severity) > 0 {
			n.Severity = alerts[i].Severity
		}
	}
	return n
}

func (m *exampleMaker) alert(rule string, severity Severity, e *model.Event) Alert {
	a := Alert{Rule: rule, Severity: severity, Status: Firing, Since: e.Time, Event: e}
	identity := Identity{Rule: rule, Protocol: e.Protocol, Port: e.Port, Exposure: e.Exposure}
	if e.Container != nil {
		identity.Target = e.Container.Target()
	}
	a.Key = identity.Key()
	if m.page != "" && e.Container != nil {
		a.URL = m.page + "/?container=" + url.QueryEscape(e.Container.Name)
		if e.Port != 0 {
			a.URL += fmt.Sprintf("&port=%d/%s", e.Port, e.Protocol)
		}
	}
	return a
}

// resolved is the end of a missing port.
func (m *exampleMaker) resolved(missing Alert) Alert {
	e := *missing.Event
	e.ID, e.Time, e.Ended, e.Reason = e.ID+9, m.at.Add(-2*time.Second), true, ""
	missing.Status, missing.Until, missing.Event = Resolved, e.Time, &e
	return missing
}

func (m *exampleMaker) event(id uint64, kind model.Type, before time.Duration, l model.Listener) *model.Event {
	l.Host = m.host
	return &model.Event{ID: id, Time: m.at.Add(-before), Type: kind, Listener: l}
}

func (m *exampleMaker) listener(service, image string, port uint16, process model.Process) model.Listener {
	return model.Listener{
		Container: &model.ContainerRef{
			ID: "8fbd52e5a4c8a2b1ce5ff3dd0e6b1c30a2c1f1d6f0a94c7a5b1e0f2d3c4b5a69", Name: "shop-" + service + "-1", Image: image,
			Project: "shop", Service: service,
		},
		Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: port, Processes: []model.Process{process}, Source: model.SourceEBPF,
	}
}

func (m *exampleMaker) unexpected() *model.Event {
	l := m.listener("web", "shop/web:4.2", 9229, model.Process{PID: 1827, ContainerPID: 1, Name: "node", Executable: "/usr/local/bin/node"})
	l.SetReach(model.Published, []string{"0.0.0.0:9229", "[::]:9229"})
	e := m.event(4702, model.Opened, 7*time.Second, l)
	e.Drift = model.DriftUnexpected
	return e
}

func (m *exampleMaker) wider() *model.Event {
	l := m.listener("db", "postgres:18", 5432, model.Process{PID: 2304, ContainerPID: 1, Name: "postgres", Executable: "/usr/lib/postgresql/18/bin/postgres"})
	l.SetReach(model.Published, []string{"0.0.0.0:5432"})
	e := m.event(4703, model.Opened, 10*time.Second, l)
	e.Drift = model.DriftWider
	return e
}

func (m *exampleMaker) missing() *model.Event {
	l := m.listener("db", "postgres:18", 5432, model.Process{})
	l.Address, l.Processes, l.Source = netip.Addr{}, nil, ""
	e := m.event(4690, model.Drifted, 15*time.Second, l)
	e.Drift, e.Reason = model.DriftMissing, "closed for 30s"
	return e
}

func (m *exampleMaker) process() *model.Event {
	l := m.listener("web", "shop/web:4.2", 80, model.Process{PID: 3050, ContainerPID: 77, Name: "nc", Executable: "/usr/bin/ncat"})
	l.SetReach(model.Published, []string{"0.0.0.0:80"})
	e := m.event(4704, model.Changed, 4*time.Second, l)
	e.Change, e.Drift = model.ChangeProcess, model.DriftProcess
	return e
}

func (m *exampleMaker) uncovered() *model.Event {
	l := model.Listener{Container: &model.ContainerRef{ID: "a01f", Name: "scratch", Image: "python:3.13"}}
	e := m.event(4705, model.Drifted, 5*time.Second, l)
	e.Drift = model.DriftUncovered
	return e
}

func (m *exampleMaker) opened() *model.Event {
	e := m.unexpected()
	e.Drift = ""
	return e
}

func (m *exampleMaker) closed() *model.Event {
	l := m.listener("web", "shop/web:4.2", 443, model.Process{PID: 1790, ContainerPID: 1, Name: "nginx", Executable: "/usr/sbin/nginx"})
	l.SetReach(model.Published, []string{"0.0.0.0:443", "[::]:443"})
	e := m.event(4706, model.Closed, 31*time.Second, l)
	e.OpenedAt, e.OpenSeconds = e.Time.Add(-26*time.Hour), new(26*time.Hour.Seconds())
	return e
}

func (m *exampleMaker) exposure() *model.Event {
	e := m.wider()
	e.Type, e.Drift, e.Change, e.PreviousExposure, e.Source = model.Changed, "", model.ChangeExposure, model.Network, model.SourceEngine
	return e
}

func (m *exampleMaker) burst() *model.Event {
	l := m.listener("worker", "shop/worker:4.2", 0, model.Process{PID: 4100, Name: "scan", Executable: "/srv/scan"})
	e := m.event(4707, model.Bursts, 3*time.Second, l)
	e.Burst = &model.Burst{
		Opened: 31245, Closed: 31244, First: e.Time.Add(-time.Second), Last: e.Time, Ports: []uint16{20000, 20911}, PortCount: 912,
	}
	return e
}

func (m *exampleMaker) gap() *model.Event {
	e := m.event(4708, model.Gap, 8*time.Second, model.Listener{})
	e.Reason, e.Lost = "the kernel's ring of reports was full", 120
	return e
}
