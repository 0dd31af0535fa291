package source

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
	"portwatcher/internal/sockdiag"
)

const (
	// closesLength is how many notifications go to the capture at once.
	closesLength = 256
	// finalTime is how long a watcher that ends reads what is left.
	finalTime = 500 * time.Millisecond
	// The kernel sends notifications from a work queue. In a storm, stormRate of them
	// in stormWindow, it is behind: more are on their way when none waits.
	stormRate   = 200
	stormWindow = 100 * time.Millisecond
	caughtUp    = 30 * time.Millisecond // without a notification
	maxCatchUp  = 250 * time.Millisecond
	// lateTime is how long after a storm, or after notifications that came late,
	// those of every namespace are awaited: the storm of one delays all.
	lateTime = 2 * time.Second
	// drainTime is how long a scan waits for them at most.
	drainTime = 5 * time.Second
)

// receiver receives the destroy notifications of a namespace. It belongs to a
// watcher's goroutine, and outlives a session: while one ends and the next begins, no
// close is missed. What the watcher has not read stays in the kernel's buffer.
type receiver struct {
	listener  *sockdiag.Listener
	handle    *netns.Handle // for fences
	ephemeral procfs.Range
	ready     chan struct{} // something waits in the kernel, or the listener has failed
	resume    chan struct{} // wait again
	waiting   sync.WaitGroup
	broken    bool                // it has failed; the watcher begins a new one
	fences    map[uint64]struct{} // cookies of fences that have not come
	dropped   uint64              // by the kernel, as far as it was reported, or was fences
	overran   bool                // since the newest fences were made
	buffer    int

	// The rate of notifications: how many came in the window that began then, and when
	// the last one came.
	began, last clock.Instant
	count       int
	before      int // in the window before
}

// startReceiver subscribes to destroy notifications. Without them closes are found by
// scans.
func (w *Watcher) startReceiver(handle *netns.Handle, pid int, settings *Settings) {
	own, err := netns.Open(w.env.ProcRoot, pid)
	if err == nil && own.ID() != handle.ID() { // the pid is another's by now
		err = errors.Join(netns.ErrProcessGone, own.Close())
	}
	var l *sockdiag.Listener
	if err == nil {
		if l, err = sockdiag.Listen(own.FD(), settings.Buffer); err != nil {
			err = errors.Join(err, own.Close())
		}
	}
	if errors.Is(err, netns.ErrProcessGone) {
		return // the watcher ends, or tries again
	}
	if err != nil {
		if w.env.Notices.First("destroy") {
			w.env.Logger.WithError(err).Warn("Destroy notifications are not available: closes are found by scans, and ports that live shorter than the time between two scans are missed.")
		}
		return
	}
	w.reportHostTransients()
	r := &receiver{
		listener: l, handle: own, ephemeral: w.env.ephemeralPorts(pid), buffer: settings.Buffer, fences: map[uint64]struct{}{},
		ready: make(chan struct{}), resume: make(chan struct{}, 1),
	}
	r.waiting.Go(r.wait)
	w.receiver = r
	if w.batch == nil {
		w.batch = make([]sockdiag.Destroyed, closesLength)
	}
}

// wait announces that something can be read, each time that it is asked to.
func (r *receiver) wait() {
	defer close(r.ready)
	for r.listener.Wait() == nil {
		r.ready <- struct{}{}
		if _, open := <-r.resume; !open {
			return
		}
	}
}

// readable is ready when notifications wait; nil where none are received.
func (w *Watcher) readable() <-chan struct{} {
	if w.receiver == nil {
		return nil
	}
	return w.receiver.ready
}

// resize applies another size of the receive buffer.
func (r *receiver) resize(bytes int, log logrus.FieldLogger) {
	if bytes == r.buffer {
		return
	}
	r.buffer = bytes
	if err := r.listener.SetBuffer(bytes); err != nil {
		log.WithError(err).Warn("The receive buffer of a network namespace's notifications cannot be resized.")
	}
}

// reportHostTransients logs once what cannot be known in the host's namespace: whose a
// port was that lived shorter than the time between two scans.
func (w *Watcher) reportHostTransients() {
	if m := w.env.members(w.id); m.Host && w.env.Notices.First("host transients") {
		w.env.Logger.WithField("containers", m.Names).
			Warn("Without eBPF, ports on the host's network that open and close between two scans are not reported: whose they were is not known.")
	}
}

