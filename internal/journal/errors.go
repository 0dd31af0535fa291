package journal

import (
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// RefusedError reports that the journal at a path must not be written, or read: another
// instance writes it, a later version of the program wrote it, or it is the database of
// another program. The program ends with it, because to continue would harm the files of
// others.
type RefusedError struct {
	Path   string
	Reason string // why, and what to do
}

// Error implements error.
func (e *RefusedError) Error() string { return fmt.Sprintf("the journal %s %s", e.Path, e.Reason) }

func inUse(path string, pid int) error {
	by := "another instance"
	if pid > 0 { // in the pid namespace of that instance
		by = fmt.Sprintf("another instance (pid %d)", pid)
	}
	return &RefusedError{path, "is in use by " + by + ": stop that, or name another file with --state"}
}

func newer(path string, version int) error {
	return &RefusedError{path, fmt.Sprintf("has schema version %d, and this portwatcher reads %d and older: run a newer portwatcher, or name another file with --state",
		version, newestSchema)}
}

func foreign(path string) error {
	return &RefusedError{path, "is the database of another program: name another file with --state"}
}

// DamagedError reports that a row of the journal cannot be read.
type DamagedError struct {
	ID  uint64 // of the event
	Err error
}

// Error implements error.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("event %d of the journal is damaged: %v", e.ID, e.Err)
}

// Unwrap returns the reason.
func (e *DamagedError) Unwrap() error { return e.Err }

// UnknownTimeError reports that a time is outside the journal, which has the time from
// From, when its record begins, until now. From is zero where there is no record.
type UnknownTimeError struct{ At, From, Until time.Time }

// Error implements error.
func (e *UnknownTimeError) Error() string {
	at := e.At.UTC().Format(time.RFC3339)
	switch {
	case e.From.IsZero():
		return fmt.Sprintf("the journal does not cover %s: it has no record yet", at)
	case e.At.Before(e.From):
		return fmt.Sprintf("the journal does not cover %s: it begins at %s", at, e.From.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("the journal does not cover %s: that is in the future (now is %s)", at, e.Until.UTC().Format(time.RFC3339))
}

var errClosed = errors.New("the journal is closed")

// damage is an error that SQLite does not find: the content is not that of a journal.
type damage struct{ error }

func (d damage) Unwrap() error { return d.error }

// cannotOpen reports whether SQLite could not open a file: the database, or one that it
// needs beside it.
func cannotOpen(err error) bool {
	code := codeOf(err)
	return code == sqlite3.SQLITE_CANTOPEN || code == sqlite3.SQLITE_READONLY
}

// isCorrupt reports whether a file is damaged, or no database.
func isCorrupt(err error) bool {
	code := codeOf(err)
	_, damaged := errors.AsType[damage](err)
	return damaged || code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

// codeOf returns the primary result code of SQLite; 0 for other errors.
// Source: https://www.sqlite.org/rescode.html.
func codeOf(err error) int {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return sqlite3.SQLITE_OK
	}
	return e.Code() & 0xff
}
