package source

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
)

const (
	// secondLookup is how long after an opening its processes are looked up a second time:
	// servers fork their workers after they listen.
	secondLookup = time.Second
	// connectTime is how long after a UDP connect a scan shows whether it succeeded: one
	// scan serves many.
	connectTime = 50 * time.Millisecond
	// procRetry is how long /proc replaces sock_diag before that is tried again.
	procRetry = 30 * time.Second
)

// Bounds on the wait before a failed watcher is started again.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// errRetune ends a session so that another with other settings or sources begins.
var errRetune = errors.New("the sources have changed")

// Watcher watches one network namespace, in one goroutine that does all its I/O. The
// hot loop to keep efficient is Watcher.scan: where nothing opened or closed it
// allocates nothing.
//
// Its exported methods are safe for concurrent use. Only Drain blocks.
type Watcher struct {
	env    *Env
	id     model.Namespace
	cancel context.CancelFunc
	runs   bool // it was started

	poke       chan struct{} // scan now
	soon       chan struct{} // scan in connectTime
	retune     chan struct{} // the settings have changed
	openings   chan struct{} // a socket has opened: look up its processes later
	departures chan struct{} // a container of the namespace has ended: read the interfaces later
	drains     chan chan struct{}
	ended      chan struct{} // closed at the end

	lastScan  atomic.Int64  // clock.Instant of the end of the last one; 0 before the first
	started   clock.Instant // when it was made
	busySince atomic.Int64  // clock.Instant since when it waits for the kernel, or 0
	facts     atomic.Uint64 // changes here that were reported since the start

	// The rest belongs to the goroutine.
	session  *session
	receiver *receiver // outlives a session
	busyness busy
	sockets  []model.Socket // reused, as question, closes and fresh
	question Scan
	closes   Closes
	fresh    Fresh

	second, connect, interfacesTimer, departure *time.Timer
	secondSet, connectSet, interfacesPaused     bool

	interfaces []model.Interface // as they were sent
	gained     clock.Instant     // when a new address came that was not sent; else zero

	scanned   bool      // since the session began
	quietly   bool      // the last scan found nothing to do
	postponed int       // scans in a row that came too early
	procUntil time.Time // /proc replaces sock_diag until then
}

// NewWatcher returns a watcher of a namespace; it does not start it.
func NewWatcher(env *Env, id model.Namespace) *Watcher {
	return &Watcher{
		env: env, id: id, started: clock.Now(), cancel: func() {},
		poke: make(chan struct{}, 1), soon: make(chan struct{}, 1), retune: make(chan struct{}, 1), openings: make(chan struct{}, 1),
		drains: make(chan chan struct{}), ended: make(chan struct{}),
		second: clock.StoppedTimer(), connect: clock.StoppedTimer(), interfacesTimer: clock.StoppedTimer(),
		departures: make(chan struct{}, 1), departure: clock.StoppedTimer(),
	}
}

// Start starts a watcher of a namespace. It ends, with a [WatcherEnded], after Stop.
func Start(env *Env, id model.Namespace) *Watcher {
	w := NewWatcher(env, id)
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.runs = cancel, true
	go func() {
		defer close(w.ended)
		w.supervise(ctx)
		env.send(WatcherEnded{w})
	}()
	return w
}

// Stop makes the watcher send what it has received, and end.
func (w *Watcher) Stop() { w.cancel() }

// Namespace returns the identity of the namespace.
func (w *Watcher) Namespace() model.Namespace { return w.id }

// Poke requests a scan now.
func (w *Watcher) Poke() { signal(w.poke) }

// PokeSoon requests a scan in connectTime.
func (w *Watcher) PokeSoon() { signal(w.soon) }

// Retune makes the watcher apply new settings.
func (w *Watcher) Retune() { signal(w.retune) }

// Opened requests the second lookup of what has opened.
func (w *Watcher) Opened() { signal(w.openings) }

// CountFact records that eBPF reported a change of the namespace since the last scan.
func (w *Watcher) CountFact() { w.facts.Add(1) }

// LastScan returns when the namespace was last read with success; zero before the
// first time.
func (w *Watcher) LastScan() clock.Instant { return clock.Instant(w.lastScan.Load()) }

// Age returns how long ago the namespace was last read with success; before the
// first time, how long ago the watcher was made.
func (w *Watcher) Age(now clock.Instant) time.Duration {
	if last := w.LastScan(); last != 0 {
		return now.Sub(last)
	}
	return now.Sub(w.started)
}

// StuckFor returns how long the watcher has waited for the kernel, 0 if it does not wait.
func (w *Watcher) StuckFor(now clock.Instant) time.Duration {
	since := clock.Instant(w.busySince.Load())
	if since == 0 {
		return 0
	}
	return now.Sub(since)
}

// Drain waits until the watcher has sent all notifications of earlier closes, until it
// ends, or until ctx does.
func (w *Watcher) Drain(ctx context.Context) {
	done := make(chan struct{})
	select {
	case w.drains <- done:
	case <-w.ended:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-w.ended:
	case <-ctx.Done():
	}
}

// busy records that the watcher begins to wait for the kernel, idle that it has ended.
func (w *Watcher) busy() { w.busySince.Store(int64(clock.Now())) }
func (w *Watcher) idle() { w.busySince.Store(0) }

