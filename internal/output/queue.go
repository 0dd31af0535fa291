package output

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"portwatcher/internal/port"
)

// queueLength is how many events wait for a slow reader before some are
// dropped: enough for a storm, at 8 bytes each and what the events take.
const queueLength = 1 << 17

// Queue decouples the writing of events from their capture. Offer never
// blocks. It takes memory as it fills, and gives it back.
type Queue struct {
	w      io.Writer
	format Format
	limit  int
	ready  chan struct{} // has room for one: something waits

	mutex   sync.Mutex
	waiting []*port.Event
	full    bool // nothing is taken until it is half empty
	// taken is how many are not written yet of those that Run took from waiting.
	taken atomic.Int64
}

// NewQueue returns a queue in front of w.
func NewQueue(w io.Writer, format Format) *Queue { return newQueue(w, format, queueLength) }

func newQueue(w io.Writer, format Format, length int) *Queue {
	return &Queue{w: w, format: format, limit: length, ready: make(chan struct{}, 1)}
}

// Offer takes an event, or returns false at once if the queue is full. From then
// on it takes none until the queue is half empty, so that one slow moment of the
// reader is one gap and not hundreds. It is safe for concurrent use.
func (q *Queue) Offer(e *port.Event) bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	n := q.length()
	if q.full && n > q.limit/2 || n >= q.limit {
		q.full = true
		return false
	}
	q.full = false
	q.waiting = append(q.waiting, e)
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

// length is how many events are not written. The caller holds the lock.
func (q *Queue) length() int { return len(q.waiting) + int(q.taken.Load()) }

// Fill returns how many events wait, and how many can.
func (q *Queue) Fill() (length, capacity int) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	return q.length(), q.limit
}

// Run writes events as they come until ctx ends, and then those that are
// waiting. It returns the first error of the writer. A writer that blocks
// holds it up: who cannot wait does not wait for Run.
func (q *Queue) Run(ctx context.Context) error {
	w := bufio.NewWriterSize(q.w, 64<<10)
	for {
		select {
		case <-q.ready:
			if err := q.writeWaiting(w); err != nil {
				return err
			}
		case <-ctx.Done():
			return q.writeWaiting(w)
		}
	}
}

// writeWaiting writes what waits, and flushes when nothing more does.
func (q *Queue) writeWaiting(w *bufio.Writer) error {
	for {
		batch := q.take()
		for i, e := range batch {
			if err := WriteEvent(w, q.format, e); err != nil {
				return fmt.Errorf("write event: %w", err)
			}
			batch[i] = nil
			q.taken.Add(-1)
		}
		if len(batch) > 0 {
			continue
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write events: %w", err)
		}
		return nil
	}
}

// take empties the queue.
func (q *Queue) take() []*port.Event {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	batch := q.waiting
	q.waiting = nil
	q.taken.Store(int64(len(batch)))
	return batch
}

// DrainTime is how long a stopping program waits for Run at most.
const DrainTime = 500 * time.Millisecond
