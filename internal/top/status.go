package top

import (
	"slices"
	"strings"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// watchStatus describes the watching. Its texts may contain any characters.
type watchStatus struct {
	Host string
	// Containers is how many are monitored.
	Containers int
	// Sources has the source of each network namespace that is watched.
	Sources []model.Source
	// Gaps and Lost count gaps and lost events since the start of the watching.
	Gaps, Lost uint64
	// NotReady is why not everything is watched, EngineError why the Docker Engine is not
	// connected; empty otherwise.
	NotReady, EngineError string
}

// trouble describes what does not work; it is empty while everything does.
func (s *watchStatus) trouble() string {
	if s.NotReady == "" && s.EngineError != "" {
		return output.Printable("the Docker Engine cannot be reached: " + s.EngineError)
	}
	return output.Printable(s.NotReady)
}

// sources lists the sources in use, "ebpf, sock_diag".
func (s *watchStatus) sources() string {
	var names []string
	for _, source := range s.Sources {
		if source != "" {
			names = append(names, output.Printable(string(source)))
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
