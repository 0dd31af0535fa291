// Package expect compares what is open with what somebody declared: the file of expectations
// and the labels of containers. What differs is a drift; see [model.Drift].
//
// A [File] is immutable: a reload replaces it as a whole. [Judge] is the state of a running
// capture, [Compare] the comparison of one list. Neither does I/O, and both decide by the same
// rules:
//
//   - An endpoint is expected where an entry with its container and its port allows its
//     exposure and its processes. Of several such entries one is enough.
//   - Entries of the file win: labels count for the ports that no entry of the file has.
//   - What is not known is no drift: an endpoint without a known exposure is not wider than
//     expected, and one without known processes has no other program.
//   - An endpoint of no container, and a container that is not monitored, are not judged.
//   - Where there is neither a file nor a label, nothing is judged.
package expect

import (
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// Label is the name of the label that has the expectations of one container, in the form of
// [ParseLabel].
const Label = "portwatcher.expect"

// File is a file of expectations. It is immutable.
type File struct {
	// Name is the path, for messages.
	Name    string
	Entries []*Entry
	// required are the ports that an entry requires.
	required map[portOf]bool
}

// Entry is one expectation.
type Entry struct {
	Target model.Selection
	Ports  model.PortSet
	// Exposure is the widest that is expected.
	Exposure model.Exposure
	// Inside means that no other machine may reach it (outside: false), for what is published at a
	// loopback address of the host.
	Inside bool
	// Processes are names or executables, each of which may hold the port; none allows all.
	Processes []string
	Reason    string
	// Until is the first moment at which the entry does not count any more; zero is never.
	Until time.Time
	// Required means that each port has to be open, in one container of the target at least.
	// Its absence is a drift after For.
	Required bool
	For      time.Duration
	// Line is where the entry begins in the file; 0 for a label.
	Line int
}

// portOf is a port of one protocol.
type portOf struct {
	protocol model.Protocol
	port     uint16
}

// Valid reports whether the entry counts at a time.
func (e *Entry) Valid(at time.Time) bool { return e.Until.IsZero() || at.Before(e.Until) }

// LastDay is the last day on which the entry counts, as the file has it; empty for ever.
func (e *Entry) LastDay() string {
	if e.Until.IsZero() {
		return ""
	}
	return e.Until.AddDate(0, 0, -1).Format(untilLayout)
}

// Expiring returns the entries that stop to count within a time from now, in the order of
// the file.
func (f *File) Expiring(now time.Time, within time.Duration) []*Entry {
	var all []*Entry
	for _, e := range f.Entries {
		if !e.Until.IsZero() && e.Valid(now) && !e.Valid(now.Add(within)) {
			all = append(all, e)
		}
	}
	return all
}

// nextExpiry returns the first moment after now at which an entry stops to count; zero where
// there is none.
func (f *File) nextExpiry(now time.Time) (next time.Time) {
	if f == nil {
		return next
	}
	for _, e := range f.Entries {
		if !e.Until.IsZero() && e.Until.After(now) && (next.IsZero() || e.Until.Before(next)) {
			next = e.Until
		}
	}
	return next
}

// dependsOn reports whether what an entry selects may depend on whether a container of this
// name runs.
func (f *File) dependsOn(name string) bool {
	return f != nil && slices.ContainsFunc(f.Entries, func(e *Entry) bool { return e.Target.DependsOn(name) })
}

// cover is what is expected of one container.
type cover struct {
	file   bool // there is a file
	byFile []*Entry
	byText []*Entry // of the label
}

// coverOf returns what is expected of a container among those of some names. f may be nil.
func (f *File) coverOf(c *model.ContainerRef, names model.Names) *cover {
	v := &cover{file: f != nil}
	if f != nil {
		for _, e := range f.Entries {
			if e.Target.Matches(c, names) {
				v.byFile = append(v.byFile, e)
			}
		}
	}
	if text := c.Labels[Label]; text != "" {
		v.byText, _ = ParseLabel(text) // an invalid one is logged where containers are chosen
	}
	return v
}

// judged reports whether anything is expected of the container at all.
func (v *cover) judged() bool { return v.file || len(v.byText) > 0 }

// uncovered reports whether no entry covers the container.
func (v *cover) uncovered(at time.Time) bool {
	return v.file && len(v.byText) == 0 && !slices.ContainsFunc(v.byFile, func(e *Entry) bool { return e.Valid(at) })
}

// Verdict is how an endpoint differs from what is expected; the zero value is not at all.
type Verdict struct {
	Drift model.Drift
	// Expected is that of [model.OpenDrift].
	Expected string
}

// verdict judges an endpoint at a time.
func (v *cover) verdict(l *model.Listener, at time.Time) Verdict {
	if !v.judged() {
		return Verdict{}
	}
	if v.uncovered(at) {
		return Verdict{Drift: model.DriftUncovered}
	}
	entries := v.of(l.Protocol, l.Port, at)
	if len(entries) == 0 {
		return Verdict{Drift: model.DriftUnexpected}
	}
	worst := model.DriftWider
	var expected []string
	for _, e := range entries {
		drift, text := e.differs(l)
		switch drift {
		case "":
			return Verdict{}
		case model.DriftProcess:
			worst = drift
		}
		if !slices.Contains(expected, text) {
			expected = append(expected, text)
		}
	}
	return Verdict{worst, strings.Join(expected, ", or ")}
}

// of returns the entries for a port that count at a time: those of the file, else those of the
// label.
func (v *cover) of(protocol model.Protocol, port uint16, at time.Time) []*Entry {
	for _, list := range [][]*Entry{v.byFile, v.byText} {
		var found []*Entry
		for _, e := range list {
			if e.Valid(at) && e.Ports.Contains(protocol, port) {
				found = append(found, e)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// differs returns how an endpoint differs from an entry for its port, and what the entry
// allows.
func (e *Entry) differs(l *model.Listener) (model.Drift, string) {
	reach := "at most " + string(e.Exposure)
	if e.Inside {
		reach += ", from inside only"
	}
	switch {
	case l.Exposure != "" && model.CompareReach(l.Exposure, e.Exposure) < 0, e.Inside && l.Outside != nil && *l.Outside:
		return model.DriftWider, reach
	case !e.allows(l.Processes):
		return model.DriftProcess, "process " + strings.Join(e.Processes, " or ")
	}
	return "", ""
}

// allows reports whether each process that is known may hold the port.
func (e *Entry) allows(processes []model.Process) bool {
	return len(e.Processes) == 0 || !slices.ContainsFunc(processes, func(p model.Process) bool {
		return (p.Name != "" || p.Executable != "") && !slices.ContainsFunc(e.Processes, func(word string) bool { return isProgram(word, &p) })
	})
}

// isProgram reports whether a word names a process: by the path of its executable, by the
// last part of that, or by its name.
func isProgram(word string, p *model.Process) bool {
	if strings.Contains(word, "/") {
		return p.Executable == word
	}
	return p.Name == word[:min(len(word), model.MaxProcessName)] || p.Program() == word
}
