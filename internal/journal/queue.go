package journal

import (
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/sink"
)

// Record is one thing for the journal; records are offered in the order in
// which they happened. Exactly one of Event, State (with or without Full), Forget and
// Named is set.
type Record struct {
	// Event is recorded under its id, and changes the state. Immutable.
	Event *model.Event
	// Sockets go into the state, with an opened or changed event. Immutable.
	Sockets *model.Sockets
	// State puts endpoints that are open. With Full it is the whole state:
	// what else is open by the journal ends now without an event. Immutable.
	State []model.State
	Full  bool
	// Forget is the id of a container that is not monitored any more: its
	// endpoints end here without an event.
	Forget string
	// Named has the host and the container of a container that may have been renamed:
	// its earlier events are found by this name too. Immutable.
	Named *model.Listener
	// Drifts are periods of drifts that begin, end or begin again with the record. With Full
	// they are all that last: what else lasts by the journal ends now. Immutable.
	Drifts []model.DriftPeriod
}

// key is the id of the container that the record is of; empty for none.
func (r *Record) key() string {
	switch {
	case r.Event != nil && r.Event.Container != nil:
		return r.Event.Container.ID
	case r.Event == nil && !r.Full && len(r.State) > 0 && r.State[0].Container != nil:
		return r.State[0].Container.ID
	case r.Named != nil:
		return r.Named.Container.ID
	}
	return r.Forget
}

const (
	// queueCapacity is how many records wait for the disk at most: several seconds
	// of the worst storm, at about 200 bytes each and what the events take.
	// queueShare is how many of one container.
	queueCapacity, queueShare = 1 << 18, 1 << 14
	// batchLength is how many records are one transaction at most.
	batchLength = 4096
)

type queued struct {
	Record
	arrived time.Time
	// before is the state of a changed endpoint before the record was applied.
	before *model.State
}

// newQueue returns the queue in front of a journal.
func newQueue(capacity, share int) *sink.Queue[queued] {
	return sink.NewQueue[queued]("journal", capacity, share)
}

// Offer hands over a record. It returns false at once where it has no room for more
// records of its container, and after [Journal.Run]; see [sink.Queue.Offer].
func (j *Journal) Offer(r Record) (accepted bool) {
	return j.queue.Offer(r.key(), queued{Record: r, arrived: j.options.Now()})
}

// Room reports whether there is room for a record of the container with the id key;
// see [sink.Queue.Room].
func (j *Journal) Room(key string) bool { return j.queue.Room(key) }

// Force hands over a record that stands for many, a burst or a gap, or the whole
// state; see [sink.Queue.Force].
func (j *Journal) Force(r Record) (accepted bool) {
	return j.queue.Force(r.key(), queued{Record: r, arrived: j.options.Now()})
}

// Queue returns the status of the queue in front of the writer.
func (j *Journal) Queue() sink.Status { return j.queue.Status() }
