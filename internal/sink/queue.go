// Package sink has the one bounded queue type, which stands between the capture and
// each sink of its events, and the writer of standard output.
//
// Invariants:
//
//   - The capture never waits for a sink: a queue takes or drops a value at once.
//   - Each container has a share of a queue, so that one container's storm does
//     not take the room of another's events.
//   - Values leave in the order in which they came.
//   - A queue counts what it drops, and the caller reports it: as a burst where
//     [Queue.Room] shows the lack of room in time, else as a gap.
package sink

import (
	"sync"
	"time"
)

// Queue is a bounded queue of values, each of one container, in front of one
// consumer. It allocates memory as it fills and frees it when it is empty.
//
// While less than half of it is full it takes everything. Beyond, it drops the values
// of a container of which a whole share waits, until less than half a share waits, so
// that one slow moment of the consumer is one gap. When all but the reserve for
// [Queue.Force] is full it drops everything, until a quarter of its capacity is free.
//
// All methods are safe for concurrent use. One consumer at a time calls Take and
// Enough, and receives from Ready.
type Queue[T any] struct {
	name            string
	capacity, share int
	began           time.Time
	ready, enough   chan struct{}

	mutex       sync.Mutex
	first, last *block[T]
	spare       *block[T] // an empty one, to be used next
	head, tail  int       // the first value in first, and the end of those in last
	n           int
	enoughAt    int // enough is signalled when so many wait
	full        bool
	closed      bool
	keys        map[string]*tally // of the containers of which something waits
	unused      []*tally
	taken       uint64
	dropped     uint64
}

// blockLength is how many values one allocation holds.
const blockLength = 256

type block[T any] struct {
	items [blockLength]item[T]
	next  *block[T]
}

type item[T any] struct {
	value   T
	tally   *tally
	arrived time.Duration // after the queue was made
}

// tally counts the values of one container that wait.
type tally struct {
	key     string
	waiting int
	// crowded is set when a share waits, and refused when a value was dropped for that
	// reason, until less than half a share waits.
	crowded, refused bool
}

// maxUnused bounds how many tallies are kept for reuse.
const maxUnused = 256

// NewQueue returns a queue of at most capacity values, and about share values of each
// container. The name is that of the consumer, for the status.
func NewQueue[T any](name string, capacity, share int) *Queue[T] {
	return &Queue[T]{
		name: name, capacity: capacity, share: share, began: time.Now(),
		ready: make(chan struct{}, 1), enough: make(chan struct{}, 1), keys: map[string]*tally{},
	}
}

// reserve is the room that only Force uses.
func (q *Queue[T]) reserve() int { return q.capacity / 16 }

// Offer takes a value of the container with the id key, or drops and counts it. The
// values that belong to no container, whose key is "", share one share.
func (q *Queue[T]) Offer(key string, v T) (accepted bool) {
	arrived := time.Since(q.began)
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.n >= q.capacity-q.reserve() {
		q.full = true
	}
	t := q.keys[key]
	if t != nil && t.waiting >= q.share && q.n >= q.capacity/2 {
		t.refused = true
	}
	if q.closed || q.full || t != nil && t.refused {
		q.dropped++
		return false
	}
	q.put(key, t, v, arrived)
	return true
}

// Room reports whether the queue has room for a value of a container within its share.
// It turns false when a share waits, or Offer drops, and true again when less than half
// a share waits. Where it is false the capture counts a container's openings and
// closings instead of offering each.
func (q *Queue[T]) Room(key string) bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.closed || q.full || q.n >= q.capacity-q.reserve() {
		return false
	}
	t := q.keys[key]
	return t == nil || !t.crowded && !t.refused
}

// Force takes a value as long as the queue has any room, also beyond the share and in
// the reserve, a sixteenth of the capacity. It is for the few values that stand for
// many: bursts and gaps. Where it returns false nothing is counted as dropped: the
// caller keeps the value and tries again.
func (q *Queue[T]) Force(key string, v T) (accepted bool) {
	arrived := time.Since(q.began)
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.closed || q.n >= q.capacity {
		return false
	}
	q.put(key, q.keys[key], v, arrived)
	return true
}