// receive sends the notifications that wait in the kernel, until none does or a batch
// of them took too long. The error ends the session.
func (w *Watcher) receive() error {
	r := w.receiver
	for began := clock.Now(); clock.Since(began) < maxCatchUp; {
		n, err := r.listener.ReceiveWaiting(w.batch)
		w.sendCloses(w.batch[:n], err)
		switch {
		case err != nil && isMalformed(err):
			w.env.Logger.WithError(err).Warn("A destroy notification is not understood; portwatcher scans the namespace instead.")
			w.Poke()
		case errors.Is(err, unix.ENOBUFS):
			w.Poke()
		case err != nil:
			w.env.Logger.WithError(err).Warn("Destroy notifications have ended; portwatcher subscribes to them again.")
			r.broken = true
			return errRetune
		case n == 0:
			signal(r.resume) // the other goroutine waits again
			return nil
		}
	}
	signal(r.resume) // more waits: the other goroutine announces it at once
	return nil
}

func isMalformed(err error) bool {
	_, is := errors.AsType[*sockdiag.MalformedError](err)
	return is
}

// sendCloses sends notifications, and the overrun that came after them.
func (w *Watcher) sendCloses(list []sockdiag.Destroyed, err error) {
	overrun := errors.Is(err, unix.ENOBUFS)
	if len(list) == 0 && !overrun {
		return
	}
	now := clock.Now()
	w.receiver.note(len(list), now)
	if w.receiver.storm(now) {
		w.env.lateUntil.Store(int64(now.Add(lateTime)))
	}
	w.facts.Add(uint64(len(list)) + 1)
	q := &w.closes
	q.Watcher, q.Time, q.List, q.Overrun, q.Lost = w, now, q.List[:0], overrun, 0
	for i := range list {
		if _, fence := w.receiver.fences[list[i].Socket.Cookie]; fence {
			delete(w.receiver.fences, list[i].Socket.Cookie)
			continue
		}
		q.List = append(q.List, Close{Socket: list[i].Socket, Server: w.listened(&list[i])})
	}
	if overrun {
		w.receiver.overran = true
		var known bool
		if q.Lost, known = w.receiver.lost(); known && q.Lost == 0 {
			q.Overrun = false // fences at most
		}
	}
	w.env.ask(q)
}

// lost returns how many notifications the kernel dropped since the last call, where that
// is known. Fences that have not come may be among them: as many are not counted before
// settle finds out.
func (r *receiver) lost() (lost uint64, known bool) {
	dropped, err := r.listener.Dropped()
	if err != nil || dropped < r.dropped {
		return 0, false
	}
	lost = dropped - r.dropped
	lost -= min(lost, uint64(len(r.fences)))
	r.dropped += lost
	return lost, true
}

// listened distinguishes a port from a client: a connect that failed, or a UDP socket
// whose port is one that the kernel gives to clients. Go programs find out at their
// start what the host can do by binding two IPv6 sockets to loopback, port 0, without
// listening (ipStackCapabilities.probe in package net): no message distinguishes those
// from listeners, so they are left out too.
func (w *Watcher) listened(d *sockdiag.Destroyed) bool {
	switch s := &d.Socket; {
	case d.Client, s.Address == attribute.EngineResolver:
		return false
	case !w.receiver.ephemeral.Holds(s.Port):
		return true
	case s.Protocol == model.UDP:
		return w.env.Settings.Load().UDPClients
	default:
		return !d.IPv6 || !s.Address.IsLoopback()
	}
}

// note counts notifications.
func (r *receiver) note(n int, now clock.Instant) {
	if age := now.Sub(r.began); age >= stormWindow {
		r.before = r.count
		if age >= 2*stormWindow {
			r.before = 0
		}
		r.began, r.count = now, 0
	}
	r.count += n
	if n > 0 {
		r.last = now
	}
}

// storm reports whether notifications come in such a number that more are on their way.
func (r *receiver) storm(now clock.Instant) bool {
	return now.Sub(r.last) < caughtUp && max(r.before, r.count) >= stormRate
}

