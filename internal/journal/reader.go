package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Reader reads a journal. Its methods are safe for concurrent use. What it
// returns is read in short transactions: a consumer may take its time.
type Reader struct {
	// j is the journal of this process; nil where another process writes it.
	j *Journal

	// The rest is of a journal that another process writes.
	path  string
	mutex sync.RWMutex // held for reading while db is used
	db    *sql.DB
	file  os.FileInfo
	// frozen says that it was opened as a file that nobody writes.
	frozen bool
}

// Reader returns a reader of the journal. It needs no close, and fails once the
// journal is closed.
func (j *Journal) Reader() *Reader { return &Reader{j: j} }

// OpenReader opens the journal that another process writes, or wrote, at path.
// The error says what is not there or cannot be read, and what to do; it may be
// a [*NewerError] or a [*ForeignError].
func OpenReader(path string) (*Reader, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	r := &Reader{path: absolute}
	if err := r.open(context.Background()); err != nil {
		return nil, err
	}
	return r, nil
}

// open opens the file that is at path now.
func (r *Reader) open(ctx context.Context) (err error) {
	info, err := os.Stat(r.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no journal at %s: `portwatcher run` writes it; name its file with --state: %w", r.path, err)
	case err != nil:
		return fmt.Errorf("journal: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("journal %s: it is no file; name the database of `portwatcher run` with --state", r.path)
	}
	options := url.Values{"mode": {"ro"}}
	db, err := r.openWith(ctx, options)
	frozen := cannotOpen(err) && !exists(r.path+"-wal")
	if frozen {
		// Nobody writes it, and where the folder is read-only SQLite cannot make
		// sure that it stays so.
		options.Set("immutable", "1")
		db, err = r.openWith(ctx, options)
	}
	if cannotOpen(err) {
		return fmt.Errorf("%w: run this where its folder is writable, or while `portwatcher run` writes it", err)
	}
	if err != nil {
		return err
	}
	r.db, r.file, r.frozen = db, info, frozen
	return nil
}

func (r *Reader) openWith(ctx context.Context, options url.Values) (*sql.DB, error) {
	db, err := openReading(r.path, options)
	if err != nil {
		return nil, err
	}
	if err := r.checkReadable(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (r *Reader) checkReadable(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("journal %s: open: %w", r.path, err)
	}
	version, err := schemaVersion(ctx, conn, r.path)
	if err = errors.Join(err, conn.Close()); err != nil {
		return err
	}
	if version < len(migrations) {
		return fmt.Errorf("the journal %s has schema version %d, and this portwatcher reads %d: start `portwatcher run` once, which brings it up to date", r.path, version, len(migrations))
	}
	return nil
}

// Close releases what [OpenReader] opened.
func (r *Reader) Close() error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.db == nil {
		return nil
	}
	db := r.db
	r.db = nil
	if err := db.Close(); err != nil {
		return fmt.Errorf("journal %s: close: %w", r.path, err)
	}
	return nil
}

// reading runs f in a transaction that reads.
func (r *Reader) reading(ctx context.Context, f func(tx *sql.Tx) error) error {
	if err := r.reopen(ctx); err != nil {
		return err
	}
	mutex := &r.mutex
	if r.j != nil {
		mutex = &r.j.swap
	}
	mutex.RLock()
	defer mutex.RUnlock()
	db, path := r.db, r.path
	if r.j != nil && r.j.store != nil {
		db, path = r.j.store.read, r.j.place.String()
	}
	if db == nil {
		return fmt.Errorf("journal %s: %w", path, errClosed)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err == nil {
		err = errors.Join(f(tx), rollback(tx))
	}
	if err == nil {
		return nil
	}
	if r.j != nil && isCorrupt(err) {
		select {
		case r.j.suspect <- suspicion{r.j.store, err}:
		default: // it is known
		}
	}
	return fmt.Errorf("read the journal %s: %w", path, err)
}

func (r *Reader) now() time.Time {
	if r.j != nil {
		return r.j.options.Now()
	}
	return time.Now()
}

// Bounds returns the first and the last id that is in the journal; 0 and 0 if
// it is empty.
func (r *Reader) Bounds(ctx context.Context) (first, last uint64, err error) {
	err = r.reading(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, "SELECT (SELECT ifnull(min(id), 0) FROM events), (SELECT ifnull(max(id), 0) FROM events)").Scan(&first, &last)
	})
	return first, last, err
}

// pollTime is the time between two looks at what another process writes.
const pollTime = 200 * time.Millisecond
