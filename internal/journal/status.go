package journal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// status is what other goroutines read of the writer.
type status struct {
	lastID, written, lost, passed atomic.Uint64
	size                          atomic.Int64

	mutex     sync.Mutex
	committed chan struct{}
	// oldest is when the first record arrived of the batch that is being written;
	// zero: there is none.
	oldest  time.Time
	failure error
	since   time.Time // of failure
}

// Stats are the journal's numbers.
type Stats struct {
	// Queued is how many records wait, Capacity how many can.
	Queued, Capacity int
	// Written counts events of this run that are in the journal; Dropped,
	// records that were refused or could not be written.
	Written, Dropped uint64
	// Passed counts events that retention deleted before the consumer of a cursor had read
	// them.
	Passed uint64
	// Lag is the age of the oldest record that is not written.
	Lag time.Duration
	// Size is the size of the database in bytes, without free pages, at the last step
	// of retention.
	Size     int64
	InMemory bool
}

// Stats returns the journal's numbers.
func (j *Journal) Stats() Stats {
	queue := j.queue.Status()
	s := Stats{
		Queued: queue.Length, Capacity: queue.Capacity,
		Written: j.status.written.Load(), Passed: j.status.passed.Load(), Dropped: queue.Dropped + j.status.lost.Load(),
		Size: j.status.size.Load(), InMemory: j.place.Path == "", Lag: queue.Oldest,
	}
	j.status.mutex.Lock()
	defer j.status.mutex.Unlock()
	if !j.status.oldest.IsZero() {
		s.Lag = j.options.Now().Sub(j.status.oldest)
	}
	return s
}

// LastID returns the id of the last event that is in the journal, or 0.
func (j *Journal) LastID() uint64 { return j.status.lastID.Load() }

// Committed returns a channel that is closed when the next events are in the
// journal. A follower takes it, reads, and then waits for it.
func (j *Journal) Committed() <-chan struct{} {
	j.status.mutex.Lock()
	defer j.status.mutex.Unlock()
	return j.status.committed
}

// Err returns nil while writing works, and otherwise since when it fails
// and why. A journal that is in memory for lack of a place works.
func (j *Journal) Err() error {
	j.status.mutex.Lock()
	defer j.status.mutex.Unlock()
	if j.status.failure == nil {
		return nil
	}
	return fmt.Errorf("the journal %s cannot be written since %s: %w", j.place, j.status.since.UTC().Format(time.RFC3339), j.status.failure)
}

// begin notes that a batch is to be written.
func (s *status) begin(oldest time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.oldest = oldest
}

// end notes that the batch is written, and wakes the followers if there were
// events in it.
func (s *status) end(events int) {
	s.written.Add(uint64(events))
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.oldest = time.Time{}
	if events > 0 {
		close(s.committed)
		s.committed = make(chan struct{})
	}
}

// fail notes that writing fails, and reports whether that is new.
func (s *status) fail(err error, now time.Time) (isNew bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	isNew = s.failure == nil
	if isNew {
		s.since = now
	}
	s.failure = err
	return isNew
}

// recover notes that writing works, and returns for how long it failed.
func (s *status) recover(now time.Time) (was time.Duration, failed bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	failed = s.failure != nil
	s.failure = nil
	return now.Sub(s.since), failed
}