// drain sends what the kernel has notified of, and what is on its way: the kernel sends
// notifications from a work queue of each processor, and waits with them while the
// buffer is more than half full. It returns false where that is not done when ctx ends.
func (w *Watcher) drain(ctx context.Context) (done bool) {
	r := w.receiver
	if r == nil {
		return true
	}
	for {
		newest := w.fence()
		for r.overran = false; !r.overran || !r.listener.Empty(); {
			if err := w.receive(); err != nil {
				w.Retune()
				return false
			}
			if r.listener.Empty() && !r.waitsFor(newest) {
				w.settle()
				return true
			}
			if !clock.Sleep(ctx, caughtUp/6) {
				return false
			}
		}
		// A fence may be among what was dropped.
	}
}

// fence has the kernel send notifications that are recognised, after all others.
func (w *Watcher) fence() (cookies []uint64) {
	r := w.receiver
	cookies, err := sockdiag.Fence(r.handle.Do)
	if err != nil && w.env.Notices.First("fence") {
		w.env.Logger.WithError(err).Warn("Whether all destroy notifications of a network namespace have come cannot be found out: the last ones before the end of a container may be missed.")
	}
	for _, cookie := range cookies {
		r.fences[cookie] = struct{}{}
	}
	return cookies
}

func (r *receiver) waitsFor(fences []uint64) bool {
	for _, cookie := range fences {
		if _, waits := r.fences[cookie]; waits {
			return true
		}
	}
	return false
}

// settle is called when the newest fences have come: the older ones were dropped, and
// all else that was dropped is reported.
func (w *Watcher) settle() {
	r := w.receiver
	fences := uint64(len(r.fences))
	clear(r.fences)
	if dropped, err := r.listener.Dropped(); err == nil && dropped > r.dropped {
		r.dropped += min(fences, dropped-r.dropped)
	}
	if lost, known := r.lost(); known && lost > 0 {
		w.sendOverrun(lost)
	}
}

// sendOverrun sends that notifications were lost; 0 where it is not known how many.
func (w *Watcher) sendOverrun(lost uint64) {
	w.closes.Watcher, w.closes.Time, w.closes.List = w, clock.Now(), w.closes.List[:0]
	w.closes.Overrun, w.closes.Lost = true, lost
	w.env.ask(&w.closes)
}

// endReceiver sends what is left, within finalTime, and ends the receiver.
func (w *Watcher) endReceiver() {
	r := w.receiver
	if r == nil {
		return
	}
	drained := r.broken
	if !r.broken {
		ctx, cancel := context.WithTimeout(context.Background(), finalTime)
		drained = w.drain(ctx)
		cancel()
	}
	if !drained && !r.broken {
		w.sendOverrun(0)
	}
	w.receiver = nil
	close(r.resume)
	if err := errors.Join(r.listener.Close(), r.handle.Close()); err != nil {
		w.env.Logger.WithError(err).Warn("A network namespace could not be closed completely.")
	}
	for range r.ready { // until the other goroutine has ended
	}
	r.waiting.Wait()
}

// inOrder waits until the capture has what the kernel reported before a snapshot. A
// snapshot that is ahead of that would open what is about to be reported, and hide all
// that happened there before. Where it takes too long the namespace is scanned later,
// and inOrder returns false; but not for ever.
func (w *Watcher) inOrder(ctx context.Context) (bool, error) {
	done := true
	switch reader := w.env.Prober.Load(); {
	case w.receiver != nil:
		if err := w.receive(); err != nil {
			return false, err
		}
		if done = w.receiver.listener.Empty(); int64(clock.Now()) < w.env.lateUntil.Load() {
			done = w.drainSoon(ctx)
		}
	case reader != nil && w.session.exact:
		done = reader.flushSoon(ctx)
	}
	if done {
		w.postponed = 0
		return true, nil
	}
	limit := maxPostponed
	if w.LastScan().IsZero() {
		limit = maxPostponedFirst
	}
	if w.postponed++; w.postponed > limit {
		w.postponed = 0
		return true, nil
	}
	time.AfterFunc(postponeTime, w.Poke)
	return false, nil
}

// drainSoon drains for the time that a scan may wait. The first one, which shows what
// there is, does not wait long.
func (w *Watcher) drainSoon(ctx context.Context) (done bool) {
	limit := drainTime
	if w.LastScan().IsZero() {
		limit = flushTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := clock.Now()
	done = w.drain(ctx)
	if now := clock.Now(); !done || now.Sub(began) > caughtUp {
		w.env.lateUntil.Store(int64(now.Add(lateTime)))
	}
	return done
}

const (
	postponeTime      = 500 * time.Millisecond
	maxPostponed      = 60
	maxPostponedFirst = 4 // before anything is known of the namespace
)
