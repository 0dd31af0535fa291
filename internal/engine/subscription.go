package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// queueLength bounds the events that wait for the follower. When the queue is full,
// events are dropped and the follower lists again.
const queueLength = 1024

// watchedActions are the events that can change a [Change]'s container. The engine
// filters by them: exec and health checks cause many others.
var watchedActions = []events.Action{
	events.ActionStart, events.ActionDie, events.ActionRename, events.ActionPause, events.ActionUnPause,
	events.ActionDestroy, events.ActionUpdate, events.ActionConnect, events.ActionDisconnect,
}

// subscription reads the engine's events into a bounded queue.
type subscription struct {
	events   <-chan events.Message
	ready    <-chan struct{} // closed once the engine has accepted it
	overflow <-chan struct{} // events were dropped
	failed   <-chan error    // one error at the end; events before it are in the queue
	stop     func()          // ends the subscription and waits for its goroutine
}

// subscribe starts a subscription to the events from now on.
func subscribe(ctx context.Context, a api) *subscription {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan events.Message, queueLength)
	ready := make(chan struct{})
	overflow := make(chan struct{}, 1)
	failed := make(chan error, 1)
	done := make(chan struct{})
	// The engine answers before it subscribes this client; with a start time it also
	// sends the events between.
	since := time.Now()
	go func() {
		defer close(done)
		// Some engines answer with the first event only.
		messages, errs := a.Events(ctx, events.ListOptions{
			Since:   strconv.FormatInt(since.Unix(), 10) + fmt.Sprintf(".%09d", since.Nanosecond()),
			Filters: eventFilters(),
		})
		close(ready)
		failed <- readEvents(messages, errs, queue, overflow)
		cancel()
		for range errs { // closed when the client's goroutine has ended
		}
	}()
	return &subscription{
		events: queue, ready: ready, overflow: overflow, failed: failed,
		stop: func() { cancel(); <-done },
	}
}

// readEvents moves events to the queue until their source fails, and returns the
// error. It never waits for the queue.
func readEvents(messages <-chan events.Message, errs <-chan error, queue chan<- events.Message, overflow chan<- struct{}) error {
	for {
		select {
		case message := <-messages:
			select {
			case queue <- message:
				continue
			default:
			}
			select {
			case overflow <- struct{}{}:
			default:
			}
		case err, open := <-errs:
			if !open || err == nil {
				err = errors.New("the stream ended")
			}
			return fmt.Errorf("events: %w", err)
		}
	}
}

func eventFilters() filters.Args {
	args := filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("type", string(events.NetworkEventType)),
	)
	for _, action := range watchedActions {
		args.Add("event", string(action))
	}
	return args
}

// eventTime returns when an event happened.
func eventTime(message events.Message) time.Time {
	if message.TimeNano != 0 {
		return time.Unix(0, message.TimeNano)
	}
	return time.Unix(message.Time, 0)
}

// eventContainer returns the id of the container of an event, or "".
func eventContainer(message events.Message) string {
	switch message.Type {
	case events.ContainerEventType:
		return message.Actor.ID
	case events.NetworkEventType:
		return message.Actor.Attributes["container"]
	}
	return ""
}
