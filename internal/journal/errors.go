package journal

import (
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// refusal is an error for which the program ends: to continue would harm the
// files of others.
type refusal interface {
	error
	refuses()
}

// InUseError reports that another instance writes this journal.
type InUseError struct {
	Path string
	PID  int // in the pid namespace of the other instance; 0: unknown
}

func (e *InUseError) Error() string {
	by := "another instance"
	if e.PID > 0 {
		by = fmt.Sprintf("another instance (pid %d)", e.PID)
	}
	return fmt.Sprintf("the journal %s is in use by %s: stop that, or name another file with --state", e.Path, by)
}

func (*InUseError) refuses() {}

// NewerError reports that a later version of the program wrote the database.
type NewerError struct {
	Path           string
	Found, Largest int // schema versions: of the file, and the largest that this program reads
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the journal %s has schema version %d, and this portwatcher reads %d and older: run a newer portwatcher, or name another file with --state",
		e.Path, e.Found, e.Largest)
}

func (*NewerError) refuses() {}

// ForeignError reports that the file is the database of another program.
type ForeignError struct{ Path string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is the database of another program: name another file with --state", e.Path)
}

func (*ForeignError) refuses() {}

// DamagedError reports that a row of the journal cannot be read.
type DamagedError struct {
	ID  uint64 // of the event
	Err error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("event %d of the journal is damaged: %v", e.ID, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// UnknownTimeError reports that a time is outside the journal, which has the time from
// From, when its record begins, until now. From is zero where there is no record.
type UnknownTimeError struct{ At, From, Until time.Time }

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
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code()&0xff == sqlite3.SQLITE_CANTOPEN || e.Code()&0xff == sqlite3.SQLITE_READONLY)
}

// isCorrupt reports whether a file is damaged, or no database.
func isCorrupt(err error) bool {
	if _, ok := errors.AsType[damage](err); ok {
		return true
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	primary := e.Code() & 0xff
	return primary == sqlite3.SQLITE_CORRUPT || primary == sqlite3.SQLITE_NOTADB
}
