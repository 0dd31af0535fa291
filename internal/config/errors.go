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
	// File and Line, from 1, are where it stands, if that is a file; Line is 0
	// where the file as a whole is meant.
	File string
	Line int
	// Setting is the name in the form that the user used, as in
	// "--scan-interval", "SCAN_INTERVAL" or "scan_interval".
	Setting string
	Value   string
	// Err says what is wrong, or what is allowed.
	Err error

	// without says that there is no value to show.
	without bool
}

// Error implements error.
func (e *Error) Error() string {
	var text strings.Builder
	if e.File != "" {
		text.WriteString(place(e.File, e.Line) + ": ")
	}
	if e.Setting != "" {
		text.WriteString(e.Setting + ": ")
	}
	if !e.without {
		text.WriteString(model.Quoted(e.Value) + ": ")
	}
	if entry, ok := errors.AsType[*model.EntryError](e.Err); ok && !e.without && entry.Entry == strings.TrimSpace(e.Value) {
		return text.String() + entry.Err.Error() // the value stands there already
	}
	text.WriteString(e.Err.Error())
	return text.String()
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Errors are several problems, each one line, so that all can be corrected at
// once.
type Errors []*Error

// Error implements error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, problem := range e {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems.
func (e Errors) Unwrap() []error {
	problems := make([]error, len(e))
	for i, problem := range e {
		problems[i] = problem
	}
	return problems
}

// maxProblems is how many problems are told at once.
const maxProblems = 20

// join returns nil, an [*Error] or [Errors].
func join(problems []*Error) error {
	switch more := len(problems) - maxProblems; {
	case len(problems) == 0:
		return nil
	case len(problems) == 1:
		return problems[0]
	case more > 0:
		problems = append(problems[:maxProblems:maxProblems], &Error{without: true, Err: fmt.Errorf("and %d more problems", more)})
	}
	return Errors(problems)
}

// place returns "file:line" in one line.
func place(file string, line int) string {
	if strings.ContainsFunc(file, unicode.IsControl) {
		file = strconv.Quote(file)
	}
	if line > 0 {
		file += ":" + strconv.Itoa(line)
	}
	return file
}
