package journal

import (
	"sync"
	"time"

	"portwatcher/internal/port"
)

// Record is one thing for the journal; records are offered in the order in
// which they happened. Exactly one of Event, State (with or without Full) and
// Forget is meant.
type Record struct {
	// Event is recorded under its id, and changes the state. Immutable.
	Event *port.Event
	// Sockets go into the state, with an opened or changed event. Immutable.
	Sockets *port.Sockets
	// State puts endpoints that are open. Full says that it is all there is:
	// what else the journal believes open ends now without an event.
	State []port.State
	Full  bool
	// Forget is the id of a container that is not monitored any more: its
	// endpoints end here without an event.
	Forget string
}

const (
	// queueLength is how many records wait for the disk at most: several seconds
	// of the worst storm, at 176 bytes each and what the events take.
	queueLength = 1 << 18
	// batchLength is how many records are one transaction at most.
	batchLength = 4096
	// queueIdle is the capacity that an empty queue keeps.
	queueIdle = 1 << 10
)

// queue is a bounded ring of records. It takes memory as it fills, and gives
// it back when it is empty.
type queue struct {
	limit int
	now   func() time.Time
	// ready is signalled when the queue has something; enough, when it has a
	// whole batch.
	ready, enough chan struct{}

	mutex   sync.Mutex
	ring    []queued // its length is a power of two
	head, n int
	full    bool // nothing is taken until it is half empty
	closed  bool
	dropped uint64
}

type queued struct {
	Record
	arrived time.Time
}

// newQueue returns a queue of at most limit records, a power of two.
func newQueue(limit int, now func() time.Time) *queue {
	return &queue{limit: limit, now: now, ready: make(chan struct{}, 1), enough: make(chan struct{}, 1)}
}

func (q *queue) offer(r Record) bool {
	now := q.now()
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.closed || q.full && q.n > q.limit/2 || q.n == q.limit {
		q.full = true
		q.dropped++
		return false
	}
	q.full = false
	if q.n == len(q.ring) {
		q.resize(max(queueIdle, 2*len(q.ring)))
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = queued{r, now}
	q.n++
	if q.n == 1 {
		signal(q.ready)
	}
	if q.n == min(batchLength, q.limit) {
		signal(q.enough)
	}
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (q *queue) resize(length int) {
	ring := make([]queued, min(length, q.limit))
	for i := range q.n {
		ring[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
	}
	q.ring, q.head = ring, 0
}

// take appends at most limit records to batch, oldest first.
func (q *queue) take(batch []queued, limit int) []queued {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for range min(limit, q.n) {
		batch = append(batch, q.ring[q.head])
		q.ring[q.head] = queued{}
		q.head = (q.head + 1) & (len(q.ring) - 1)
		q.n--
	}
	if q.n == 0 && len(q.ring) > queueIdle {
		q.ring, q.head = nil, 0
	}
	return batch
}

// closeEmpty makes an empty queue take nothing more. It says whether it was
// empty.
func (q *queue) closeEmpty() bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.n > 0 {
		return false
	}
	q.closed = true
	return true
}

// close makes the queue take nothing more, and drops what waits.
func (q *queue) close() (lost []queued) {
	lost = q.take(nil, q.limit)
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.closed = true
	return lost
}

// oldest returns when the first waiting record arrived; zero if none waits.
func (q *queue) oldest() time.Time {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.n == 0 {
		return time.Time{}
	}
	return q.ring[q.head].arrived
}

func (q *queue) counts() (n int, dropped uint64) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	return q.n, q.dropped
}
