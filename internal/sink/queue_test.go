package sink

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// reference is what a queue does, without a thought for its cost.
type reference struct {
	capacity, share  int
	waiting          []value
	full             bool
	crowded, refused map[string]bool
	taken, dropped   uint64
}

type value struct {
	key    string
	number int
}

func newReference(capacity, share int) *reference {
	return &reference{capacity: capacity, share: share, crowded: map[string]bool{}, refused: map[string]bool{}}
}

func (m *reference) of(key string) (n int) {
	for _, v := range m.waiting {
		if v.key == key {
			n++
		}
	}
	return n
}

func (m *reference) open() int { return m.capacity - m.capacity/16 }

func (m *reference) offer(v value) bool {
	m.full = m.full || len(m.waiting) >= m.open()
	if m.of(v.key) >= m.share && len(m.waiting) >= m.capacity/2 {
		m.refused[v.key] = true
	}
	if m.full || m.refused[v.key] {
		m.dropped++
		return false
	}
	m.put(v)
	return true
}

func (m *reference) force(v value) bool {
	if len(m.waiting) >= m.capacity {
		return false
	}
	m.put(v)
	return true
}

func (m *reference) put(v value) {
	m.waiting = append(m.waiting, v)
	m.taken++
	if m.of(v.key) >= m.share {
		m.crowded[v.key] = true
	}
}

func (m *reference) room(key string) bool {
	return !m.full && len(m.waiting) < m.open() && !m.crowded[key] && !m.refused[key]
}

func (m *reference) take(limit int) []value {
	n := min(limit, len(m.waiting))
	out := slices.Clone(m.waiting[:n])
	m.waiting = m.waiting[n:]
	for _, v := range out {
		if left := m.of(v.key); left == 0 || left < m.share/2 {
			delete(m.crowded, v.key)
			delete(m.refused, v.key)
		}
	}
	if len(m.waiting) <= m.capacity-m.capacity/4 {
		m.full = false
	}
	return out
}

func TestQueueDoesAsItsModel(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 9))
		capacity := []int{16, 100, 1000}[random.IntN(3)]
		share := 1 + random.IntN(capacity/2)
		keys := 1 + random.IntN(6)
		loud := random.IntN(2) == 0
		t.Run(fmt.Sprintf("seed %d, capacity %d, share %d, %d keys", seed, capacity, share, keys), func(t *testing.T) {
			q, m := NewQueue[value]("test", capacity, share), newReference(capacity, share)
			for number := range 6000 {
				v := value{key: strings.Repeat("k", random.IntN(keys)), number: number}
				if loud && random.IntN(2) == 0 {
					v.key = ""
				}
				switch random.IntN(20) {
				case 0:
					limit := random.IntN(2 + capacity*random.IntN(2))
					if got, want := q.Take(nil, limit), m.take(limit); !slices.Equal(got, want) {
						t.Fatalf("step %d: took %v, want %v", number, got, want)
					}
					if signalled := len(q.Ready()) == 1; signalled != (len(m.waiting) > 0) {
						t.Fatalf("step %d: ready is %v with %d waiting", number, signalled, len(m.waiting))
					}
				case 1:
					if got, want := q.Force(v.key, v), m.force(v); got != want {
						t.Fatalf("step %d: Force returns %v, want %v", number, got, want)
					}
				default:
					if got, want := q.Offer(v.key, v), m.offer(v); got != want {
						t.Fatalf("step %d: Offer returns %v, want %v", number, got, want)
					}
				}
				if got, want := q.Room(v.key), m.room(v.key); got != want {
					t.Fatalf("step %d: Room returns %v, want %v", number, got, want)
				}
				if s := q.Status(); s.Length != len(m.waiting) || s.Taken != m.taken || s.Dropped != m.dropped {
					t.Fatalf("step %d: status %+v, want %d waiting, %d taken, %d dropped", number, s, len(m.waiting), m.taken, m.dropped)
				}
			}
			if got := q.Take(nil, capacity); !slices.Equal(got, m.waiting) {
				t.Fatalf("%v were left, want %v", got, m.waiting)
			}
			if len(q.keys) != 0 {
				t.Errorf("the empty queue keeps counts of %d containers", len(q.keys))
			}
		})
	}
}

func TestOneContainersStormCostsNoOther(t *testing.T) {
	q := NewQueue[int]("test", 1<<10, 1<<6)
	storm := 0
	for n := range 1 << 12 {
		if q.Offer("loud", n) {
			storm++
		}
	}
	if storm != 1<<9 {
		t.Errorf("the storm got %d places, want half of the queue", storm)
	}
	for container := range 5 {
		for n := range 50 {
			if key := fmt.Sprint(container); !q.Room(key) || !q.Offer(key, n) {
				t.Fatalf("value %d of container %d was refused", n, container)
			}
		}
	}
	if q.Room("loud") || q.Offer("loud", 0) {
		t.Error("the storm got more than its share")
	}
	q.Take(nil, 1<<9-1<<5) // half a share is left
	if q.Offer("loud", 0) {
		t.Error("the storm was let in again with half a share waiting")
	}
	q.Take(nil, 1)
	if !q.Room("loud") || !q.Offer("loud", 0) {
		t.Error("the storm is refused although less than half its share waits")
	}
}

