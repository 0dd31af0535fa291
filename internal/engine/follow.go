package engine

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/docker/docker/api/types/events"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

const (
	// listInterval is the time between two complete lists, which find changes whose
	// events were lost.
	listInterval = time.Minute
	// reminderInterval is the time between two log lines about a lasting trouble.
	reminderInterval = time.Minute
	// The pause after a failed attempt doubles from minPause to maxPause. Up to two
	// thirds of it are subtracted at random, so that several watchers do not connect at
	// the same moment.
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
	// maxRetryPause is maxPause for a container that cannot be inspected.
	maxRetryPause = time.Minute
)

// Kind is the kind of a [Change].
type Kind uint8

const (
	// Started: an event or a list shows that the container runs. Between two of the
	// same id and pid there is a Stopped.
	Started Kind = iota + 1
	// Stopped: the container does not run any more; Container is as last known. Before it
	// there is a Started or a Failed.
	Stopped
	// Updated: name, labels, networks, ports or pause changed.
	Updated
	// Synced: a complete list has been reconciled; every running container has a Started
	// or a Failed.
	Synced
	// Lost: the connection to the engine ended; Err is the reason. The containers
	// are as they were until the next Synced.
	Lost
	// Passed: the container started and ended before it could be inspected.
	// Container has id, name, image and labels. There is neither a Started nor a
	// Stopped for it.
	Passed
	// Failed: the container runs, and the engine does not describe it; Err is the reason.
	// Container has id, name, image and labels. It comes at most once before a Started,
	// when the inspection succeeds, or a Stopped.
	Failed
	// Missed: the engine may have reported the start and the end of containers that
	// neither an event nor a list showed.
	Missed
)

// Change is one change to the running containers, or to the connection.
type Change struct {
	Kind Kind
	// Container is nil for Synced, Lost and Missed.
	Container *model.Container
	// Time is that of the engine's event, or of the list where there was no event.
	Time time.Time
	// Err is set for Lost and Failed only.
	Err error
}

// Follow sends changes, beginning with a Started or a Failed for each running container
// and a Synced. It waits for an engine that is absent or ends, and the log reports that.
// It returns when ctx ends, with its error, or when the engine can never be reached again,
// because the mounted file of its socket was replaced.
//
// The caller owns changes, and may close it after Follow has returned. A slow
// receiver makes changes late, never wrong: where events had to be dropped, Follow
// lists again.
func (e *Engine) Follow(ctx context.Context, changes chan<- Change) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{
		engine: e, changes: changes, stream: newStream(e),
		containers: map[string]*tracked{}, results: make(chan inspected), lists: make(chan listing),
		listDue: clock.StoppedTimer(), listPause: newBackOff(maxPause), retryDue: clock.StoppedTimer(),
		cancelList: func() {},
	}
	defer f.requests.Wait()
	defer cancel()
	ended := make(chan error, 1)
	f.requests.Go(func() { ended <- f.stream.run(ctx) })
	for {
		var queue <-chan events.Message
		if f.api != nil {
			queue = f.stream.events
		}
		select {
		case err := <-ended:
			return err
		case l := <-f.stream.links:
			f.linked(ctx, l)
		case message := <-queue:
			f.handle(ctx, message)
		case <-f.stream.overflow:
			f.overflowed(ctx)
		case <-f.stream.missed:
			f.send(ctx, Change{Kind: Missed, Time: time.Now()})
		case result := <-f.results:
			f.finished(ctx, result)
		case l := <-f.lists:
			f.listed(ctx, l)
		case <-f.listDue.C:
			f.list(ctx)
		case <-f.retryDue.C:
			f.retry(ctx)
		}
	}
}

// follower is the state of one Follow. It belongs to its goroutine, which waits for
// nothing but the receiver of changes: lists and inspections have their own goroutines.
type follower struct {
	engine   *Engine
	changes  chan<- Change
	stream   *stream
	api      api // of the latest connection; nil before the first
	requests sync.WaitGroup

	containers map[string]*tracked // by id
	results    chan inspected
	waiting    []*tracked // for their first inspection
	active     int        // first inspections under way
	retrying   bool       // one more is, of a container that failed before
	retryDue   *time.Timer

	lists      chan listing
	cancelList context.CancelFunc // of the list under way
	listDue    *time.Timer
	listPause  *backoff.ExponentialBackOff
	// listNumber is that of the latest list, and listTime is when it was requested.
	listNumber   int
	listTime     time.Time
	listFailures int // since one succeeded
	// unsettled are the containers of the latest list whose inspections are not over, nil
	// where the list was not received or is reported.
	unsettled map[string]struct{}

	subscribed bool     // the stream has a subscription
	connected  bool     // a list was reconciled since the connection was made
	absent     bool     // the last log line reports the engine as absent or lost
	down       reminder // about an engine that does not answer
	dropping   reminder // about dropped events
}

// send sends a change, or returns when ctx ends.
func (f *follower) send(ctx context.Context, change Change) {
	select {
	case f.changes <- change:
	case <-ctx.Done():
	}
}

// linked applies a change of the connection. Even where the engine refuses its events it
// can be listed.
func (f *follower) linked(ctx context.Context, l link) {
	f.subscribed = l.err == nil
	if l.api != nil {
		f.api = l.api
		f.list(ctx)
	}
	if l.err != nil {
		f.drain(ctx) // what came before the end
		f.lost(ctx, l.err)
		return
	}
	f.scheduleRetry()
}

// drain applies the events that are queued now.
func (f *follower) drain(ctx context.Context) {
	for range len(f.stream.events) {
		f.handle(ctx, <-f.stream.events)
	}
}

// overflowed lists after events were dropped.
func (f *follower) overflowed(ctx context.Context) {
	if f.dropping.due() {
		f.engine.log.Warn("Events of the Docker Engine came faster than they could be handled. The containers are listed again.")
	}
	f.send(ctx, Change{Kind: Missed, Time: time.Now()})
	f.list(ctx)
}

// lost reports a lost connection, or one that could not be made.
func (f *follower) lost(ctx context.Context, err error) {
	switch {
	case f.connected:
		f.engine.log.Warnf("Connection to the Docker Engine lost: %v. Its containers are assumed to run on; portwatcher connects again.", err)
		f.connected, f.absent = false, true
		f.down.restart()
		f.send(ctx, Change{Kind: Lost, Time: time.Now(), Err: err})
	case f.down.due():
		f.engine.log.Warnf("Waiting for the Docker Engine: %v", err)
		f.absent = true
		f.send(ctx, Change{Kind: Lost, Time: time.Now(), Err: err})
	}
}

// newBackOff returns the pauses after failed attempts. The library adds or subtracts up
// to a half of an interval.
func newBackOff(longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = minPause*2/3, longest*2/3, 2
	return b
}

// reminder limits the log lines about one trouble; its zero value is due.
type reminder struct{ last time.Time }

// due reports whether to log now, and if so, restarts.
func (r *reminder) due() bool {
	if !r.last.IsZero() && time.Since(r.last) < reminderInterval {
		return false
	}
	r.restart()
	return true
}

func (r *reminder) restart() { r.last = time.Now() }
