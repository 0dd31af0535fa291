package controller

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/tracker"
)

const (
	// secondLook is how long after an opening its processes are looked up once
	// more: servers fork their workers after they listen.
	secondLook = time.Second
	// reconcileInterval is the least time between scans while eBPF tells of
	// every change.
	reconcileInterval = 30 * time.Second
	// procRetry is how long /proc stands in before sock_diag is tried again.
	procRetry = 30 * time.Second
)

// Bounds on the wait before a failed watcher is started again.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// errRetune ends a session because another way of watching is to be used.
var errRetune = errors.New("the sources have changed")

// watcher watches one namespace in one goroutine. The hot loop to keep
// efficient is watcher.scan: where nothing opened or closed it allocates
// nothing.
type watcher struct {
	c         *Controller
	group     *group
	cancel    context.CancelFunc
	first     chan struct{} // closed after the first scan
	once      sync.Once     // closes it
	last      atomic.Int64  // when the last scan ended, Unix nanoseconds
	busySince atomic.Int64  // when it began to wait for the kernel, Unix nanoseconds, or 0
	abandoned bool          // another has taken its place; under the controller's lock
	poke      chan struct{} // scan now
	retune    chan struct{} // the controller's sources have changed
	second    *time.Timer   // when to take a second look
	armed     bool          // second is running; under the controller's lock

	source  port.Source // of the session; under the controller's lock, as closing
	closing *receiver   // tells of closes; nil where nothing does
	session *session
	// receiver is the watcher's goroutine's; it outlives a session.
	receiver *receiver
	sockets  []port.Socket // reused
	unknown  []int         // reused

	hot   hotPorts // under the controller's lock, as rate
	rate  rate     // of destroy notifications; under the controller's lock
	facts uint64   // destroy notifications, eBPF's events, and overruns; under the controller's lock
	// inFlight is the dump that is being attributed; deferred are closes of its
	// new sockets meanwhile. Under the controller's lock.
	inFlight []port.Socket
	deferred []deferredClose
	// Ports of which a part is not known. Under the controller's lock.
	ownerless, hidden doubt
	connecting        connecting

	scanned   bool      // since the session began
	postponed int       // scans in a row that came too early
	procUntil time.Time // /proc stands in for sock_diag until then
}

// startWatcher starts a watcher for a group. The caller holds the lock.
func (c *Controller) startWatcher(ctx context.Context, g *group) *watcher {
	w := c.newWatcher(g)
	ctx, w.cancel = context.WithCancel(ctx)
	w.last.Store(time.Now().UnixNano())
	if !c.still {
		c.watchers.Go(func() {
			w.supervise(ctx)
			c.ended(w)
		})
	}
	return w
}

// newWatcher returns a watcher that does not run.
func (c *Controller) newWatcher(g *group) *watcher {
	return &watcher{
		c: c, group: g, first: make(chan struct{}), second: stoppedTimer(),
		poke: make(chan struct{}, 1), retune: make(chan struct{}, 1),
	}
}

func (w *watcher) stop() { w.cancel() }

func (w *watcher) freshAt() time.Time { return time.Unix(0, w.last.Load()) }

// signal puts a token into a channel of capacity 1, if there is none.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// eachWatcher calls f for each watcher. The caller holds the lock.
func (c *Controller) eachWatcher(f func(*watcher)) {
	for _, g := range c.groups {
		if g.watcher != nil {
			f(g.watcher)
		}
	}
}

func (c *Controller) stopWatchers() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.eachWatcher((*watcher).stop)
}

