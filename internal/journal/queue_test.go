package journal

import (
	"testing"

	"portwatcher/internal/model"
)

func of(container string, id uint64) Record {
	return Record{Event: &model.Event{ID: id, Listener: model.Listener{Container: &model.ContainerRef{ID: container}}}}
}

func TestKeyOfARecord(t *testing.T) {
	open := []model.State{{Open: model.Open{Listener: model.Listener{Container: &model.ContainerRef{ID: "web"}}}}}
	for _, test := range []struct {
		name   string
		record Record
		want   string
	}{
		{"event", of("web", 1), "web"},
		{"event of no container", Record{Event: &model.Event{ID: 1}}, ""},
		{"forget", Record{Forget: "web"}, "web"},
		{"state", Record{State: open}, "web"},
		{"state without a container", Record{State: []model.State{{}}}, ""},
		{"full state", Record{State: open, Full: true}, ""},
	} {
		if got := test.record.key(); got != test.want {
			t.Errorf("%s: key %q, want %q", test.name, got, test.want)
		}
	}
}

// A container's storm does not take the room of the others.
func TestOfferHasShares(t *testing.T) {
	j, err := Open(Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	id := uint64(0)
	for id++; j.Offer(of("loud", id)); id++ {
		if id == queueShare && j.Room("loud") {
			t.Error("there is room for the loud container although its share waits")
		}
	}
	if q := j.Queue(); q.Name != "journal" || q.Length != queueCapacity/2 || q.Capacity != queueCapacity || q.Dropped != 1 {
		t.Errorf("the queue is %+v, want half of it filled by one container", q)
	}
	if !j.Room("web") || !j.Offer(of("web", id)) {
		t.Error("another container's event was refused")
	}
	if !j.Force(of("loud", id+1)) {
		t.Error("what stands for many events was refused")
	}
}

// BenchmarkOffer is what a record costs in the queue, both ways.
func BenchmarkOffer(b *testing.B) {
	q := newQueue(queueCapacity, queueShare)
	r := queued{Record: of("web", 1)}
	batch := make([]queued, 0, batchLength)
	b.ReportAllocs()
	for n := 1; b.Loop(); n++ {
		if !q.Offer("web", r) {
			b.Fatal("refused")
		}
		if n%batchLength == 0 {
			batch = q.Take(batch[:0], batchLength)
		}
	}
}
