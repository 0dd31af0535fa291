package journal

import (
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// The model test asks for all that can be known; here is what cannot.
func TestAtAnUnknownTime(t *testing.T) {
	c := newClock()
	j := standing(t, Options{Path: temporary(t), Now: c.Now})
	begin := c.Now()
	ask := func(at time.Time) error {
		_, _, err := j.Reader().At(t.Context(), at)
		return err
	}
	want := "nothing is known of 2026-11-22T18:00:00Z: the journal has no record yet"
	if err := ask(begin); err == nil || err.Error() != want {
		t.Errorf("an empty journal: %v, want %s", err, want)
	}
	writeNow(t, j, Record{Event: &model.Event{ID: 1, Time: begin, Type: model.Gap}})
	c.add(time.Minute)
	for at, want := range map[time.Time]string{
		begin.Add(-time.Second):  "nothing is known of 2026-11-22T17:59:59Z: the journal begins at 2026-11-22T18:00:00Z",
		c.Now().Add(time.Second): "nothing is known of 2026-11-22T18:01:01Z: it is in the future (now is 2026-11-22T18:01:00Z)",
	} {
		if err := ask(at); err == nil || err.Error() != want {
			t.Errorf("at %v: %v, want %s", at, err, want)
		}
	}
	for _, at := range []time.Time{begin, c.Now()} {
		if err := ask(at); err != nil {
			t.Errorf("at %v: %v", at, err)
		}
	}
}

// TestWhoHadItIsNotKnown changes the owner of an endpoint whose opening no event
// tells of: who had it before is left out, not guessed.
func TestWhoHadItIsNotKnown(t *testing.T) {
	c := newClock()
	j := standing(t, Options{Path: temporary(t), Now: c.Now})
	l := journaltest.New(1, 1, c.Now(), time.Millisecond).Next().Listener
	began := c.Now()
	writeNow(t, j, Record{State: []model.State{{Open: model.Open{Time: began, Listener: l, OpenedAt: began}}}})
	c.add(time.Minute)
	taken := l
	taken.Processes = []model.Process{{PID: 7}}
	writeNow(t, j, Record{Event: &model.Event{ID: 1, Time: c.Now(), Type: model.Changed, Listener: taken}})
	for at, want := range map[time.Time]int{began.Add(time.Second): 0, c.Now(): 1} {
		open, _, err := j.Reader().At(t.Context(), at)
		if err != nil || len(open) != 1 || len(open[0].Processes) != want {
			t.Errorf("at %v: %s (%v), want %d processes", at, asJSON(t, open), err, want)
		}
	}
}