// supervise runs the watcher until ctx ends. An error or a panic is logged and ends in a
// restart with back-off; the state stays, marked as stale.
func (w *Watcher) supervise(ctx context.Context) {
	pauses := backoff.ExponentialBackOff{InitialInterval: minBackoff, Multiplier: 2, MaxInterval: maxBackoff, RandomizationFactor: 0.2}
	pauses.Reset()
	defer w.endReceiver()
	for ctx.Err() == nil {
		began := time.Now()
		err := w.run(ctx)
		if ctx.Err() != nil {
			return
		}
		if w.receiver != nil && (w.receiver.broken || !errors.Is(err, errRetune)) {
			w.endReceiver()
		}
		if errors.Is(err, errRetune) || w.fallBack(err) {
			continue
		}
		w.env.send(Failed{w, err})
		if time.Since(began) > maxBackoff {
			pauses.Reset()
		}
		w.pause(ctx, pauses.NextBackOff())
	}
}

// pause waits before another session. Meanwhile it ends each Drain at once: without a
// session nothing is received.
func (w *Watcher) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case done := <-w.drains:
			close(done)
		}
	}
}

// fallBack switches to /proc, if the mode allows it, where sock_diag failed before the
// first scan of a session. It reports whether it did.
func (w *Watcher) fallBack(err error) bool {
	if w.env.Mode == Netlink || w.scanned || w.usesProc() || errors.Is(err, netns.ErrProcessGone) {
		return false
	}
	w.procUntil = time.Now().Add(procRetry)
	if w.env.Notices.First("proc " + w.id.String()) {
		w.env.Logger.WithError(err).WithField("containers", w.env.members(w.id).Names).
			Warn("sock_diag cannot be used in this network namespace; portwatcher reads /proc instead, and tries sock_diag again from time to time.")
	}
	return true
}

func (w *Watcher) usesProc() bool {
	return w.env.Mode == Proc || time.Now().Before(w.procUntil)
}

func (w *Watcher) run(ctx context.Context) error {
	defer w.idle()
	return protect(func() error { return w.watch(ctx) })
}

func (w *Watcher) watch(ctx context.Context) error {
	settings := w.env.Settings.Load()
	w.scanned = false
	s, err := w.open(settings)
	if err != nil {
		return err
	}
	w.session = s
	// Closing ends a dump that waits.
	stopClosing := context.AfterFunc(ctx, s.close)
	w.env.send(SessionOpened{w, s.source, s.netnsCookie, s.notified, w.busyness.reason()})
	defer func() {
		w.env.send(SessionClosed{w})
		stopClosing()
		s.close()
	}()
	w.sendInterfaces(w.readInterfaces(clock.Now()))
	return w.loop(ctx)
}

// loop scans now, and then whenever a scan is due or requested.
func (w *Watcher) loop(ctx context.Context) error {
	interval, bursts := w.session.settings.Interval(), w.session.settings.BurstScans
	if w.session.exact {
		bursts = 1
	}
	measures := w.session.source == model.SourceSockDiag && !w.session.exact
	if measures && w.busyness.without {
		interval = min(interval, busyScan)
	}
	scan := time.NewTimer(w.untilTick(interval))
	defer scan.Stop()
	retry := clock.StoppedTimer()
	defer retry.Stop()
	if w.session.source == model.SourceProc && w.env.Mode != Proc {
		retry.Reset(procRetry)
	}
	err := w.scan(ctx)
	for err == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.retune:
			return errRetune
		case <-retry.C:
			return errRetune
		case <-scan.C:
			// Where nothing happens the rate of connections is not read either.
			if err = w.scans(ctx, bursts); err == nil && measures && !w.quietly {
				err = w.measureConnections()
			}
			scan.Reset(w.untilTick(interval))
		case <-w.poke:
			err = w.scan(ctx)
		case <-w.soon:
			if !w.connectSet {
				w.connectSet = true
				w.connect.Reset(connectTime)
			}
		case <-w.connect.C:
			w.connectSet = false
			err = w.scan(ctx)
		case <-w.readable():
			err = w.receive()
		case done := <-w.drains:
			limited, cancel := context.WithTimeout(ctx, maxEnding)
			w.drain(limited)
			cancel()
			close(done)
		case at := <-w.interfacesChanged():
			err = w.takeInterfacesChanged(at)
		case <-w.departures:
			w.departure.Reset(departureTime)
		case <-w.departure.C:
			w.sendInterfaces(w.readInterfaces(0))
		case <-w.interfacesTimer.C:
			w.endInterfacesPause()
		case <-w.openings:
			w.setSecond()
		case <-w.second.C:
			w.secondSet = false
			w.lookUpFresh()
		}
	}
	return err
}

func (w *Watcher) setSecond() {
	if !w.secondSet {
		w.secondSet = true
		w.second.Reset(secondLookup + secondLookup/10)
	}
}

// phases is the number of groups of namespaces: those of one group are dumped at the same
// moment, so that one wake-up of the process serves many, but not all.
const phases = 8

// shift is by how much the namespace's phase moves multiples of an interval.
func (w *Watcher) shift(interval time.Duration) time.Duration {
	return interval * time.Duration(w.id.Inode%phases) / phases
}

// untilTick returns the time until the next scan: until the next multiple of an interval,
// shifted by the phase of the namespace. Namespaces in which nothing happens are not
// shifted: their sockets are only counted, and one wake-up serves them all.
func (w *Watcher) untilTick(interval time.Duration) time.Duration {
	shift := w.shift(interval)
	if w.quietly {
		shift = 0
	}
	return interval - (time.Duration(clock.Now())-shift)%interval
}
