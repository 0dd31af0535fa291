// Package journal is the record: every event in order under its id, the last
// known state of every endpoint, and a cursor for each named consumer. It is a
// SQLite database with a write-ahead log, written by one goroutine.
//
// It does not decide what an event is, and gives no ids: the capture does.
//
// Invariants:
//
//   - [Journal.Offer] never blocks and never waits for a disk: what does not
//     fit is refused, and the caller reports it by a gap event.
//   - An id is used once on a host. Before an event may be shown under an id,
//     the id is reserved on disk, so that a kill -9 repeats none.
//   - Events, the state and the reserve change in one transaction: the state is
//     always what the recorded events say.
//   - No reader holds a transaction while its consumer works: the write-ahead
//     log cannot grow because somebody reads slowly.
//   - The monitor does not die of its memory: without a writable place, with a
//     full disk or a corrupt file it goes on, and says so.
package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/model"
	"portwatcher/internal/sink"
)

// Options configure [Open].
type Options struct {
	// Path is the database file; its folder is created. Empty: in memory.
	Path string
	// Retain is the age at which events are deleted. 0: never.
	Retain time.Duration
	// RetainSize is the size of the database in bytes above which the oldest
	// events are deleted. 0: unlimited.
	RetainSize int64
	// BootID identifies this boot: /proc/sys/kernel/random/boot_id.
	BootID string
	// Version is the program's, for the record.
	Version string
	Logger  logrus.FieldLogger
	// Now is the clock of what is written and of retention; nil: [time.Now].
	Now func() time.Time
	// SetAside is told when a file proved corrupt while it was in use and was
	// moved to aside, so that a gap can be reported. It is called by the goroutine
	// of [Journal.Run] and must not block. Nil: nobody is told.
	SetAside func(aside string)
}

// memorySize bounds a journal in memory, in bytes.
const memorySize = 64 << 20

// Journal is an open journal. All its methods are safe for concurrent use;
// [Journal.Run] is called once.
type Journal struct {
	options  Options
	place    Place
	lock     *lockFile // nil in memory
	previous *Previous
	nextID   uint64

	retention limits
	queue     *sink.Queue[queued]
	writer    *writer

	// swap guards the handles of the database, which are replaced when the file
	// proves corrupt. Whoever uses them holds it for reading.
	swap    sync.RWMutex
	store   *store
	suspect chan suspicion

	cursorMutex sync.Mutex // taken after swap
	cursors     map[string]uint64

	status status
}

// Place is where the journal is kept.
type Place struct {
	// Path is the database file; empty in memory.
	Path string
	// Why says why the journal is in memory although a file was asked for.
	Why error
}

// String returns the path, or "memory" with the reason.
func (p Place) String() string {
	switch {
	case p.Path != "":
		return p.Path
	case p.Why != nil:
		return fmt.Sprintf("memory (%v)", p.Why)
	}
	return "memory"
}

// Open opens the journal, or begins one. Where there is no writable place it
// works in memory, says so once in the log, and [Journal.Place] tells why. A
// file that is damaged or no database is moved aside; see [Previous].
//
// The errors are an [*InUseError], a [*NewerError] and a [*ForeignError]. The
// caller closes the journal.
func Open(o Options) (*Journal, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	j := &Journal{options: o, queue: newQueue(queueCapacity, queueShare), suspect: make(chan suspicion, 1)}
	j.status.committed = make(chan struct{})
	if o.Path != "" {
		why := j.openFile()
		var refused refusal
		if errors.As(why, &refused) {
			return nil, errors.Join(why, j.release())
		}
		if why != nil {
			if err := j.release(); err != nil {
				why = errors.Join(why, err)
			}
			j.place.Why = why
			o.Logger.WithError(why).Warn("The journal is kept in memory and will be lost at the end: give --state a file in a writable folder, such as a mounted volume.")
		}
	}
	if j.store == nil {
		if err := j.openMemory(); err != nil {
			return nil, err
		}
	}
	j.SetRetention(o.Retain, o.RetainSize)
	return j, nil
}

