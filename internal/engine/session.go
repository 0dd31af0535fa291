package engine

import (
	"context"
	"maps"
	"reflect"
	"time"

	"github.com/docker/docker/api/types/events"

	"portwatcher/internal/model"
)

// readyTimeout is how long a list waits for the engine to accept the subscription:
// some engines answer with the first event only.
const readyTimeout = 250 * time.Millisecond

// session is one connection: subscribe, list, reconcile, then events and periodic
// lists. It returns why the connection ended.
func (f *follower) session(ctx context.Context) error {
	a, err := f.engine.connect(ctx)
	if err != nil {
		return err
	}
	sub := subscribe(ctx, a)
	defer f.finish(ctx, sub)
	defer sub.stop()
	select {
	case <-sub.ready:
	case <-time.After(readyTimeout):
	case <-ctx.Done():
		return ctx.Err()
	}

	again := newBackOff() // after an incomplete list
	list := time.NewTimer(0)
	defer list.Stop()
	var known lookup = inspectAll // while disconnected, anything may have changed
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-sub.failed:
			return err
		case <-sub.overflow:
			if f.trouble.due() {
				f.engine.log.Warn("Events of the Docker Engine came faster than they could be handled. The containers are listed again.")
			}
			known = inspectAll
			list.Reset(0)
		case <-list.C:
			complete, err := f.list(ctx, a, sub, known)
			switch {
			case err != nil:
				return err
			case complete:
				again.Reset()
				list.Reset(listInterval)
				known = f.unchanged
			default:
				list.Reset(again.NextBackOff())
			}
		case message := <-sub.events:
			if !f.handle(ctx, a, message) {
				known = inspectAll
				list.Reset(again.NextBackOff())
			}
		}
	}
}

// list reconciles the known containers with the engine's list. It reports whether
// every container could be inspected; one that could not stays as it is.
func (f *follower) list(ctx context.Context, a api, sub *subscription, known lookup) (complete bool, err error) {
	at := time.Now()
	all, err := listAll(ctx, a, known)
	if err != nil {
		return false, err
	}
	// The time of a queued die event is more exact than that of the list.
	waiting := drain(sub)
	listed := make(map[string]inspected, len(all))
	for _, one := range all {
		listed[one.id] = one
	}
	for id, known := range f.known {
		now := listed[id]
		if now.err == nil && (!now.running() || now.container.PID != known.container.PID) {
			f.stopped(ctx, id, deathIn(waiting, known, at))
		}
	}
	complete = true
	for _, one := range all {
		complete = f.observe(ctx, one, at) && complete
	}
	f.connectionWorks()
	if complete {
		f.send(ctx, Change{Kind: Synced, Time: at})
	}
	for _, message := range waiting {
		complete = f.handle(ctx, a, message) && complete
	}
	return complete, ctx.Err()
}

// drain removes the events that are queued now.
func drain(sub *subscription) []events.Message {
	var waiting []events.Message
	for range len(sub.events) {
		waiting = append(waiting, <-sub.events)
	}
	return waiting
}

// deathIn returns when a container died by the queued events, or otherwise.
func deathIn(waiting []events.Message, known inspected, otherwise time.Time) time.Time {
	for _, message := range waiting {
		if isDeath(message) && eventContainer(message) == known.id && !eventTime(message).Before(known.started) {
			return eventTime(message)
		}
	}
	return otherwise
}

func isDeath(message events.Message) bool {
	return message.Type == events.ContainerEventType &&
		(message.Action == events.ActionDie || message.Action == events.ActionDestroy)
}

// handle applies one event. It returns false if the container could not be inspected,
// so that a list is needed.
func (f *follower) handle(ctx context.Context, a api, message events.Message) bool {
	id, at := eventContainer(message), eventTime(message)
	known, isKnown := f.known[id]
	started := message.Type == events.ContainerEventType && message.Action == events.ActionStart
	if id == "" || !isKnown && !started {
		return true
	}
	if isDeath(message) {
		// An event of before a restart may come after the list that found the
		// container restarted, and clocks can be set back: where the times do not
		// fit, an inspection decides.
		if at.Before(known.started) {
			now := inspect(ctx, a, id)
			if now.err != nil || now.running() {
				return f.observe(ctx, now, at)
			}
		}
		f.stopped(ctx, id, at)
		return true
	}
	now := inspect(ctx, a, id)
	if started && !isKnown && now.err == nil && !now.running() {
		f.send(ctx, Change{Kind: Passed, Container: eventDetails(message), Time: at})
		return true
	}
	return f.observe(ctx, now, at)
}

// eventDetails returns a container as its event describes it, with its labels among
// the engine's own attributes.
func eventDetails(message events.Message) *model.Container {
	labels := maps.Clone(message.Actor.Attributes)
	name, image := labels["name"], labels["image"]
	delete(labels, "name")
	delete(labels, "image")
	return &model.Container{ID: message.Actor.ID, Name: name, Image: image, Labels: labels}
}

// finish applies the die events that arrived before the connection ended.
func (f *follower) finish(ctx context.Context, sub *subscription) {
	for _, message := range drain(sub) {
		id := eventContainer(message)
		known, isKnown := f.known[id]
		if isKnown && isDeath(message) && !eventTime(message).Before(known.started) {
			f.stopped(ctx, id, eventTime(message))
		}
	}
}

// observe applies the inspection of a running container. For one that does not run, its
// die event or the list that lacks it decides. It returns false if the inspection failed.
func (f *follower) observe(ctx context.Context, now inspected, at time.Time) bool {
	if now.err != nil {
		if ctx.Err() == nil && f.trouble.due() {
			f.engine.log.WithError(now.err).Warn("A container cannot be inspected and is assumed to be as before. The list is repeated.")
		}
		return false
	}
	if !now.running() {
		return true
	}
	known, isKnown := f.known[now.id]
	if isKnown && known.container.PID != now.container.PID {
		f.stopped(ctx, now.id, at)
		isKnown = false
	}
	f.known[now.id] = now
	switch {
	case !isKnown:
		if now.unclear != nil {
			f.engine.log.WithError(now.unclear).Warn("A part of the engine's answer cannot be parsed and is ignored.")
		}
		f.send(ctx, Change{Kind: Started, Container: now.container, Time: at})
	case !reflect.DeepEqual(known.container, now.container):
		f.send(ctx, Change{Kind: Updated, Container: now.container, Time: at})
	}
	return true
}

// stopped reports that a known container does not run any more.
func (f *follower) stopped(ctx context.Context, id string, at time.Time) {
	known := f.known[id]
	delete(f.known, id)
	f.send(ctx, Change{Kind: Stopped, Container: known.container, Time: at})
}
