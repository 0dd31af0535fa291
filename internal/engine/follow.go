package engine

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

const (
	// listInterval is the time between two complete lists, which find what
	// lost events hid.
	listInterval = time.Minute
	// reminderInterval is the time between two log lines about one trouble
	// that lasts.
	reminderInterval = time.Minute
	// A failed attempt is followed by the next after a pause that doubles
	// from minPause to maxPause.
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
)

// Kind says what a [Change] is.
type Kind uint8

const (
	// Started: the container runs. A container that a list finds running is
	// reported so too. There is no second one for a container of the same id
	// and pid unless a Stopped came between.
	Started Kind = iota + 1
	// Stopped: the container runs no more; Container is as last known.
	Stopped
	// Updated: name, labels, networks, ports or pause changed.
	Updated
	// Synced: a complete list has been reconciled; all that runs is known.
	Synced
	// Lost: the connection to the engine ended; Err says why. The containers
	// are as they were until the next Synced.
	Lost
	// Passed: the container started and ended before it could be inspected.
	// Container has id, name, image and labels; there is no Started and no
	// Stopped for it.
	Passed
)

// String returns the name in lower case, for logs.
func (k Kind) String() string {
	switch k {
	case Started:
		return "started"
	case Stopped:
		return "stopped"
	case Updated:
		return "updated"
	case Synced:
		return "synced"
	case Lost:
		return "lost"
	case Passed:
		return "passed"
	}
	return "kind-" + strconv.Itoa(int(k))
}

// Change is one change to the running containers, or to the knowledge of them.
type Change struct {
	Kind Kind
	// Container is nil for Synced and Lost.
	Container *model.Container
	// Time is that of the engine's event, or of the list where only that tells.
	Time time.Time
	// Err belongs to Lost.
	Err error
}

// Follow sends what changes, beginning with a Started for each running
// container and a Synced. It returns only when ctx ends, with its error: an
// engine that is absent or goes away is waited for, and the log says so.
//
// The caller owns changes, and may close it once Follow has returned. A slow
// receiver makes changes late, never wrong: events that cannot be kept
// meanwhile are made up for by a list.
func (e *Engine) Follow(ctx context.Context, changes chan<- Change) error {
	f := &follower{
		engine:  e,
		changes: changes,
		known:   make(map[string]inspected),
	}
	pause := backoff{}
	for {
		began := time.Now()
		err := f.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.sessionEnded(ctx, err)
		// Only a session that lasted proves that all is well: one that ends
		// at once time and again must not be repeated at full speed.
		if time.Since(began) >= maxPause {
			pause.reset()
		}
		if !clock.Sleep(ctx, pause.next()) {
			return ctx.Err()
		}
	}
}

// follower is the state of one Follow. It belongs to its goroutine.
type follower struct {
	engine  *Engine
	changes chan<- Change
	known   map[string]inspected // running containers by id

	connected bool     // a list has been taken over since the connection was made
	absent    bool     // logged as absent or lost, and not yet as back
	down      reminder // of the engine that does not answer
	trouble   reminder // with single containers or with events
}

// send delivers a change, or gives up when ctx ends.
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
		f.engine.log.Warnf("Connection to the Docker Engine lost: %v; its containers are taken to live on, and it is tried again", err)
		f.connected, f.absent = false, true
		f.down.restart()
		f.send(ctx, Change{Kind: Lost, Time: time.Now(), Err: err})
	case f.down.due():
		f.engine.log.Warnf("Waiting for the Docker Engine: %v", err)
		f.absent = true
	}
}

// connectionWorks notes that the engine answers.
func (f *follower) connectionWorks() {
	f.connected = true
	if f.absent {
		f.absent = false
		f.down = reminder{}
		f.engine.log.Infof("Connected to the Docker Engine at %s, which runs %d containers", f.engine.host, len(f.known))
	}
}

// backoff gives growing pauses; its zero value starts with the shortest.
type backoff struct{ pause time.Duration }

// next returns the next pause: doubled up to the bound, and shortened at
// random by up to a half, so that several watchers don't ask in step.
func (b *backoff) next() time.Duration {
	b.pause = min(max(2*b.pause, minPause), maxPause)
	return b.pause - rand.N(b.pause/2)
}

func (b *backoff) reset() { b.pause = 0 }

// reminder limits the log lines about one trouble; its zero value is due.
type reminder struct{ last time.Time }

// due tells whether to log now, and if so, counts from now.
func (r *reminder) due() bool {
	if !r.last.IsZero() && time.Since(r.last) < reminderInterval {
		return false
	}
	r.restart()
	return true
}

func (r *reminder) restart() { r.last = time.Now() }
