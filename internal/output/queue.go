package output

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"portwatcher/internal/port"
)

// queueLength is how many events wait for a slow reader before some are
// dropped: enough for a storm, at 8 bytes each and what the events take.
const queueLength = 1 << 17

// Queue decouples the writing of events from their capture. Offer never
// blocks.
type Queue struct {
	events chan *port.Event
	full   atomic.Bool // nothing is taken until it is half empty
	w      io.Writer
	format Format
}

// NewQueue returns a queue in front of w.
func NewQueue(w io.Writer, format Format) *Queue { return newQueue(w, format, queueLength) }

func newQueue(w io.Writer, format Format, length int) *Queue {
	return &Queue{events: make(chan *port.Event, length), w: w, format: format}
}

// Offer takes an event, or returns false at once if the queue is full. From then
// on it takes none until the queue is half empty, so that one slow moment of the
// reader is one gap and not hundreds. It is safe for concurrent use.
func (q *Queue) Offer(e *port.Event) bool {
	if q.full.Load() && len(q.events) > cap(q.events)/2 {
		return false
	}
	select {
	case q.events <- e:
		q.full.Store(false)
		return true
	default:
		q.full.Store(true)
		return false
	}
}

// Fill returns how many events wait, and how many can.
func (q *Queue) Fill() (length, capacity int) { return len(q.events), cap(q.events) }

// Run writes events as they come until ctx ends, and then those that are
// waiting. It returns the first error of the writer. A writer that blocks
// holds it up: who cannot wait does not wait for Run.
func (q *Queue) Run(ctx context.Context) error {
	w := bufio.NewWriterSize(q.w, 64<<10)
	for {
		select {
		case e := <-q.events:
			if err := q.writeWaiting(w, e); err != nil {
				return err
			}
		case <-ctx.Done():
			select {
			case e := <-q.events:
				return q.writeWaiting(w, e)
			default:
				return nil
			}
		}
	}
}

// writeWaiting writes e and what waits behind it, and flushes then.
func (q *Queue) writeWaiting(w *bufio.Writer, e *port.Event) error {
	for {
		if err := WriteEvent(w, q.format, e); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		select {
		case e = <-q.events:
		default:
			if err := w.Flush(); err != nil {
				return fmt.Errorf("write events: %w", err)
			}
			return nil
		}
	}
}

// DrainTime is how long a stopping program waits for Run at most.
const DrainTime = 500 * time.Millisecond
