package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"portwatcher/internal/model"
)

// Error is an invalid value: an exit status of 2. It is one line.
type Error struct {
	// Setting is the name in the form that the user used, as in "--scan-interval",
	// "SCAN_INTERVAL" or "scan_interval".
	Setting string
	Value   string
	// Err is what is wrong, or what is allowed.
	Err error

	place   string // the line of the file, if the value is in a file
	noValue bool
}

// Error implements error.
func (e *Error) Error() string {
	var text strings.Builder
	if e.place != "" {
		text.WriteString(e.place + ": ")
	}
	if e.Setting != "" {
		text.WriteString(e.Setting + ": ")
	}
	reason := e.Err.Error()
	if !e.noValue {
		text.WriteString(model.Quoted(e.Value) + ": ")
		if entry, ok := errors.AsType[*model.EntryError](e.Err); ok && entry.Entry == strings.TrimSpace(e.Value) {
			reason = entry.Err.Error() // the value is the entry
		}
	}
	return text.String() + reason
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// maxProblems is the number of problems that are reported together.
const maxProblems = 20

// join returns the problems as one error, nil if there are none.
func join(problems []*Error) error {
	var all []error
	for i, problem := range problems {
		if i == maxProblems {
			all = append(all, fmt.Errorf("and %d more problems", len(problems)-maxProblems))
			break
		}
		all = append(all, problem)
	}
	return errors.Join(all...)
}

// place returns "file:line", or "file" if the line is 0, in one line.
func place(file string, line int) string {
	if strings.ContainsFunc(file, unicode.IsControl) {
		file = strconv.Quote(file)
	}
	if line > 0 {
		file += ":" + strconv.Itoa(line)
	}
	return file
}
