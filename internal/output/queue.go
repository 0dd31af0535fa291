package output

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"portwatcher/internal/port"
)

// queueLength is how many events wait for a slow reader before some are
// dropped: enough for a storm, at 8 bytes each and what the events take.
const queueLength = 1 << 16

// Queue decouples the writing of events from their capture. Offer never
// blocks.
type Queue struct {
	events chan *port.Event
	w      io.Writer
	format Format
}

// NewQueue returns a queue in front of w.
func NewQueue(w io.Writer, format Format) *Queue {
	return &Queue{events: make(chan *port.Event, queueLength), w: w, format: format}
}

// Offer takes an event, or returns false at once if the queue is full. It is
// safe for concurrent use.
func (q *Queue) Offer(e *port.Event) bool {
	select {
	case q.events <- e:
		return true
	default:
		return false
	}
}

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