// openFile opens the journal in its file. After an error nothing is open but
// perhaps the lock.
func (j *Journal) openFile() error {
	path, err := resolve(j.options.Path)
	if err != nil {
		return err
	}
	if j.lock, err = acquire(path); err != nil {
		return err
	}
	aside := ""
	s, m, err := openStore(path)
	if isCorrupt(err) {
		if aside, err = j.setAside(path, err); err != nil {
			return err
		}
		s, m, err = openStore(path)
	}
	if err != nil {
		return err
	}
	if err := j.begin(s, m, aside); err != nil {
		return errors.Join(err, s.close())
	}
	j.place.Path = path
	return nil
}

// begin takes up the work where the last run left it.
func (j *Journal) begin(s *store, m *memory, aside string) error {
	last := max(m.reserved, m.lastID, j.lock.reserved)
	if aside != "" && last == 0 {
		last = idByClock(j.options.Now())
	}
	if err := j.lock.reserve(last + reserveLength); err != nil {
		return err
	}
	j.previous = m.previous
	if j.previous != nil {
		j.previous.SameBoot = j.options.BootID != "" && m.bootID == j.options.BootID
	}
	if aside != "" {
		j.previous = &Previous{Corrupt: aside}
	}
	j.start(s, m, last)
	return nil
}

func (j *Journal) openMemory() error {
	s, m, err := openStore("")
	if err != nil {
		return fmt.Errorf("open a journal in memory: %w", err)
	}
	j.start(s, m, idByClock(j.options.Now()))
	return nil
}

func (j *Journal) start(s *store, m *memory, last uint64) {
	j.store, j.nextID, j.cursors = s, last+1, m.cursors
	j.status.lastID.Store(m.lastID)
	j.writer = newWriter(j, m, last)
}

// idByClock returns an id above all that earlier runs of this host used, where
// nothing recorded them: they cannot have used more than 2^20 a second. It
// stays below 2^53, which JSON numbers can hold, until the year 2242.
func idByClock(now time.Time) uint64 {
	return uint64(max(now.Unix(), 0)) << 20
}

// Previous is what the last run left.
type Previous struct {
	// LastAlive is the last moment at which it is known to have run, in UTC.
	LastAlive time.Time
	// Clean says that it stopped in order and lost nothing.
	Clean bool
	// SameBoot says that the host was not booted since.
	SameBoot bool
	// Corrupt is where the file was moved to that could not be read; then
	// nothing else is known.
	Corrupt string
	// Open is what was open then, ordered by endpoint.
	Open []model.State
}

// Previous returns what the last run left; nil where this is the first, and in
// memory. The caller does not change it.
func (j *Journal) Previous() *Previous { return j.previous }

// NextID returns the id of this run's first event. Every id from it on is free.
func (j *Journal) NextID() uint64 { return j.nextID }

// Place returns where the journal is kept.
func (j *Journal) Place() Place { return j.place }

// Run writes until ctx ends, then writes what is queued, and marks the stop as
// clean. What cannot be written is kept and tried again. The error says how
// many events were lost in the end.
func (j *Journal) Run(ctx context.Context) error { return j.writer.loop(ctx) }

// Close releases the database and the lock. It is called after [Journal.Run]
// has returned.
func (j *Journal) Close() error {
	j.swap.Lock()
	defer j.swap.Unlock()
	j.queue.Close()
	var err error
	if j.store != nil {
		err = j.store.close()
		j.store = nil
	}
	return errors.Join(err, j.release())
}

func (j *Journal) release() error {
	if j.lock == nil {
		return nil
	}
	err := j.lock.close()
	j.lock = nil
	return err
}

// resolve returns the file that path means, so that two names of one file are
// one lock, and makes its folder.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("journal %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("journal %s: make its folder: %w", path, err)
	}
	target, err := filepath.EvalSymlinks(path)
	switch {
	case err == nil:
		path = target
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("journal %s: %w", path, err)
	default:
		folder, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", fmt.Errorf("journal %s: %w", path, err)
		}
		path = filepath.Join(folder, filepath.Base(path))
	}
	return path, nil
}