// supervise runs the watcher until ctx ends. An error or a panic is logged and
// ends in a restart with back-off; the state stays, marked as stale.
func (w *watcher) supervise(ctx context.Context) {
	backoff := minBackoff
	defer w.endReceiver(ctx)
	for ctx.Err() == nil {
		started := time.Now()
		err := w.run(ctx)
		if w.receiver != nil && (w.receiver.broken.Load() || !errors.Is(err, errRetune)) {
			w.endReceiver(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errRetune) || w.fallBack(err) {
			continue
		}
		w.failed(err)
		if time.Since(started) > maxBackoff {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// fallBack decides whether /proc takes over: where sock_diag fails from the
// start of a session on, and nothing else is asked for.
func (w *watcher) fallBack(err error) bool {
	if w.c.Source != Auto || w.scanned || w.usesProc() || errors.Is(err, netns.ErrProcessGone) {
		return false
	}
	w.procUntil = time.Now().Add(procRetry)
	w.c.mutex.Lock()
	defer w.c.mutex.Unlock()
	w.c.once("proc "+w.group.id.String(), func() {
		w.c.log.WithError(err).WithField("containers", w.group.names()).
			Warn("sock_diag cannot be used in this network namespace; reading /proc instead, and trying again from time to time.")
	})
	return true
}

func (w *watcher) usesProc() bool {
	return w.c.Source == Proc || time.Now().Before(w.procUntil)
}

func (w *watcher) failed(err error) {
	w.c.mutex.Lock()
	fresh := w.c.tracker.Failed(w.group.id)
	names := w.group.names()
	w.c.mutex.Unlock()
	log := w.c.log.WithError(err).WithField("containers", names)
	switch {
	case errors.Is(err, netns.ErrProcessGone): // its containers are about to be reported stopped
		log.Debug("The namespace cannot be opened; trying again.")
	case fresh:
		log.Warn("Ports cannot be read; keeping what is known and trying again.")
	default:
		log.Debug("Ports still cannot be read.")
	}
}

// run watches through one session.
func (w *watcher) run(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(err, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	exact, tuning := w.c.now()
	w.scanned = false
	s, err := w.open(ctx, exact, tuning)
	if err != nil {
		return err
	}
	w.session = s
	// Closing ends a dump that waits, and must not wait for the next tick.
	stopClosing := context.AfterFunc(ctx, s.close)
	w.c.register(w, s)
	defer func() {
		w.c.unregister(w, s)
		stopClosing()
		s.close()
	}()
	return w.loop(ctx, exact && s.netnsCookie != 0)
}

// scanInterval is the time between scans: while eBPF tells of every change they
// are a reconciliation.
func (t *Tuning) scanInterval(exact bool) time.Duration {
	if exact {
		return max(t.ScanInterval, reconcileInterval)
	}
	return t.ScanInterval
}

// loop scans at once, and then whenever it is time to.
func (w *watcher) loop(ctx context.Context, exact bool) error {
	tuning := &w.session.tuning
	interval, bursts := tuning.scanInterval(exact), tuning.BurstScans
	if exact {
		bursts = 1
	}
	scan := time.NewTimer(untilTick(interval))
	defer scan.Stop()
	retry := stoppedTimer()
	defer retry.Stop()
	if w.session.source == port.SourceProc && w.c.Source == Auto {
		retry.Reset(procRetry)
	}
	if err := w.scan(); err != nil {
		return err
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.retune:
			return errRetune
		case <-retry.C:
			return errRetune
		case <-scan.C:
			err = w.burst(ctx, bursts)
			scan.Reset(untilTick(interval))
		case <-w.poke:
			err = w.scan()
		case <-w.second.C:
			w.lookAgain()
		}
		if err != nil {
			return err
		}
	}
}

// untilTick is how long it is until the next multiple of an interval. All
// watchers tick in phase: one wake-up of the process serves them all.
func untilTick(interval time.Duration) time.Duration {
	return interval - time.Duration(time.Now().UnixNano()%int64(interval))
}

// burst scans several times in a row, each time only if there may be something
// new.
func (w *watcher) burst(ctx context.Context, count int) error {
	for i := range max(count, 1) {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-w.retune:
				return errRetune
			case <-w.poke:
				if err := w.scan(); err != nil {
					return err
				}
				continue
			case <-time.After(w.session.tuning.BurstDelay):
			}
		}
		if w.unchanged() {
			w.last.Store(time.Now().UnixNano())
			continue
		}
		if err := w.scan(); err != nil {
			return err
		}
	}
	return nil
}

// scan takes one snapshot and publishes what changed.
func (w *watcher) scan() error {
	defer w.busySince.Store(0)
	began := time.Now()
	w.busySince.Store(began.UnixNano())
	c, id := w.c, w.group.id
	c.mutex.Lock()
	seen := w.facts
	c.mutex.Unlock()
	sockets, err := w.session.dump(w.sockets[:0])
	w.sockets = sockets
	if err != nil {
		return err
	}
	snapshot := tracker.Snapshot{Began: began, Time: time.Now(), Source: w.session.source, Sockets: sockets}
	if c.Observer != nil {
		c.Observer.ObserveScan(snapshot.Source, snapshot.Time.Sub(began))
	}

	c.mutex.Lock()
	facts := c.facts
	c.mutex.Unlock()
	if !w.inOrder(facts) {
		w.last.Store(snapshot.Time.UnixNano())
		return nil
	}
	c.mutex.Lock()
	w.nameUnbound(sockets)
	w.settleConnects(sockets, began)
	w.unknown = c.tracker.Unknown(w.unknown[:0], id, sockets)
	w.session.quiet.dumped(w, began, seen, sockets)
	if len(w.unknown) > 0 {
		w.inFlight = sockets
		w.catchUp()
		w.passOverHot(sockets)
		members, epoch := w.group.ownership(c), w.group.epoch
		c.mutex.Unlock()
		snapshot.New = w.attribute(sockets, members)
		c.mutex.Lock()
		w.settleOwners(snapshot.New, epoch)
		w.arm()
	}
	if w.group.watcher == w { // else it was stopped meanwhile
		snapshot.Resumed, w.group.resumed = w.group.resumed, false
		if snapshot.Resumed { // who holds the ports is as an earlier run knew it
			w.arm()
		}
		c.publish(c.tracker.Snapshot(c.changes[:0], id, snapshot))
		w.closeDeferred()
	}
	w.inFlight = nil
	c.mutex.Unlock()

	w.scanned = true
	w.last.Store(snapshot.Time.UnixNano())
	w.once.Do(func() { close(w.first) })
	return nil
}

// arm has a second look taken. The caller holds the lock.
func (w *watcher) arm() {
	if !w.armed {
		w.armed = true
		w.second.Reset(secondLook + secondLook/10)
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}
