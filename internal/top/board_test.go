package top

import (
	"testing"
	"time"

	"portwatcher/internal/model"
)

// A list that was asked for before an event, and comes after it, does not undo
// the event.
func TestListDoesNotUndoEvents(t *testing.T) {
	b := NewBoard()
	b.expect()
	b.Event(event(1, model.Closed, web))
	b.Event(event(2, model.Opened, db))
	if !b.replace([]model.Open{openAt(web, begin)}, begin) {
		t.Fatal("the list is refused")
	}
	s, _ := b.snapshot(0)
	if len(s.open) != 1 || s.open[0].Port != 5432 || len(s.events) != 2 {
		t.Errorf("rows %v, events %v; want what the events made", s.open, s.events)
	}
	if _, changed := b.snapshot(s.revision); changed {
		t.Error("a change without a change")
	}
}

// Events of an earlier life do not end the one of a newer list.
func TestOldEventsAfterANewerList(t *testing.T) {
	b := NewBoard()
	b.expect()
	again := begin.Add(time.Hour)
	b.replace([]model.Open{openAt(web, again)}, again)
	closed := event(2, model.Closed, web)
	closed.OpenedAt = begin
	b.Event(event(1, model.Opened, web))
	b.Event(closed)
	s, _ := b.snapshot(0)
	if len(s.open) != 1 || !s.open[0].OpenedAt.Equal(again) {
		t.Errorf("rows %v, want the one of the list", s.open)
	}
	closed = event(3, model.Closed, web)
	closed.OpenedAt = again
	b.Event(closed)
	if s, _ = b.snapshot(0); len(s.open) != 0 {
		t.Errorf("rows %v, want none", s.open)
	}
}

func TestEventsAreBoundedAndOnce(t *testing.T) {
	b := NewBoard()
	for id := range uint64(5 * maxEvents) {
		b.Event(event(id+1, model.Opened, web))
	}
	b.Event(event(5, model.Opened, web))
	b.past(b.journalNumber(), []*model.Event{event(4999, model.Opened, web), event(1, model.Opened, web)})
	s, _ := b.snapshot(0)
	if len(s.events) != maxEvents || s.events[0].ID != 4001 || s.events[maxEvents-1].ID != 5000 {
		t.Errorf("%d events from %d; want %d from 4001", len(s.events), s.events[0].ID, maxEvents)
	}
	before := b.journalNumber()
	b.forget()
	b.past(before, []*model.Event{event(9, model.Opened, web)}) // asked for too early
	b.past(b.journalNumber(), []*model.Event{event(2, model.Opened, web), event(1, model.Opened, web)})
	b.Event(event(3, model.Opened, web))
	if s, _ = b.snapshot(0); len(s.events) != 3 || s.events[0].ID != 1 || s.events[2].ID != 3 {
		t.Errorf("events %v; want 1, 2 and 3", s.events)
	}
}

// The age of a port is measured by the clock of its source.
func TestOtherClock(t *testing.T) {
	v := newView(t)
	for _, behind := range []time.Duration{time.Hour, -time.Hour, 0} {
		now := v.clock.Add(-behind)
		v.board.expect()
		v.board.replace([]model.Open{openAt(web, now.Add(-5*time.Minute))}, now)
		v.tick()
		v.wants("5m00s")
	}
}
