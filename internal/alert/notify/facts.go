package notify

import (
	"cmp"
	"strings"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// describe puts one alert into words.
func describe(n *Notification, a *Alert) item {
	e := a.Event
	it := item{title: sentence(a), url: linkText(a.URL)}
	add := func(name, value string) {
		if value != "" {
			it.facts = append(it.facts, fact{name, shorten(value, maxValue)})
		}
	}
	add("Where", where(n, e))
	add("Address", address(e))
	add("Reachable", reachable(e))
	add("Process", processes(e))
	add("Since", moment(a.Since, n.Time))
	if a.Status == Resolved {
		add("Until", moment(a.Until, n.Time))
	}
	add("Seen before", seenBefore(a, n.Time))
	add("Container", lastChange(a.LastChange, n.Time))
	if e.Reason != "" && e.Type != model.Gap {
		add("Reason", clean(e.Reason))
	}
	add("Rule", clean(a.Rule)+", "+string(a.Severity))
	for line := range strings.Lines(a.Expectation) {
		it.lines = append(it.lines, output.Printable(strings.TrimRight(line, "\r\n")))
	}
	return it
}

// where names container, image and host.
func where(n *Notification, e *model.Event) string {
	host := "host " + clean(cmp.Or(e.Host, n.Host))
	c := e.Container
	if c == nil {
		return host
	}
	text := "container " + clean(c.Name)
	if c.Project != "" && c.Service != "" {
		text += " (service " + clean(c.Service) + " of project " + clean(c.Project) + ")"
	} else if c.Project != "" {
		text += " (project " + clean(c.Project) + ")"
	}
	if c.Image != "" {
		text += ", image " + clean(c.Image)
	}
	return text + ", " + host
}

func address(e *model.Event) string {
	if !e.Address.IsValid() || e.Port == 0 {
		return ""
	}
	return port(e) + " on " + output.AddressText(&e.Listener)
}

// reachable names who can reach the endpoint, and who could before.
func reachable(e *model.Event) string {
	if e.Exposure == "" || e.Port == 0 {
		return ""
	}
	text := reach(e.Exposure, e.Published)
	if e.PreviousExposure != "" {
		text += "; before: " + reach(e.PreviousExposure, e.PreviousPublished)
	}
	if e.Type == model.Closed {
		text = "it was reachable " + text
	}
	return text
}

func reach(e model.Exposure, published []string) string {
	at := ""
	if len(published) > 0 {
		at = ", published at " + clean(strings.Join(published, ", "))
	}
	switch e {
	case model.Loopback:
		return "from its own network namespace only"
	case model.Network:
		return "from the container's networks and this host"
	case model.Lan:
		return "from other machines, at the container's own address"
	case model.Published:
		if model.OnlyLoopback(published) {
			return "from this host only" + at
		}
		return "from other machines" + at
	case model.Host:
		return "from other machines, on the host's network"
	}
	return clean(string(e))
}

// maxProcesses is how many processes a message names.
const maxProcesses = 3

func processes(e *model.Event) string {
	if len(e.Processes) == 0 {
		return ""
	}
	text := "pid " + output.ProcessList(e.Processes, maxProcesses)
	if first := e.Processes[0]; first.Executable != "" {
		text += ", executable " + clean(first.Executable)
	}
	return text
}

// seenBefore is when the endpoint was open before. Where it is not known to have been, it is never
// for a port that has opened; for others the question makes no sense.
func seenBefore(a *Alert, now time.Time) string {
	switch {
	case a.Event.Port == 0 || a.Status == Resolved || a.LastSeen == nil && a.Event.Type != model.Opened:
		return ""
	case a.LastSeen == nil:
		return "never"
	}
	return "last open at " + moment(*a.LastSeen, now)
}

func lastChange(c *ContainerChange, now time.Time) string {
	if c == nil {
		return ""
	}
	text := "started at " + moment(c.At, now)
	if c.Image != "" {
		text += " with image " + clean(c.Image)
	}
	if c.PreviousImage != "" {
		text += ", before: " + clean(c.PreviousImage)
	}
	return text
}

// moment is a time, and how long before the message it was.
func moment(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	text := timeText(t)
	if before := now.Sub(t); before >= time.Second {
		duration := before.Round(time.Second).String() // a minute has no fractions
		if before >= time.Hour {
			duration = output.DurationText(before.Seconds())
		}
		text += " (" + duration + " before this message)"
	}
	return text
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