// put adds a value. The tally is that of the key; nil where none of its values waits.
// The caller holds the lock, as for newTally, extend, next and release.
func (q *Queue[T]) put(key string, t *tally, v T, arrived time.Duration) {
	if t == nil {
		t = q.newTally(key)
	}
	t.waiting++
	t.crowded = t.crowded || t.waiting >= q.share
	if q.last == nil || q.tail == blockLength {
		q.extend()
	}
	q.last.items[q.tail] = item[T]{v, t, arrived}
	q.tail++
	q.n++
	q.taken++
	if q.n == 1 {
		signal(q.ready)
	}
	if q.n == q.enoughAt {
		signal(q.enough)
	}
}

func (q *Queue[T]) newTally(key string) *tally {
	t := &tally{}
	if last := len(q.unused) - 1; last >= 0 {
		t = q.unused[last]
		q.unused = q.unused[:last]
	}
	t.key = key
	q.keys[key] = t
	return t
}

func (q *Queue[T]) extend() {
	b := q.spare
	if q.spare = nil; b == nil {
		b = &block[T]{}
	}
	if q.last == nil {
		q.first, q.head = b, 0
	} else {
		q.last.next = b
	}
	q.last, q.tail = b, 0
}

// Take appends at most limit values to dst, oldest first. It never blocks.
func (q *Queue[T]) Take(dst []T, limit int) []T {
	for limit > 0 {
		// A few at a time: the capture may wait for the lock.
		few := min(limit, blockLength)
		before := len(dst)
		if dst = q.takeFew(dst, few); len(dst)-before < few {
			break
		}
		limit -= few
	}
	return dst
}

func (q *Queue[T]) takeFew(dst []T, limit int) []T {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for range min(limit, q.n) {
		dst = append(dst, q.next())
	}
	if q.n <= q.capacity-q.capacity/4 {
		q.full = false
	}
	if q.n > 0 {
		signal(q.ready)
	} else {
		drain(q.ready)
	}
	return dst
}

func (q *Queue[T]) next() T {
	oldest := &q.first.items[q.head]
	v := oldest.value
	q.release(oldest.tally)
	*oldest = item[T]{}
	q.head++
	q.n--
	switch {
	case q.n == 0: // the last block is used from its beginning again
		q.first.next, q.head, q.tail = nil, 0, 0
	case q.head == blockLength:
		b := q.first
		q.first, q.head = b.next, 0
		b.next = nil
		q.spare = b
	}
	return v
}

func (q *Queue[T]) release(t *tally) {
	t.waiting--
	if t.waiting == 0 || t.waiting < q.share/2 {
		t.crowded, t.refused = false, false
	}
	if t.waiting > 0 {
		return
	}
	delete(q.keys, t.key)
	if *t = (tally{}); len(q.unused) < maxUnused {
		q.unused = append(q.unused, t)
	}
}

// Ready returns a channel, of capacity 1, that has a signal whenever a value waits. The
// receiver calls Take, which signals again where more is left.
func (q *Queue[T]) Ready() <-chan struct{} { return q.ready }

// Enough returns a channel, of capacity 1, that gets a signal when count values wait,
// or at once if they do. It is valid until the next call.
func (q *Queue[T]) Enough(count int) <-chan struct{} {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	drain(q.enough)
	q.enoughAt = min(count, q.capacity)
	if q.n >= q.enoughAt {
		signal(q.enough)
	}
	return q.enough
}

// CloseEmpty closes the queue if it is empty, and reports whether it was.
func (q *Queue[T]) CloseEmpty() (empty bool) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.closed = q.closed || q.n == 0
	return q.n == 0
}

// Close makes the queue drop everything that comes from now on. Take returns what waits.
func (q *Queue[T]) Close() {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.closed = true
}

// Status is the condition of a queue.
type Status struct {
	// Name is that of the consumer.
	Name string
	// Length is how many values wait, of Capacity.
	Length, Capacity int
	// Taken is how many values the queue took, and Dropped how many Offer dropped, since
	// the queue was made.
	Taken, Dropped uint64
	// Oldest is how long the oldest value has waited; 0 where none waits.
	Oldest time.Duration
}

// Status returns the condition of the queue.
func (q *Queue[T]) Status() Status {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	s := Status{Name: q.name, Length: q.n, Capacity: q.capacity, Taken: q.taken, Dropped: q.dropped}
	if q.n > 0 {
		s.Oldest = time.Since(q.began) - q.first.items[q.head].arrived
	}
	return s
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}
