package expect

import (
	"fmt"
	"slices"
	"strings"
)

// Diff returns the differences of two files, a line for each: entries that were added (+), removed
// (-) and changed (~), in the order of the new file, then of the old. Comments, the order and
// reasons are no differences.
func Diff(before, after *File) []string {
	left := slices.Clone(before.Entries)
	take := func(match func(e *Entry) bool) *Entry {
		at := slices.IndexFunc(left, match)
		if at < 0 {
			return nil
		}
		e := left[at]
		left = slices.Delete(left, at, at+1)
		return e
	}
	var others []*Entry // of the new file, that are not in the old
	for _, e := range after.Entries {
		if take(func(old *Entry) bool { return old.place() == e.place() && old.allowed() == e.allowed() }) == nil {
			others = append(others, e)
		}
	}
	var all []string
	for _, e := range others {
		if old := take(func(old *Entry) bool { return old.place() == e.place() }); old != nil {
			all = append(all, fmt.Sprintf("~ %s: %s (was %s)", e.place(), e.allowed(), old.allowed()))
		} else {
			all = append(all, fmt.Sprintf("+ %s: %s", e.place(), e.allowed()))
		}
	}
	for _, e := range left {
		all = append(all, fmt.Sprintf("- %s: %s", e.place(), e.allowed()))
	}
	return all
}

// place is the target and the ports of an entry.
func (e *Entry) place() string { return e.Target.String() + " " + e.Ports.String() }

// allowed describes what an entry allows and requires.
func (e *Entry) allowed() string {
	parts := []string{"at most " + string(e.Exposure)}
	if e.Inside {
		parts = append(parts, "from inside only")
	}
	if len(e.Processes) > 0 {
		parts = append(parts, "process "+strings.Join(e.Processes, " or "))
	}
	if e.Required {
		parts = append(parts, "required, for "+e.For.String())
	}
	if !e.Until.IsZero() {
		parts = append(parts, "until "+e.LastDay())
	}
	return strings.Join(parts, ", ")
}
