package notify

import (
	"fmt"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// sentence is an alert in one line, without the full stop.
func sentence(a *Alert) string {
	if a.Status == Resolved {
		return ending(a.Event)
	}
	return beginning(a.Event)
}

// port is "80/tcp".
func port(e *model.Event) string { return fmt.Sprintf("%d/%s", e.Port, e.Protocol) }

// target names the container as expectations do, or the host.
func target(e *model.Event) string {
	if e.Container == nil {
		return "the host"
	}
	return clean(e.Container.Target())
}

// subject is the port of a container.
func subject(e *model.Event) string {
	if e.Port == 0 {
		return target(e)
	}
	return "port " + port(e) + " of " + target(e)
}

// further is the reach of an endpoint that others than its own networks can reach.
func further(e *model.Event) string {
	switch e.Exposure {
	case model.Published:
		return ", published at " + clean(joined(e.Published))
	case model.Host:
		return ", on the host's network"
	case model.Lan:
		return ", reachable from other machines"
	}
	return ""
}

// joined lists at most three addresses.
func joined(list []string) string {
	text := ""
	for i, one := range list {
		if i == 3 {
			return text + fmt.Sprintf(" and %d more", len(list)-i)
		}
		if i > 0 {
			text += ", "
		}
		text += one
	}
	return text
}

// beginning is the sentence of a condition that lasts.
func beginning(e *model.Event) string {
	switch e.Drift {
	case model.DriftUnexpected:
		return subject(e) + " is open and not expected" + further(e)
	case model.DriftMissing:
		return subject(e) + " is required and not open"
	case model.DriftWider:
		return subject(e) + " can be reached from further than expected" + further(e)
	case model.DriftProcess:
		return "another program than expected holds " + subject(e) + holder(e)
	case model.DriftUncovered:
		return "no expectation covers " + target(e)
	}
	switch e.Type {
	case model.Opened:
		return subject(e) + " opened" + further(e)
	case model.Closed:
		return subject(e) + " closed"
	case model.Changed:
		switch e.Change {
		case model.ChangeExposure:
			return subject(e) + " is now " + output.ReachText(e.Exposure, e.Published) + ", and was " +
				output.ReachText(e.PreviousExposure, e.PreviousPublished)
		case model.ChangeForward:
			return subject(e) + " is now" + output.ForwardText(e.Forward) + ", and was" + output.ForwardText(e.PreviousForward)
		}
		return "another process holds " + subject(e) + holder(e)
	case model.Bursts:
		return "burst of " + target(e) + ": " + output.Printable(output.BurstText(e))
	case model.Gap:
		if e.Container == nil {
			return "portwatcher did not observe everything: " + output.GapText(e)
		}
		return "portwatcher did not observe all of " + target(e) + ": " + output.GapText(e)
	}
	return clean(string(e.Type)) + " of " + subject(e)
}

// ending is the sentence of a condition that has ended, by the event that ended it.
func ending(e *model.Event) string {
	switch {
	case e.Type == model.Closed:
		return subject(e) + " is closed"
	case e.Drift == model.DriftUncovered:
		return "an expectation covers " + target(e)
	case e.Drift == model.DriftMissing && e.Type == model.Drifted:
		return subject(e) + " is no longer missing"
	case e.Type == model.Opened:
		return subject(e) + " is open" + further(e)
	case e.Type == model.Changed && e.Change != model.ChangeProcess:
		changed := *e
		changed.Drift = ""
		return beginning(&changed)
	case e.Type == model.Gap:
		return "portwatcher observes " + target(e) + " again"
	}
	return subject(e) + " is as expected"
}

// holder names the first process.
func holder(e *model.Event) string {
	if len(e.Processes) == 0 {
		return ""
	}
	return ": " + output.ProcessList(e.Processes, 1)
}
