package output

import (
	"fmt"

	"portwatcher/internal/model"
)

// DriftEventText is the sentence of a drift event, without its container: "Drift began:
// 5432/tcp is required, and is not open (not open for 30s)".
func DriftEventText(e *model.Event) string {
	text := "Drift began: "
	if e.Ended {
		text = "Drift ended: "
	}
	text += DriftText(e.Drift, &e.Listener)
	if e.Reason != "" {
		text += " (" + Printable(e.Reason) + ")"
	}
	return text
}

// DriftText describes a drift: "80/tcp on 0.0.0.0 is not expected", "5432/tcp is required, and
// not open".
func DriftText(d model.Drift, l *model.Listener) string {
	place := fmt.Sprintf("%d/%s", l.Port, l.Protocol)
	if l.Address.IsValid() {
		place += " on " + AddressText(l)
	}
	switch d {
	case model.DriftUnexpected:
		return place + " is not expected, and is open with exposure " + ReachText(l.Exposure, l.Published)
	case model.DriftMissing:
		return place + " is required, and is not open"
	case model.DriftWider:
		return place + " can be reached from further than expected: " + ReachText(l.Exposure, l.Published)
	case model.DriftProcess:
		return place + " is held by another program than expected" + processesText(" (pids: ", l.Processes)
	case model.DriftUncovered:
		return "no expectation covers the container"
	}
	return place + ": " + Printable(string(d))
}
