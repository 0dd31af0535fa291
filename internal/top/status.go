package top

import (
	"slices"
	"strings"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// Status is how the watching goes. Its texts are safe to show.
type Status struct {
	Host string
	// Containers are those that are watched, Namespaces their network namespaces.
	Containers, Namespaces int
	// Sources tell of changes, for people: "ebpf".
	Sources string
	// Gaps and Lost are since the start of the watching.
	Gaps, Lost uint64
	// Trouble is what does not work; empty while everything does.
	Trouble string
}

// newStatus makes a status; notReady is empty while the capture works.
func newStatus(capture *model.CaptureStatus, containers int, notReady string) Status {
	s := Status{
		Host: output.Printable(capture.Host), Containers: containers, Namespaces: len(capture.Watchers),
		Sources: sources(capture), Gaps: capture.Gaps, Lost: capture.Lost, Trouble: output.Printable(notReady),
	}
	if s.Trouble == "" && capture.Engine.Error != "" {
		s.Trouble = output.Printable("the Docker Engine cannot be reached: " + capture.Engine.Error)
	}
	return s
}

func sources(capture *model.CaptureStatus) string {
	var names []string
	for _, w := range capture.Watchers {
		if w.Source != "" {
			names = append(names, output.Printable(string(w.Source)))
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
