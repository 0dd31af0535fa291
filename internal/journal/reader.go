package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// pollTime is how often a follower reads the file that another process writes.
const pollTime = 200 * time.Millisecond

// Reader reads the file of a journal that another process writes, or wrote. Its
// methods are safe for concurrent use.
type Reader struct {
	queries
	handle
	path string
}

// OpenReader opens the journal at path to read it. The error names what is missing or
// cannot be read, and what to do; it may be a [*RefusedError]. The caller closes the
// reader.
func OpenReader(path string) (*Reader, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	r := &Reader{path: absolute}
	r.queries = queries{transact: r.read, more: poll, now: time.Now}
	s, err := openFile(context.Background(), absolute)
	if err != nil {
		return nil, err
	}
	r.set(s)
	return r, nil
}

// poll returns a channel that is closed when it is time to read the file again.
func poll() <-chan struct{} {
	due := make(chan struct{})
	time.AfterFunc(pollTime, func() { close(due) })
	return due
}

// openFile opens a database to read it.
func openFile(ctx context.Context, path string) (*store, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no journal at %s: `portwatcher run` writes it; name its file with --state: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("journal: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("journal %s: it is no file; name the database of `portwatcher run` with --state", path)
	}
	s := &store{path: path, file: info}
	options := url.Values{"mode": {"ro"}}
	s.read, err = openReadable(ctx, path, options)
	if s.frozen = cannotOpen(err) && !exists(path+"-wal"); s.frozen {
		// Nobody writes it, and in a read-only folder SQLite cannot create the files
		// by which it would notice a writer.
		options.Set("immutable", "1")
		s.read, err = openReadable(ctx, path, options)
	}
	if cannotOpen(err) {
		err = fmt.Errorf("%w: run this where its folder is writable, or while `portwatcher run` writes it", err)
	}
	return s, err
}

// errUnmade means that a file is empty: its writer is about to make the tables, or never did.
var errUnmade = errors.New("the journal has no tables yet")

// openReadable opens a database if it has the newest schema.
func openReadable(ctx context.Context, path string, options url.Values) (*sql.DB, error) {
	db, err := openDatabase(path, options, readers)
	if err != nil {
		return nil, err
	}
	version := 0
	conn, err := db.Conn(ctx)
	if err == nil {
		version, err = schemaVersion(ctx, conn, path)
		err = errors.Join(err, conn.Close())
	}
	switch {
	case err != nil || version == newestSchema:
	case version == 0:
		err = fmt.Errorf("%w: %s: start `portwatcher run` once, which makes them", errUnmade, path)
	default:
		err = fmt.Errorf("the journal %s has schema version %d, and this portwatcher reads %d: start `portwatcher run` once, which brings it up to date",
			path, version, newestSchema)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Close releases what [OpenReader] opened.
func (r *Reader) Close() error { return r.drop() }

// read runs f in a transaction that reads.
func (r *Reader) read(ctx context.Context, f func(t transaction) error) error {
	if err := r.reopen(ctx); err != nil {
		return err
	}
	err := r.use(func(s *store) error { return inTransaction(ctx, s.read, f) })
	if err != nil {
		return fmt.Errorf("read the journal %s: %w", r.path, err)
	}
	return nil
}

// reopen opens the file anew if another one took its place, as happens when it
// proved corrupt, or if a frozen one is written now.
func (r *Reader) reopen(ctx context.Context) error {
	info, err := os.Stat(r.path)
	if err != nil {
		return nil // perhaps for a moment: what was opened can still be read
	}
	current := true
	err = r.use(func(s *store) error {
		current = os.SameFile(info, s.file) && !(s.frozen && exists(r.path+"-wal"))
		return nil
	})
	if err != nil || current {
		return err
	}
	s, err := openFile(ctx, r.path)
	switch {
	case errors.Is(err, errUnmade), errors.Is(err, os.ErrNotExist):
		return nil // for a moment, as above
	case err != nil:
		return err
	}
	old := r.set(s)
	if old == nil { // the reader was closed meanwhile
		return errors.Join(errClosed, r.drop())
	}
	return old.close()
}

// read runs f in a transaction that reads. The writer examines a database that proves
// damaged.
func (j *Journal) read(ctx context.Context, f func(t transaction) error) error {
	err := j.use(func(s *store) error {
		err := inTransaction(ctx, s.read, f)
		if isCorrupt(err) {
			select {
			case j.suspect <- suspicion{s, err}:
			default: // the writer has one
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read the journal %s: %w", j.place, err)
	}
	return nil
}
