package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	_ "modernc.org/sqlite" // the driver
	sqlite3 "modernc.org/sqlite/lib"

	"portwatcher/internal/model"
)

// store is an open database.
type store struct {
	path string
	// db has one connection, which writes; nil in a [Reader]. read has several
	// that cannot write. In memory they are the same.
	db, read *sql.DB
	file     os.FileInfo // nil in memory
	// frozen: it was opened as a file that nobody writes.
	frozen bool
	users  sync.WaitGroup // see handle
}

// handle is a store that several goroutines use and one may replace.
type handle struct {
	mutex sync.Mutex
	store *store
}

// use runs f with the store, which is not closed before f returns.
func (h *handle) use(f func(*store) error) error {
	h.mutex.Lock()
	s := h.store
	if s == nil {
		h.mutex.Unlock()
		return errClosed
	}
	s.users.Add(1)
	h.mutex.Unlock()
	defer s.users.Done()
	return f(s)
}

// set replaces the store, and returns the one that was there.
func (h *handle) set(s *store) (old *store) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	old, h.store = h.store, s
	return old
}

// drop waits until nobody uses the store, and closes it.
func (h *handle) drop() error { return h.set(nil).close() }

func (s *store) close() error {
	if s == nil {
		return nil
	}
	s.users.Wait()
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

// readers is how many connections read at the same time.
const readers = 4

// openStore opens the database at path, or one in memory if path is empty, and
// reads what the last run saved. After an error nothing is open.
func openStore(path string, log logrus.FieldLogger) (s *store, m *saved, err error) {
	s = &store{path: path}
	defer func() {
		if err != nil {
			s, m, err = nil, nil, errors.Join(err, s.close())
		}
	}()
	options := url.Values{}
	if path != "" {
		options = url.Values{"mode": {"rw"}, "_txlock": {"immediate"}}
		// SQLite gives its other files the mode of this one.
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return s, nil, fmt.Errorf("open the journal: %w", err)
		}
	}
	if s.db, err = openDatabase(path, options, 1); err != nil {
		return s, nil, err
	}
	ctx := context.Background()
	if err = s.prepare(ctx, log); err != nil {
		return s, nil, err
	}
	if m, err = s.load(ctx); err != nil {
		return s, nil, err
	}
	if path == "" {
		s.read = s.db
		return s, m, nil
	}
	if s.file, err = os.Stat(path); err != nil {
		return s, nil, fmt.Errorf("journal %s: %w", path, err)
	}
	s.read, err = openDatabase(path, url.Values{"mode": {"ro"}}, readers)
	return s, m, err
}

// openDatabase opens a database with settings for each connection. A "?" or "%" in
// path is no part of the options. It writes nothing.
// Sources: https://www.sqlite.org/uri.html, https://www.sqlite.org/pragma.html.
func openDatabase(path string, options url.Values, connections int) (*sql.DB, error) {
	all := url.Values{"_pragma": {
		"busy_timeout(5000)",
		"cell_size_check(1)",
		"synchronous(NORMAL)", // a power cut may cost the last batches, never the file
		"wal_autocheckpoint(2000)",
		"journal_size_limit(16777216)",
		"temp_store(MEMORY)",
	}}
	maps.Copy(all, options)
	name := ":memory:?" + all.Encode()
	if path != "" {
		name = (&url.URL{Scheme: "file", Path: path, RawQuery: all.Encode()}).String()
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	if connections > 1 {
		db.SetConnMaxIdleTime(time.Minute)
	}
	return db, nil
}

// prepare checks the database before it writes, and brings it to the newest schema.
func (s *store) prepare(ctx context.Context, log logrus.FieldLogger) error {
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
	return migrate(ctx, conn, s.path, version, log)
}

// saved is what the last run left in the database.
type saved struct {
	previous         *Previous // nil at the first
	bootID           string
	lastID, reserved uint64
	latest, backward int64 // see the table meta
	open             map[model.Endpoint]*model.State
	cursors          map[string]uint64
	drifts           []model.DriftPeriod // those that last
}

func (s *store) load(ctx context.Context) (*saved, error) {
	m := &saved{open: map[model.Endpoint]*model.State{}, cursors: map[string]uint64{}}
	err := inTransaction(ctx, s.db, m.read)
	if err != nil && codeOf(err) == sqlite3.SQLITE_OK {
		err = damage{err} // the content is wrong
	}
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", s.path, err)
	}
	return m, nil
}

func (m *saved) read(t transaction) error {
	err := t.get([]any{&m.reserved, &m.latest, &m.backward, &m.lastID},
		"SELECT reserved, latest, backward, (SELECT ifnull(max(id), 0) FROM events) FROM meta")
	if err != nil {
		return err
	}
	states, err := readStates(t, "SELECT origin, state FROM states WHERE until IS NULL")
	if err != nil {
		return err
	}
	for i := range states {
		m.open[states[i].Endpoint()] = &states[i].State
	}
	if m.drifts, err = readDrifts(t, "ended IS NULL"); err != nil {
		return err
	}
	if err := m.readRun(t); err != nil {
		return err
	}
	return t.each(func(scan func(...any) error) error {
		var name string
		var id uint64
		err := scan(&name, &id)
		m.cursors[name] = id
		return err
	}, "SELECT name, id FROM cursors")
}

func (m *saved) readRun(t transaction) error {
	var lastAlive int64
	var stopped sql.NullInt64
	err := t.get([]any{&lastAlive, &stopped, &m.bootID}, "SELECT last_alive, stopped, boot FROM runs ORDER BY id DESC LIMIT 1")
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	m.previous = &Previous{LastAlive: timeOf(lastAlive), Clean: stopped.Valid, Open: []model.State{}, Drifts: m.drifts}
	for _, endpoint := range slices.SortedFunc(maps.Keys(m.open), model.Endpoint.Compare) {
		m.previous.Open = append(m.previous.Open, *m.open[endpoint])
	}
	return err
}
