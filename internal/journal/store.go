package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"strconv"
	"time"

	_ "modernc.org/sqlite" // the driver

	"portwatcher/internal/model"
)

// store is an open database.
type store struct {
	path string
	// db has one connection, and read some that cannot write. In memory they are
	// the same.
	db, read *sql.DB
	file     os.FileInfo // nil in memory
}

// memory is what is remembered from the last run.
type memory struct {
	previous         *Previous // nil at the first
	bootID           string
	lastID, reserved uint64
	open             map[model.Endpoint]*entry
	cursors          map[string]uint64
}

// readers is how many connections read at the same time.
const readers = 4

// openStore opens the database at path, or one in memory if path is empty, and
// reads what it remembers. After an error nothing is open.
func openStore(path string) (_ *store, m *memory, err error) {
	s := &store{path: path}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if path == "" {
		s.db, err = sql.Open("sqlite", dsn("", nil))
		s.read = s.db
	} else {
		if err := create(path); err != nil {
			return nil, nil, err
		}
		s.db, err = sql.Open("sqlite", dsn(path, url.Values{"mode": {"rw"}, "_txlock": {"immediate"}}))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("journal %s: %w", path, err)
	}
	s.db.SetMaxOpenConns(1)
	ctx := context.Background()
	if err := s.prepare(ctx); err != nil {
		return nil, nil, err
	}
	if m, err = s.load(ctx); err != nil {
		return nil, nil, err
	}
	if path == "" {
		return s, m, nil
	}
	if s.file, err = os.Stat(path); err != nil {
		return nil, nil, fmt.Errorf("journal %s: %w", path, err)
	}
	if s.read, err = openReading(path, url.Values{"mode": {"ro"}}); err != nil {
		return nil, nil, err
	}
	return s, m, nil
}

// create makes the file with its mode: SQLite gives its other files the same.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	return nil
}

// dsn names a database for the driver, with what each connection is set to. A
// "?" or "%" in path is no part of the options. Nothing of it writes.
// Sources: https://www.sqlite.org/uri.html, https://www.sqlite.org/pragma.html.
func dsn(path string, options url.Values) string {
	all := url.Values{"_pragma": {
		"busy_timeout(5000)",
		"cell_size_check(1)",
		"synchronous(NORMAL)", // a power cut may cost the last batches, never the file
		"wal_autocheckpoint(2000)",
		"journal_size_limit(16777216)",
		"temp_store(MEMORY)",
	}}
	maps.Copy(all, options)
	if path == "" {
		return ":memory:?" + all.Encode()
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: all.Encode()}).String()
}

func openReading(path string, options url.Values) (*sql.DB, error) {
	read, err := sql.Open("sqlite", dsn(path, options))
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	read.SetConnMaxIdleTime(time.Minute)
	return read, nil
}

// prepare sets the database up. What it must not touch it does not write to.
func (s *store) prepare(ctx context.Context) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("journal %s: open: %w", s.path, err)
	}
	defer conn.Close()
	version, err := schemaVersion(ctx, conn, s.path)
	if err != nil {
		return err
	}
	pragmas := []string{"journal_mode = WAL"}
	if version == 0 {
		// It has no effect once there is a table, or that mode.
		pragmas = []string{"auto_vacuum = INCREMENTAL", "journal_mode = WAL"}
	}
	for _, pragma := range pragmas {
		if _, err := conn.ExecContext(ctx, "PRAGMA "+pragma); err != nil {
			return fmt.Errorf("journal %s: set %s: %w", s.path, pragma, err)
		}
	}
	return migrate(ctx, conn, s.path, version)
}

func (s *store) close() error {
	var err error
	for _, db := range []*sql.DB{s.read, s.db} {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("journal %s: close: %w", s.path, err)
	}
	return nil
}

// load reads what the last run left.
func (s *store) load(ctx context.Context) (*memory, error) {
	m := &memory{open: map[model.Endpoint]*entry{}, cursors: map[string]uint64{}}
	for _, step := range []func(context.Context, *memory) error{s.loadIDs, s.loadStates, s.loadRun, s.loadCursors} {
		if err := step(ctx, m); err != nil {
			return nil, fmt.Errorf("journal %s: %w", s.path, err)
		}
	}
	return m, nil
}

func (s *store) loadIDs(ctx context.Context, m *memory) error {
	err := s.db.QueryRowContext(ctx, "SELECT reserved, (SELECT ifnull(max(id), 0) FROM events) FROM meta").Scan(&m.reserved, &m.lastID)
	if errors.Is(err, sql.ErrNoRows) {
		err = damage{err}
	}
	if err != nil {
		return fmt.Errorf("read the last id: %w", err)
	}
	return nil
}

func (s *store) loadStates(ctx context.Context, m *memory) error {
	rows, err := s.db.QueryContext(ctx, "SELECT id, state FROM states WHERE until IS NULL ORDER BY id")
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		e := &entry{}
		var text []byte
		if err := rows.Scan(&e.row, &text); err != nil {
			return fmt.Errorf("read the state: %w", err)
		}
		if err := decodeState(text, &e.state); err != nil {
			return damage{fmt.Errorf("state %d: %w", e.row, err)}
		}
		m.open[endpointOf(&e.state.Listener)] = e
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	return nil
}

func decodeState(text []byte, state *model.State) error {
	if err := json.Unmarshal(text, state); err != nil {
		return err
	}
	if state.Container == nil {
		return errors.New("it names no container")
	}
	return nil
}

// loadRun reads the last run.
func (s *store) loadRun(ctx context.Context, m *memory) error {
	var lastAlive int64
	var stopped sql.NullInt64
	err := s.db.QueryRowContext(ctx, "SELECT last_alive, stopped, boot FROM runs ORDER BY id DESC LIMIT 1").Scan(&lastAlive, &stopped, &m.bootID)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the last run: %w", err)
	}
	m.previous = &Previous{LastAlive: timeOf(lastAlive), Clean: stopped.Valid, Open: sortedStates(m.open)}
	return nil
}

func (s *store) loadCursors(ctx context.Context, m *memory) error {
	rows, err := s.db.QueryContext(ctx, "SELECT name, id FROM cursors")
	if err != nil {
		return fmt.Errorf("read the cursors: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var id uint64
		if err := rows.Scan(&name, &id); err != nil {
			return fmt.Errorf("read the cursors: %w", err)
		}
		m.cursors[name] = id
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the cursors: %w", err)
	}
	return nil
}

// size returns the database's size in bytes without its free pages.
func (s *store) size(ctx context.Context) (size, free int64, err error) {
	var pages, page int64
	err = s.db.QueryRowContext(ctx, `SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count),
		(SELECT page_size FROM pragma_page_size)`).Scan(&pages, &free, &page)
	if err != nil {
		return 0, 0, fmt.Errorf("journal %s: read its size: %w", s.name(), err)
	}
	return (pages - free) * page, free, nil
}

func (s *store) name() string {
	if s.path == "" {
		return "in memory"
	}
	return strconv.Quote(s.path)
}
