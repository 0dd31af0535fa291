package journal

import (
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// refusal is an error for which the program ends: going on would harm what
// others have.
type refusal interface {
	error
	refuses()
}

// InUseError says that another instance writes this journal.
type InUseError struct {
	Path string
	PID  int // in the pid namespace of the other instance; 0: not known
}

func (e *InUseError) Error() string {
	by := "another instance"
	if e.PID > 0 {
		by = fmt.Sprintf("another instance (pid %d)", e.PID)
	}
	return fmt.Sprintf("the journal %s is in use by %s: stop that, or name another file with --state", e.Path, by)
}

func (*InUseError) refuses() {}

// NewerError says that a later version of the program wrote the database.
type NewerError struct {
	Path           string
	Found, Largest int // schema versions: of the file, and the largest that is understood here
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the journal %s has schema version %d, and this portwatcher knows %d and older: run a newer portwatcher, or name another file with --state",
		e.Path, e.Found, e.Largest)
}

func (*NewerError) refuses() {}

// ForeignError says that the file is the database of another program.
type ForeignError struct{ Path string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is the database of another program: name another file with --state", e.Path)
}

func (*ForeignError) refuses() {}

// DamagedError says that a row of the journal cannot be understood.
type DamagedError struct {
	ID  uint64 // of the event
	Err error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("event %d of the journal is damaged: %v", e.ID, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// UnknownTimeError says that the journal does not know a time. From and Until
// are what it knows: from when its record begins to now.
type UnknownTimeError struct{ At, From, Until time.Time }

func (e *UnknownTimeError) Error() string {
	at := e.At.UTC().Format(time.RFC3339)
	switch {
	case e.From.IsZero():
		return fmt.Sprintf("nothing is known of %s: the journal has no record yet", at)
	case e.At.Before(e.From):
		return fmt.Sprintf("nothing is known of %s: the journal begins at %s", at, e.From.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("nothing is known of %s: it is in the future (now is %s)", at, e.Until.UTC().Format(time.RFC3339))
}

var errClosed = errors.New("the journal is closed")

// damage is what SQLite cannot know: the content is not what a journal has.
type damage struct{ error }

func (d damage) Unwrap() error { return d.error }

// cannotOpen says that SQLite could not open a file: the database, or what it
// needs beside it.
func cannotOpen(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code()&0xff == sqlite3.SQLITE_CANTOPEN || e.Code()&0xff == sqlite3.SQLITE_READONLY)
}

// isCorrupt says that a database is damaged, or none.
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
