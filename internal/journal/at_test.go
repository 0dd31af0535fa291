package journal

import (
	"testing"
	"time"

	"portwatcher/internal/model"
)

// The model test asks for all that can be known; here is what cannot.
func TestAtAnUnknownTime(t *testing.T) {
	c := newClock()
	j := standing(t, Options{Path: temporary(t), Now: c.Now})
	begin := c.Now()
	ask := func(at time.Time) error {
		_, _, err := j.At(t.Context(), at, model.Filter{})
		return err
	}
	want := "the journal does not cover 2026-11-22T18:00:00Z: it has no record yet"
	if err := ask(begin); err == nil || err.Error() != want {
		t.Errorf("an empty journal: %v, want %s", err, want)
	}
	writeNow(t, j, Record{Event: &model.Event{ID: 1, Time: begin, Type: model.Gap}})
	c.add(time.Minute)
	for at, want := range map[time.Time]string{
		begin.Add(-time.Second):  "the journal does not cover 2026-11-22T17:59:59Z: it begins at 2026-11-22T18:00:00Z",
		c.Now().Add(time.Second): "the journal does not cover 2026-11-22T18:01:01Z: that is in the future (now is 2026-11-22T18:01:00Z)",
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
