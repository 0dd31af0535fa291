package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// Replayed is one message of a replay.
type Replayed struct {
	Receiver string
	*notify.Notification
}

// Replay evaluates the rules of settings over what the journal has from since until a time, as
// they would have been evaluated then, and passes each message that they make to yield. It sends
// nothing and changes nothing. An error of yield ends it. It returns how many events there were,
// and for each rule what became of it.
//
// It differs from what was sent where it has to: of a container that started again later the
// journal has only its last start, so that container_age is not known before; and running is
// false only for what closed because its container had stopped.
func Replay(ctx context.Context, c *Config, h History, since, until time.Time, report func(error), yield func(Replayed) error) (events int, rules map[string]RuleCounts, err error) {
	core := newCore(c, surroundings{report: report})
	core.ask.before = func(e *model.Event) (*previous, error) { return before(h, e) }
	pass := func() error {
		deliveries := core.deliveries
		core.deliveries = nil
		clear(core.changed)
		for i := range deliveries {
			n := &notify.Notification{}
			if err := json.Unmarshal(deliveries[i].Notification, n); err != nil {
				return fmt.Errorf("replay: %w", err)
			}
			if err := yield(Replayed{deliveries[i].Receiver, n}); err != nil {
				return err
			}
		}
		return nil
	}
	for e, err := range h.Events(ctx, journal.Query{Since: since, Until: until}) {
		if err != nil {
			return events, nil, err
		}
		events++
		core.event(e)
		if err := pass(); err != nil {
			return events, nil, err
		}
	}
	core.advance(until)
	if err := pass(); err != nil {
		return events, nil, err
	}
	rules = map[string]RuleCounts{}
	for name, counts := range core.rules {
		rules[name] = *counts
	}
	return events, rules, ctx.Err()
}