func TestForceHasAReserve(t *testing.T) {
	q := NewQueue[int]("test", 160, 10)
	for n := 0; q.Offer(fmt.Sprint(n), n); n++ {
	}
	if length := q.Status().Length; length != 150 {
		t.Fatalf("%d were taken, want all but the reserve", length)
	}
	for n := range 10 {
		if !q.Force("0", n) {
			t.Fatalf("the reserve took %d values, want 10", n)
		}
	}
	if q.Force("0", 0) {
		t.Error("a queue without any room took a value")
	}
	q.Take(nil, 39)
	if q.Room("other") || q.Offer("other", 0) {
		t.Error("a value was taken before a quarter of the queue was free")
	}
	q.Take(nil, 1)
	if !q.Room("other") || !q.Offer("other", 0) {
		t.Error("no value was taken although a quarter of the queue is free")
	}
}

func TestEnough(t *testing.T) {
	q := NewQueue[int]("test", 100, 100)
	enough := q.Enough(3)
	q.Offer("", 1)
	q.Offer("", 2)
	if len(enough) != 0 {
		t.Error("two were enough, want three")
	}
	q.Offer("", 3)
	if len(enough) != 1 {
		t.Error("three were not enough")
	}
	if len(q.Enough(4)) != 0 {
		t.Error("an old signal is left")
	}
	if len(q.Enough(3)) != 1 {
		t.Error("there is no signal for what waits already")
	}
}

func TestQueueCloses(t *testing.T) {
	q := NewQueue[int]("test", 8, 8)
	q.Offer("", 1)
	if q.CloseEmpty() {
		t.Error("a queue with a value closed as empty")
	}
	if !q.Offer("", 2) {
		t.Error("it closed nevertheless")
	}
	q.Close()
	if q.Offer("", 3) || q.Force("", 3) || q.Room("") {
		t.Error("a closed queue took a value")
	}
	if left := q.Take(nil, 8); !slices.Equal(left, []int{1, 2}) {
		t.Errorf("%v were left, want [1 2]", left)
	}
	q = NewQueue[int]("test", 8, 8)
	if !q.CloseEmpty() || q.Offer("", 1) {
		t.Error("an empty queue did not close")
	}
}

// An idle queue takes no memory, and an emptied one keeps two blocks at most.
func TestQueueTakesMemoryAsItFills(t *testing.T) {
	q := NewQueue[int]("test", 1<<17, 1<<17)
	if q.first != nil {
		t.Error("a new queue has room made already")
	}
	for n := range 1 << 16 {
		q.Offer("", n)
	}
	q.Take(nil, 1<<16)
	if q.first != q.last || q.first.next != nil || q.spare.next != nil {
		t.Error("the empty queue keeps more than a block and a spare one")
	}
	for _, b := range []*block[int]{q.first, q.spare} {
		if b.items != ([blockLength]item[int]{}) {
			t.Error("an empty block refers to what was in it")
		}
	}
}

// TestQueueIsSafe is of use with the race detector.
func TestQueueIsSafe(t *testing.T) {
	const senders, each = 4, 20000
	q := NewQueue[value]("test", 512, 64)
	var sending sync.WaitGroup
	var accepted [senders]int
	for s := range senders {
		sending.Go(func() {
			key := fmt.Sprint(s)
			for n := range each {
				if q.Room(key) && q.Offer(key, value{key, n}) || n%100 == 0 && q.Force(key, value{key, n}) {
					accepted[s]++
				}
			}
		})
	}
	sent := make(chan struct{})
	go func() {
		sending.Wait()
		close(sent)
	}()
	var received [senders]int
	last := map[string]int{}
	receive := func() {
		for _, v := range q.Take(nil, 100) {
			if before, ok := last[v.key]; ok && before >= v.number {
				t.Errorf("value %d of %s came after %d", v.number, v.key, before)
			}
			last[v.key] = v.number
			received[v.key[0]-'0']++
		}
	}
	for sending := true; sending; {
		select {
		case <-q.Ready():
			receive()
		case <-sent:
			sending = false
		}
	}
	for !q.CloseEmpty() {
		receive()
	}
	if received != accepted {
		t.Errorf("%v were received, want %v", received, accepted)
	}
	if accepted == [senders]int{} {
		t.Error("the queue took nothing")
	}
}

// BenchmarkQueue is what a consumer costs the capture for each event.
func BenchmarkQueue(b *testing.B) {
	for _, keys := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d containers", keys), func(b *testing.B) {
			q := NewQueue[*int]("test", 1<<17, 1<<13)
			ids := make([]string, keys)
			for i := range ids {
				ids[i] = fmt.Sprintf("%064d", i)
			}
			v := new(int)
			taken := make([]*int, 0, 1<<12)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				key := ids[n%keys]
				if !q.Room(key) || !q.Offer(key, v) {
					b.Fatal("refused")
				}
				if n%(1<<12) == 1<<12-1 {
					taken = q.Take(taken[:0], 1<<12)
				}
			}
		})
	}
}
