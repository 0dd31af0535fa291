package engine

import (
	"context"
	"maps"
	"reflect"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/client"

	"portwatcher/internal/model"
)

// maxWaiting bounds the events that wait for the inspection of their container.
const maxWaiting = 256

// cause is why a container is inspected.
type cause uint8

const (
	byList cause = iota
	byStart
	byDeath
	byOther
)

// tracked is a container that runs, as far as is known. Its events are handled one after
// the other: while it is inspected, they wait.
type tracked struct {
	id string
	// described is the container as a list or its start event describes it.
	described *model.Container
	inspected // the latest inspection that succeeded; without a container there was none

	seen     int   // the latest list that was requested when it was last known to run
	busy     bool  // it is inspected, or waits for that
	cause    cause // of the inspection, and the time that a change by it has
	at       time.Time
	waiting  []events.Message
	recheck  bool                        // inspect it again after that
	pause    *backoff.ExponentialBackOff // nil unless the latest inspection failed
	due      time.Time                   // of the next attempt
	reported bool                        // the failure is
	started  bool                        // a Started or a Failed was sent
}

func (t *tracked) failing() bool { return t.pause != nil }

func (f *follower) track(described *model.Container) *tracked {
	t := &tracked{id: described.ID, described: described, seen: f.listNumber}
	f.containers[t.id] = t
	return t
}

