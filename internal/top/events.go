package top

import (
	"fmt"
	"slices"
	"strings"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

func (m *screen) eventLines(height int) []string {
	filter := strings.ToLower(m.filter)
	var chosen []string
	for _, e := range slices.Backward(m.shown.events) {
		if len(chosen) == height-1 {
			break
		}
		if !isShown(e) {
			continue
		}
		if text := eventText(e, true); strings.Contains(strings.ToLower(text), filter) {
			chosen = append(chosen, m.line(eventStyle(e), text))
		}
	}
	slices.Reverse(chosen)
	lines := append([]string{m.line(bold, "EVENTS (UTC)")}, chosen...)
	if len(chosen) == 0 {
		why := "No event yet."
		if m.filter != "" {
			why = fmt.Sprintf("None of the last %d events has %q in its line.", len(m.shown.events), m.filter)
		}
		lines = append(lines, m.line(faint, "  "+why))
	}
	return pad(lines, height)
}

// isShown is false for the opening of a transient: the line of its close shows both.
func isShown(e *model.Event) bool { return !e.Transient || e.Type != model.Opened }

func eventStyle(e *model.Event) style {
	switch {
	case e.Transient:
		return cyan
	case e.Type == model.Opened:
		return green
	case e.Type == model.Gap:
		return red
	case e.Type == model.Drifted && e.Ended:
		return plain
	case e.Type == model.Changed, e.Type == model.Drifted:
		return yellow
	case e.Type == model.Bursts:
		return magenta
	}
	return plain
}

// eventText describes an event in one line, with or without the name of its container.
func eventText(e *model.Event, named bool) string {
	kind := string(e.Type)
	if e.Transient {
		kind = "transient"
	}
	parts := []string{fmt.Sprintf("  %s %-9s", e.Time.UTC().Format("15:04:05.000"), output.Printable(kind))}
	if named && (e.Container != nil || e.Type != model.Gap) {
		parts = append(parts, output.Printable(e.ContainerName()))
	}
	switch e.Type {
	case model.Drifted:
		return strings.Join(append(parts, output.DriftEventText(e)), " ")
	case model.Gap:
		return strings.Join(append(parts, output.GapText(e)), " ")
	case model.Bursts:
		parts = append(parts, output.BurstText(e))
	default:
		parts = append(parts, fmt.Sprintf("%d/%s on %s", e.Port, e.Protocol, addressText(&e.Listener)))
	}
	if e.OpenSeconds != nil {
		parts = append(parts, "after "+output.DurationText(*e.OpenSeconds))
	}
	if e.Type != model.Closed && e.Exposure != "" {
		parts = append(parts, exposureText(&e.Listener))
	}
	switch e.Change {
	case model.ChangeExposure:
		parts = append(parts, "was "+output.ReachText(e.PreviousExposure, e.PreviousPublished))
	case model.ChangeForward:
		parts = append(parts, "was"+output.ForwardText(e.PreviousForward))
	}
	if len(e.Processes) > 0 {
		parts = append(parts, "by "+processText(e.Processes))
	}
	if e.Drift != "" {
		parts = append(parts, "["+output.Printable(string(e.Drift))+"]")
	}
	return strings.Join(parts, " ")
}

// printableError formats an error in one line.
func printableError(err error) string {
	return output.Printable(strings.ReplaceAll(err.Error(), "\n", "; "))
}
