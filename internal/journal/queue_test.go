package journal

import (
	"fmt"
	"testing"
	"time"

	"portwatcher/internal/port"
)

func numbered(n int) Record { return Record{Event: &port.Event{ID: uint64(n)}} }

func TestQueueRefusesUntilHalfEmpty(t *testing.T) {
	q := newQueue(8, time.Now)
	for n := range 8 {
		if !q.offer(numbered(n)) {
			t.Fatalf("record %d of 8 was refused", n)
		}
	}
	if q.offer(numbered(8)) {
		t.Fatal("a full queue took a record")
	}
	var batch []queued
	for left := 7; left >= 0; left-- {
		batch = q.take(batch, 1)
		if accepted, want := q.offer(numbered(100)), left <= 4; accepted != want {
			t.Fatalf("with %d of 8 waiting after it was full: accepted %v, want %v", left, accepted, want)
		} else if accepted {
			break
		}
	}
	for n, b := range batch {
		if b.Event.ID != uint64(n) {
			t.Errorf("record %d came out as number %d", b.Event.ID, n)
		}
	}
	if n, dropped := q.counts(); n != 5 || dropped != 4 {
		t.Errorf("%d wait and %d were dropped, want 5 and 4", n, dropped)
	}
}

func TestQueueKeepsOrder(t *testing.T) {
	q := newQueue(1<<13, time.Now)
	in, out := 0, 0
	for _, step := range []struct{ in, out int }{{3000, 100}, {2000, 4000}, {5000, 5900}, {8000, 7999}, {8000, 8001}} {
		for range step.in {
			if !q.offer(numbered(in)) {
				t.Fatalf("record %d was refused", in)
			}
			in++
		}
		for _, b := range q.take(nil, step.out) {
			if b.Event.ID != uint64(out) {
				t.Fatalf("record %d came, want %d", b.Event.ID, out)
			}
			out++
		}
	}
	if in != out {
		t.Fatalf("%d went in, %d came out", in, out)
	}
	if len(q.ring) > queueIdle {
		t.Errorf("the empty queue keeps room for %d records", len(q.ring))
	}
}

func TestQueueCloses(t *testing.T) {
	q := newQueue(8, time.Now)
	q.offer(numbered(1))
	if q.closeEmpty() {
		t.Fatal("a queue with a record closed as empty")
	}
	if lost := q.close(); fmt.Sprint(len(lost)) != "1" {
		t.Errorf("%d records were lost, want 1", len(lost))
	}
	if q.offer(numbered(2)) {
		t.Error("a closed queue took a record")
	}
	if !newQueue(8, time.Now).closeEmpty() {
		t.Error("an empty queue did not close")
	}
}

// BenchmarkOffer is what the journal adds to the way to standard output.
func BenchmarkOffer(b *testing.B) {
	q := newQueue(queueLength, time.Now)
	r := Record{Event: &port.Event{ID: 1}, Sockets: &port.Sockets{}}
	batch := make([]queued, 0, queueLength)
	b.ReportAllocs()
	for b.Loop() {
		if !q.offer(r) {
			b.StopTimer()
			batch = q.take(batch[:0], queueLength)
			b.StartTimer()
			q.offer(r)
		}
	}
}