// handle applies an event.
func (f *follower) handle(ctx context.Context, message events.Message) {
	id, at := eventContainer(message), eventTime(message)
	t := f.containers[id]
	switch {
	case id == "" || t == nil && !isStart(message):
		return
	case t == nil:
		t = f.track(eventDetails(message))
	case t.busy && len(t.waiting) < maxWaiting:
		t.waiting = append(t.waiting, message)
		return
	case t.busy:
		f.overflowed(ctx)
		return
	}
	// An event of before a restart may come after the list that found the container
	// restarted, and clocks can be set back: where the times do not fit, an inspection
	// decides.
	switch {
	case isDeath(message) && !at.Before(t.startedAt):
		f.stopped(ctx, t, at)
		return
	case isDeath(message):
		t.cause = byDeath
	case isStart(message):
		t.cause = byStart
	case t.failing():
		return // it is inspected again anyway
	default:
		t.cause = byOther
	}
	t.at = at
	f.inspect(ctx, t)
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

// inspect has a container inspected, as soon as fewer than parallelInspects are.
func (f *follower) inspect(ctx context.Context, t *tracked) {
	t.busy = true
	f.waiting = append(f.waiting, t)
	f.inspectNext(ctx)
}

func (f *follower) inspectNext(ctx context.Context) {
	for f.active < parallelInspects && len(f.waiting) > 0 {
		t := f.waiting[0]
		f.waiting[0] = nil
		f.waiting = f.waiting[1:]
		f.active++
		f.request(ctx, t, false)
	}
}

// request inspects a container in a goroutine.
func (f *follower) request(ctx context.Context, t *tracked, again bool) {
	a, list := f.api, f.listNumber
	f.requests.Go(func() {
		result := inspect(ctx, a, t.id)
		result.again, result.list = again, list
		select {
		case f.results <- result:
		case <-ctx.Done():
		}
	})
}

// retry inspects, of the containers whose inspection failed, the one that has waited
// longest: one at a time, so that those that hang delay no others.
func (f *follower) retry(ctx context.Context) {
	if t := f.nextRetry(); t != nil && !f.retrying && f.subscribed && !time.Now().Before(t.due) {
		f.retrying, t.busy = true, true
		f.request(ctx, t, true)
	}
	f.scheduleRetry()
}

func (f *follower) nextRetry() (next *tracked) {
	for _, t := range f.containers {
		if t.failing() && !t.busy && (next == nil || t.due.Before(next.due)) {
			next = t
		}
	}
	return next
}

// scheduleRetry sets the timer for the next retry. Without a connection there is none.
func (f *follower) scheduleRetry() {
	if t := f.nextRetry(); t != nil && !f.retrying && f.subscribed {
		f.retryDue.Reset(max(time.Until(t.due), 0))
	}
}

// finished applies the result of an inspection, and then the events that waited for it.
func (f *follower) finished(ctx context.Context, now inspected) {
	if now.again {
		f.retrying = false
	} else {
		f.active--
	}
	t := f.containers[now.id]
	waiting := t.waiting
	t.busy, t.waiting = false, nil
	if now.err != nil {
		f.failed(ctx, t, now.err)
	} else {
		f.observe(ctx, t, now)
	}
	switch {
	case t.recheck && now.err == nil && f.containers[t.id] == t:
		t.recheck, t.cause, t.at = false, byDeath, f.listTime
		f.inspect(ctx, t)
	case now.err == nil || t.reported:
		delete(f.unsettled, t.id)
	}
	for _, message := range waiting {
		f.handle(ctx, message)
	}
	f.inspectNext(ctx)
	f.scheduleRetry()
	f.complete(ctx)
}

// failed reports, once, a container that cannot be inspected, and has it inspected again
// later. A lost connection, which affects all, is not reported so: it shows when the
// next attempt fails too, while there is a connection.
func (f *follower) failed(ctx context.Context, t *tracked, err error) {
	first := !t.failing()
	if first {
		t.pause = newBackOff(maxRetryPause)
	}
	t.due = time.Now().Add(t.pause.NextBackOff())
	if t.reported || ctx.Err() != nil || first && client.IsErrConnectionFailed(err) {
		return
	}
	t.reported = true
	log := f.engine.log.WithField("container", t.last().Name).WithError(err)
	if t.started {
		log.Warn("The container cannot be inspected, and is assumed to be as before. The attempt is repeated.")
		return
	}
	log.Warn("The container cannot be inspected, and is not watched until it can. The attempt is repeated.")
	t.started = true
	f.send(ctx, Change{Kind: Failed, Container: t.described, Time: t.at, Err: err})
}

// observe applies an inspection that succeeded. For a known container that does not run,
// its die event or the list that lacks it decides.
func (f *follower) observe(ctx context.Context, t *tracked, now inspected) {
	if t.reported {
		f.engine.log.WithField("container", t.last().Name).Info("The container can be inspected again.")
	}
	t.pause, t.reported = nil, false
	switch {
	case now.running():
		f.running(ctx, t, now)
	case t.cause == byDeath:
		f.stopped(ctx, t, t.at)
	case !t.started && t.cause == byStart:
		delete(f.containers, t.id)
		f.send(ctx, Change{Kind: Passed, Container: t.described, Time: t.at})
	case !t.started:
		delete(f.containers, t.id)
	}
}

// running applies the inspection of a running container.
func (f *follower) running(ctx context.Context, t *tracked, now inspected) {
	known := t.inspected
	if known.running() && known.container.PID != now.container.PID {
		f.send(ctx, Change{Kind: Stopped, Container: known.container, Time: t.at})
		known = inspected{}
	}
	t.inspected, t.started, t.seen = now, true, now.list
	switch {
	case !known.running():
		if now.unclear != nil {
			f.engine.log.WithError(now.unclear).Warn("A part of the engine's answer cannot be parsed and is ignored.")
		}
		f.send(ctx, Change{Kind: Started, Container: now.container, Time: t.at})
	case !reflect.DeepEqual(known.container, now.container):
		f.send(ctx, Change{Kind: Updated, Container: now.container, Time: t.at})
	}
}

// stopped reports that a container does not run any more.
func (f *follower) stopped(ctx context.Context, t *tracked, at time.Time) {
	delete(f.containers, t.id)
	delete(f.unsettled, t.id)
	kind := Stopped
	if !t.started {
		kind = Passed
	}
	f.send(ctx, Change{Kind: kind, Container: t.last(), Time: at})
}

// last returns the container as last known.
func (t *tracked) last() *model.Container {
	if t.running() {
		return t.container
	}
	return t.described
}

// unchanged reports whether a listed container is as known. A restart whose events were
// lost shows in the first process.
func (f *follower) unchanged(t *tracked, s *container.Summary) bool {
	return t.running() && f.engine.alive != nil && like(t.container, s) && f.engine.alive(t.container)
}
