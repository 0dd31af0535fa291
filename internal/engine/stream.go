package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"portwatcher/internal/clock"
)

const (
	// queueLength bounds the events that wait for the follower. When the queue is full,
	// events are dropped and the follower lists again.
	queueLength = 1024
	// readyTimeout is how long a list waits for the engine to accept the subscription:
	// some engines answer with the first event only.
	readyTimeout = 250 * time.Millisecond
	// refusalTime is how long the client takes to return an error after the answer.
	refusalTime = 10 * time.Millisecond
	// steadyTime is how long a subscription lasts at least that is made again at once and
	// without a report. Socket proxies end idle ones every few minutes.
	steadyTime = time.Second
	// sinceMargin is how much earlier than the end of the last subscription the next one
	// begins: a proxy may not have passed on the last events, and their times are not
	// quite in order.
	sinceMargin = 2 * time.Second
	// engineMemory is the number of past events, of all kinds, that the engine keeps.
	// Source: eventsLimit in https://github.com/moby/moby/blob/master/daemon/events/events.go.
	engineMemory = 256
)

// watchedActions are the events that can change a [Change]'s container. The engine
// filters by them: exec and health checks cause many others.
var watchedActions = []events.Action{
	events.ActionStart, events.ActionDie, events.ActionRename, events.ActionPause, events.ActionUnPause,
	events.ActionDestroy, events.ActionUpdate, events.ActionConnect, events.ActionDisconnect,
}

// link is a change of the connection to the engine: a subscription that works, or the
// error of one that does not.
type link struct {
	api api // nil with an error, unless the engine refuses its events alone
	err error
}

// stream reads the engine's events into a bounded queue, and subscribes again whenever a
// subscription ends.
type stream struct {
	engine   *Engine
	links    chan link
	events   chan events.Message
	overflow chan struct{} // events were dropped
	missed   chan struct{} // the engine may have forgotten events of before the subscription

	// end is when the last subscription ended: up to then all events were received, but
	// for some of the last sinceMargin.
	end time.Time
	// recent are the last events that were received, as a ring: the next subscription
	// repeats some. received is their number.
	recent   [engineMemory]eventID
	received int
}

// eventID distinguishes events.
type eventID struct {
	at                      int64
	kind                    events.Type
	action                  events.Action
	actor, networkContainer string
}

func newStream(e *Engine) *stream {
	return &stream{
		engine: e, links: make(chan link), events: make(chan events.Message, queueLength), overflow: make(chan struct{}, 1),
		missed: make(chan struct{}, 1), end: time.Now().Add(sinceMargin),
	}
}

// run subscribes until ctx ends, and returns its error, or until the engine can never be
// reached again.
func (s *stream) run(ctx context.Context) error {
	pause := newBackOff(maxPause)
	for {
		refused, lasted, err := s.subscribe(ctx)
		_, absent := errors.AsType[*ConnectError](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case absent && errors.Is(err, errSocketReplaced):
			return err
		case lasted >= steadyTime:
			s.engine.log.WithError(err).Debug("The subscription to the engine's events has ended, and is made again.")
			pause.Reset()
			continue
		}
		select {
		case s.links <- link{api: refused, err: err}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !clock.Sleep(ctx, pause.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// subscribe connects and reads events until that fails. It returns how long the
// subscription lasted, and the client of one that was refused.
func (s *stream) subscribe(ctx context.Context) (refused api, lasted time.Duration, err error) {
	a, err := s.engine.connect(ctx)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began, end, earlier := time.Now(), s.end, s.received > 0
	accepted := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		// Some engines answer with the first event only.
		messages, errs := a.Events(ctx, events.ListOptions{Since: timestamp(end.Add(-sinceMargin)), Filters: eventFilters()})
		close(accepted)
		err := s.read(began, messages, errs)
		cancel()
		for range errs { // closed when the client's goroutine has ended
		}
		failed <- err
	}()
	select {
	case <-accepted:
		clock.Sleep(ctx, refusalTime)
	case <-time.After(readyTimeout):
	case <-ctx.Done():
	}
	refused = a
	if ctx.Err() == nil {
		select {
		case s.links <- link{api: a}:
			refused = nil
		case <-ctx.Done():
		}
	}
	if forgotten(ctx, a, end, earlier) && (ctx.Err() == nil || time.Since(began) >= steadyTime) {
		signal(s.missed)
	}
	err = <-failed
	if lasted = time.Since(began); lasted >= steadyTime {
		s.end = time.Now()
	}
	return refused, lasted, err
}

// read moves events to the queue until their source fails, and returns the error. It
// never waits for the queue. It leaves out what the engine repeats from before the
// subscription.
func (s *stream) read(subscribed time.Time, messages <-chan events.Message, errs <-chan error) error {
	for {
		select {
		case message := <-messages:
			id := idOf(message)
			if eventTime(message).Before(subscribed) && slices.Contains(s.recent[:], id) {
				continue
			}
			s.recent[s.received%engineMemory] = id
			s.received++
			select {
			case s.events <- message:
				continue
			default:
			}
			signal(s.overflow)
		case err, open := <-errs:
			if !open || err == nil {
				err = errors.New("the stream ended")
			}
			return fmt.Errorf("events: %w", err)
		}
	}
}

// forgotten reports whether the engine may have forgotten events of after end: it keeps
// the last ones, and none when it restarts. It has not if it knows an event from before.
// Where there was never one, few events show the same.
func forgotten(ctx context.Context, a api, end time.Time, earlier bool) bool {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	messages, errs := a.Events(ctx, events.ListOptions{Since: timestamp(time.Unix(0, 0)), Until: timestamp(time.Now())})
	for count := 0; ; {
		select {
		case message := <-messages:
			count++
			if !eventTime(message).After(end) {
				cancel()
				for range errs {
				}
				return false
			}
		case err := <-errs:
			return !errors.Is(err, io.EOF) || earlier || count >= engineMemory
		}
	}
}

// signal sends to a channel with room for one, unless one waits there.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func timestamp(t time.Time) string {
	return strconv.FormatInt(t.Unix(), 10) + fmt.Sprintf(".%09d", t.Nanosecond())
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

func idOf(message events.Message) eventID {
	return eventID{message.TimeNano, message.Type, message.Action, message.Actor.ID, message.Actor.Attributes["container"]}
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

func isDeath(message events.Message) bool {
	return message.Type == events.ContainerEventType &&
		(message.Action == events.ActionDie || message.Action == events.ActionDestroy)
}

func isStart(message events.Message) bool {
	return message.Type == events.ContainerEventType && message.Action == events.ActionStart
}
