package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"portwatcher/internal/port"
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
	db, err := openReading(r.path)
	if err != nil {
		return err
	}
	if err = r.checkReadable(ctx, db); err != nil {
		return errors.Join(err, db.Close())
	}
	r.db, r.file = db, info
	return nil
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

// columns are what scanEvent takes.
const columns = "events.id, events.time, events.origin, events.type, events.transient, events.protocol, events.port, events.exposure, events.detail"

// scanner turns rows into events. Those of one transaction share what they say
// of their containers.
type scanner struct {
	tx      *sql.Tx
	origins map[int64]*origin
	detail  sql.RawBytes
}

// events runs a query for columns. A row that makes no sense gives a
// [*DamagedError] in its place.
func (s *scanner) events(ctx context.Context, query string, args ...any) ([]result, error) {
	rows, err := s.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var results []result
	for rows.Next() {
		var r result
		if err := s.scan(rows, &r); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	return results, s.fill(ctx, results)
}

// result is an event that was read, or the error that came instead.
type result struct {
	id     uint64
	origin int64
	event  *port.Event
	err    error
}

func (s *scanner) scan(rows *sql.Rows, r *result) error {
	var id, at, kind, protocol, number, exposure int64
	e := &port.Event{}
	if err := rows.Scan(&id, &at, &r.origin, &kind, &e.Transient, &protocol, &number, &exposure, &s.detail); err != nil {
		return err
	}
	e.ID, r.id, e.Time = uint64(id), uint64(id), timeOf(at)
	err := decodeColumns(e, kind, protocol, number, exposure)
	if err == nil {
		err = decodeDetail(s.detail, e)
	}
	if err != nil {
		r.err = &DamagedError{ID: r.id, Err: err}
		return nil
	}
	r.event = e
	return nil
}

// fill adds host and container.
func (s *scanner) fill(ctx context.Context, results []result) error {
	for i := range results {
		r := &results[i]
		if r.err != nil {
			continue
		}
		o, err := s.origin(ctx, r.origin)
		if errors.Is(err, sql.ErrNoRows) {
			r.event, r.err = nil, &DamagedError{ID: r.id, Err: fmt.Errorf("its container, row %d of origins, is missing", r.origin)}
			continue
		}
		if err != nil {
			return err
		}
		r.event.Host = o.host
		if o.known {
			r.event.Container = &o.container
		}
	}
	return nil
}

func (s *scanner) origin(ctx context.Context, row int64) (*origin, error) {
	if o := s.origins[row]; o != nil {
		return o, nil
	}
	o := &origin{}
	var id sql.NullString
	c := &o.container
	err := s.tx.QueryRowContext(ctx, "SELECT host, container, name, image, project, service FROM origins WHERE id = ?", row).
		Scan(&o.host, &id, &c.Name, &c.Image, &c.Project, &c.Service)
	if err != nil {
		return nil, err
	}
	c.ID, o.known = id.String, id.Valid
	if s.origins == nil {
		s.origins = map[int64]*origin{}
	}
	s.origins[row] = o
	return o, nil
}

// pollTime is the time between two looks at what another process writes.
const pollTime = 200 * time.Millisecond
