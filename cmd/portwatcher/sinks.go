package main

import (
	"portwatcher/internal/capture"
	"portwatcher/internal/journal"
	"portwatcher/internal/port"
	"portwatcher/internal/sink"
)

// liveCapacity is how many events wait for those who read them live, and liveShare how
// many of one container.
const liveCapacity, liveShare = 1 << 14, 1 << 12

// outputSink hands events to standard output.
func outputSink(w *sink.Writer) capture.Sink {
	s := eventSink(w.Queue)
	s.Slow = "missing from standard output, which was not read in time"
	return s
}

// eventSink hands events to a queue.
func eventSink(q *sink.Queue[*port.Event]) capture.Sink {
	return capture.Sink{
		Name: q.Status().Name,
		Offer: func(container string, r capture.Record, force bool) bool {
			if force {
				return q.Force(container, r.Event)
			}
			return q.Offer(container, r.Event)
		},
		Room:   q.Room,
		Status: func() (int, int, uint64) { return fill(q.Status()) },
	}
}

// liveSink hands events to those who only have to be woken by them: the events
// themselves are in the journal. It does not hold the others up.
func liveSink(q *sink.Queue[*port.Event]) capture.Sink {
	s := eventSink(q)
	s.Room, s.Lossy = nil, true
	return s
}

// journalSink hands records to the journal.
func journalSink(j *journal.Journal) capture.Sink {
	return capture.Sink{
		Name: "journal", State: true,
		Offer: func(_ string, r capture.Record, force bool) bool {
			record := journal.Record{Event: r.Event, Sockets: r.Sockets, State: r.State, Full: r.Full, Forget: r.Forget}
			if force {
				return j.Force(record)
			}
			return j.Offer(record)
		},
		Room:   j.Room,
		Status: func() (int, int, uint64) { return fill(j.Queue()) },
		Slow:   "missing from the journal, which could not be written in time",
	}
}

func fill(s sink.Status) (length, capacity int, taken uint64) { return s.Length, s.Capacity, s.Taken }

// callSink calls f for each event, at once: f must not block.
func callSink(f func(*port.Event)) []capture.Sink {
	return []capture.Sink{{
		Name:  "live",
		Offer: func(_ string, r capture.Record, _ bool) bool { f(r.Event); return true },
	}}
}
