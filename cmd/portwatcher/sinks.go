package main

import (
	"context"

	"portwatcher/internal/capture"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/sink"
)

// liveCapacity is how many events wait for the consumers that show them live, and liveShare how
// many of one container.
const liveCapacity, liveShare = 1 << 14, 1 << 12

func outputSink(w *sink.Writer) capture.Sink {
	s := eventSink(w.Queue)
	s.Slow = "missing from standard output, which was not read in time"
	return s
}

func eventSink(q *sink.Queue[*model.Event]) capture.Sink {
	return capture.Sink{
		Name: q.Status().Name,
		Offer: func(container string, r capture.Record, force bool) bool {
			if force {
				return q.Force(container, r.Event)
			}
			return q.Offer(container, r.Event)
		},
		Room:   q.Room,
		Status: func() (int, int) { return fill(q.Status()) },
	}
}

// liveSink puts events into a queue that may lose some: its consumers read the events from the
// journal, or the state from the capture. It never slows the capture.
func liveSink(q *sink.Queue[*model.Event]) capture.Sink {
	s := eventSink(q)
	s.Room, s.Lossy = nil, true
	return s
}

func journalSink(j *journal.Journal) capture.Sink {
	return capture.Sink{
		Name: "journal", State: true,
		Offer: func(_ string, r capture.Record, force bool) bool {
			record := journal.Record{Event: r.Event, Sockets: r.Sockets, State: r.State, Full: r.Full, Forget: r.Forget, Named: r.Named, Drifts: r.Drifts}
			if force {
				return j.Force(record)
			}
			return j.Offer(record)
		},
		Room:   j.Room,
		Status: func() (int, int) { return fill(j.Queue()) },
		Slow:   "missing from the journal, which could not be written in time",
	}
}

func fill(s sink.Status) (length, capacity int) { return s.Length, s.Capacity }

// watchLive returns a sink whose events f receives in a goroutine of its own, until ctx ends.
// Where f is too slow, missed receives the number of events that f does not.
func watchLive(ctx context.Context, f func(*model.Event), missed func(uint64)) capture.Sink {
	q := sink.NewQueue[*model.Event]("live", liveCapacity, liveShare)
	go consume(ctx, q, f, missed)
	return liveSink(q)
}

// consume passes events to f until ctx ends; see [watchLive].
func consume(ctx context.Context, q *sink.Queue[*model.Event], f func(*model.Event), missed func(uint64)) {
	var events []*model.Event
	var dropped uint64
	for {
		select {
		case <-q.Ready():
		case <-ctx.Done():
			return
		}
		events = q.Take(events[:0], 1024)
		for _, e := range events {
			f(e)
		}
		clear(events)
		if s := q.Status(); s.Dropped != dropped {
			missed(s.Dropped - dropped)
			dropped = s.Dropped
		}
	}
}
