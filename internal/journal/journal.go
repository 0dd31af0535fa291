// Package journal is the record of events: every event in order under its id,
// the last known state of every endpoint, and a cursor for each named consumer.
// It is a SQLite database with a write-ahead log, written by one goroutine.
//
// It does not decide what an event is and gives no ids: the capture does.
//
// Invariants:
//
//   - [Journal.Offer] never blocks and never waits for a disk. It refuses what does
//     not fit, and the caller reports that as a gap.
//   - An id is used once on a host. It is reserved on disk before an event may be
//     shown under it, so that a kill -9 repeats none.
//   - Events, the state and the reserve change in one transaction: the state always
//     matches the recorded events.
//   - A reader holds no transaction while its consumer works: a slow consumer does
//     not make the write-ahead log grow.
//   - The journal does not stop the program: without a writable place it works in
//     memory, with a full disk it tries again, and it replaces a corrupt file. It
//     logs each of these.
package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
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
	// Version is the program's; it is recorded with each run.
	Version string
	Logger  logrus.FieldLogger
	// Now is the clock for what is written and for retention; nil: [time.Now].
	Now func() time.Time
	// SetAside receives the path to which a file was moved that proved corrupt while
	// it was in use, so that a gap can be reported. The goroutine of [Journal.Run]
	// calls it; it must not block. It may be nil.
	SetAside func(aside string)
	// Passed receives the number of events that retention deleted before the consumer of a
	// cursor had read them, so that a gap can be reported. As for SetAside.
	Passed func(count uint64)

	block int64 // ids of a block of the index; 0 is blockLength
}

// memorySize bounds a journal in memory, in bytes.
const memorySize = 64 << 20

// Journal is an open journal, which this process writes and reads. All its methods
// are safe for concurrent use; [Journal.Run] is called once. The methods that read
// return an error after [Journal.Close].
type Journal struct {
	queries
	handle

	options  Options
	place    Place
	lock     *lockFile // nil in memory
	previous *Previous
	nextID   uint64

	retain     atomic.Int64 // a time.Duration; 0: no limit
	retainSize atomic.Int64 // bytes; 0: no limit
	queue      *sink.Queue[queued]
	writer     *writer
	suspect    chan suspicion

	cursorMutex sync.Mutex
	cursors     map[string]uint64

	status status
}

// Place is where the journal is kept.
type Place struct {
	// Path is the database file; empty in memory.
	Path string
	// Why is the reason for which the journal is in memory although a file was asked for.
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

// Open opens the journal, or begins one. Without a writable place it works in
// memory and logs a warning; [Journal.Place] has the reason. It moves a file aside
// that is damaged or no database; see [Previous].
//
// The error is a [*RefusedError]. The caller closes the journal.
func Open(o Options) (*Journal, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	j := &Journal{options: o, queue: newQueue(queueCapacity, queueShare), suspect: make(chan suspicion, 1)}
	j.queries = queries{transact: j.read, more: j.Committed, now: o.Now}
	j.status.committed = make(chan struct{})
	if o.Path != "" {
		why := j.openFile()
		if refused, ok := errors.AsType[*RefusedError](why); ok {
			return nil, errors.Join(refused, j.release())
		}
		if why != nil {
			j.place.Why = errors.Join(why, j.release())
			o.Logger.WithError(j.place.Why).Warn("The journal is kept in memory and will be lost at the end: give --state a file in a writable folder, such as a mounted volume.")
		}
	}
	if j.store == nil {
		s, saved, err := openStore("", o.Logger)
		if err != nil {
			return nil, fmt.Errorf("open a journal in memory: %w", err)
		}
		j.start(s, saved, idByClock(o.Now()))
	}
	j.SetRetention(o.Retain, o.RetainSize)
	return j, nil
}

// openFile opens the journal in its file. After an error nothing is open except
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
	s, saved, err := openStore(path, j.options.Logger)
	if isCorrupt(err) {
		if aside, err = j.setAside(path, err); err != nil {
			return err
		}
		s, saved, err = openStore(path, j.options.Logger)
	}
	if err != nil {
		return err
	}
	last := max(saved.reserved, saved.lastID, j.lock.reserved)
	if aside != "" && last == 0 {
		last = idByClock(j.options.Now())
	}
	if err := j.lock.reserve(last + reserveLength); err != nil {
		return errors.Join(err, s.close())
	}
	if j.previous = saved.previous; j.previous != nil {
		j.previous.SameBoot = j.options.BootID != "" && saved.bootID == j.options.BootID
	}
	if aside != "" {
		j.previous = &Previous{Corrupt: aside}
	}
	j.place.Path = path
	j.start(s, saved, last)
	return nil
}

// start continues after the last id that an earlier run may have used.
func (j *Journal) start(s *store, saved *saved, last uint64) {
	j.set(s)
	j.nextID, j.cursors = last+1, saved.cursors
	j.status.lastID.Store(saved.lastID)
	j.writer = newWriter(j, saved, last)
}

// idByClock returns an id above all that earlier runs on this host used, where
// nothing recorded them: they cannot have used more than 2^20 a second. It
// stays below 2^53, the largest integer that JSON numbers hold exactly, until the year 2242.
func idByClock(now time.Time) uint64 {
	return uint64(max(now.Unix(), 0)) << 20
}

// Previous is what the last run left.
type Previous struct {
	// LastAlive is the last moment at which the run is known to have been alive, in UTC.
	LastAlive time.Time
	// Clean reports whether it stopped in order and lost nothing.
	Clean bool
	// SameBoot reports whether the host has not booted since.
	SameBoot bool
	// Corrupt is where the file was moved that could not be read; then
	// nothing else is known.
	Corrupt string
	// Open is what was open then, ordered by endpoint.
	Open []model.State
	// Drifts are the drifts that lasted then.
	Drifts []model.DriftPeriod
}

// Previous returns what the last run left; nil for the first run, and in
// memory. The caller does not change it.
func (j *Journal) Previous() *Previous { return j.previous }

// NextID returns the id of this run's first event. Every id from it on is free.
func (j *Journal) NextID() uint64 { return j.nextID }

// Place returns where the journal is kept.
func (j *Journal) Place() Place { return j.place }

// Run writes until ctx ends, then writes what is queued, and marks the stop as
// clean. It keeps what cannot be written and tries again. The error has the number
// of events that were lost in the end.
func (j *Journal) Run(ctx context.Context) error { return j.writer.loop(ctx) }

// Close releases the database and the lock. It is called after [Journal.Run]
// has returned.
func (j *Journal) Close() error {
	j.queue.Close()
	return errors.Join(j.drop(), j.release())
}

func (j *Journal) release() error {
	err := j.lock.close()
	j.lock = nil
	return err
}

// resolve creates the folder of path and returns the path without symbolic links, so
// that two names of one file are one lock.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	target := path
	if err == nil {
		target, err = filepath.EvalSymlinks(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		target, err = filepath.EvalSymlinks(filepath.Dir(path))
		target = filepath.Join(target, filepath.Base(path))
	}
	if err != nil {
		return "", fmt.Errorf("journal %s: %w", path, err)
	}
	return target, nil
}
