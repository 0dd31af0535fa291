package engine

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

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
)

// Kind is the kind of a [Change].
type Kind uint8

const (
	// Started: an event or a list shows that the container runs. Between two of the
	// same id and pid there is a Stopped.
	Started Kind = iota + 1
	// Stopped: the container does not run any more; Container is as last known.
	Stopped
	// Updated: name, labels, networks, ports or pause changed.
	Updated
	// Synced: a complete list has been reconciled; every running container is known.
	Synced
	// Lost: the connection to the engine ended; Err is the reason. The containers
	// are as they were until the next Synced.
	Lost
	// Passed: the container started and ended before it could be inspected.
	// Container has id, name, image and labels. There is neither a Started nor a
	// Stopped for it.
	Passed
)

// Change is one change to the running containers, or to the connection.
type Change struct {
	Kind Kind
	// Container is nil for Synced and Lost.
	Container *model.Container
	// Time is that of the engine's event, or of the list where there was no event.
	Time time.Time
	// Err is set for Lost only.
	Err error
}

// Follow sends changes, beginning with a Started for each running container and a
// Synced. It returns only when ctx ends, with its error: it waits for an engine that
// is absent or ends, and the log reports that.
//
// The caller owns changes, and may close it after Follow has returned. A slow
// receiver makes changes late, never wrong: where events had to be dropped, Follow
// lists again.
func (e *Engine) Follow(ctx context.Context, changes chan<- Change) error {
	f := &follower{
		engine:  e,
		changes: changes,
		known:   make(map[string]inspected),
	}
	pause := newBackOff()
	for {
		began := time.Now()
		err := f.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.sessionEnded(ctx, err)
		// Sessions that end at once again and again must not be repeated at full speed.
		if time.Since(began) >= maxPause {
			pause.Reset()
		}
		if !clock.Sleep(ctx, pause.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// follower is the state of one Follow. It belongs to its goroutine.
type follower struct {
	engine  *Engine
	changes chan<- Change
	known   map[string]inspected // running containers by id

	connected bool     // a list was reconciled since the connection was made
	absent    bool     // the last log line reports the engine as absent or lost
	down      reminder // about an engine that does not answer
	trouble   reminder // about single containers or events
}

// send sends a change, or returns when ctx ends.
func (f *follower) send(ctx context.Context, change Change) {
	select {
	case f.changes <- change:
	case <-ctx.Done():
	}
}

// sessionEnded reports a lost connection, or one that could not be made.
func (f *follower) sessionEnded(ctx context.Context, err error) {
	switch {
	case f.connected:
		f.engine.log.Warnf("Connection to the Docker Engine lost: %v. Its containers are assumed to run on; portwatcher connects again.", err)
		f.connected, f.absent = false, true
		f.down.restart()
		f.send(ctx, Change{Kind: Lost, Time: time.Now(), Err: err})
	case f.down.due():
		f.engine.log.Warnf("Waiting for the Docker Engine: %v", err)
		f.absent = true
	}
}

// connectionWorks reports an engine that answers again.
func (f *follower) connectionWorks() {
	f.connected = true
	if f.absent {
		f.absent = false
		f.down = reminder{}
		f.engine.log.Infof("Connected to the Docker Engine at %s, which runs %d containers", f.engine.host, len(f.known))
	}
}

// newBackOff returns the pauses after failed attempts. The library adds or subtracts up
// to a half of an interval.
func newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = minPause*2/3, maxPause*2/3, 2
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
