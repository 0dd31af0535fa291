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
	"portwatcher/internal/freelist"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
	"portwatcher/internal/sockdiag"
)

const (
	// closesLength is how many notifications one observation has at most.
	closesLength = 256
	// finalTime is how long a watcher that ends receives notifications.
	finalTime = 500 * time.Millisecond
	// The kernel sends notifications from a work queue. In a storm, stormRate of them in
	// stormWindow, it is behind: more follow although none waits.
	stormRate   = 200
	stormWindow = 100 * time.Millisecond
	caughtUp    = 30 * time.Millisecond // without a notification
	maxCatchUp  = 250 * time.Millisecond
	// lateTime is how long after a storm, or after late notifications, scans wait for the
	// notifications of every namespace: the storm of one delays all.
	lateTime = 2 * time.Second
	// drainTime is how long a scan waits for notifications at most.
	drainTime = 5 * time.Second
)

// batches is the memory of those watchers that receive at the moment: most namespaces have
// nothing to receive.
var batches = freelist.New[[closesLength]sockdiag.Destroyed](4)

// receiver receives the destroy notifications of a namespace. It belongs to a watcher's
// goroutine, and outlives a session, so that no close is missed between two sessions. What
// the watcher has not read stays in the kernel's buffer.
type receiver struct {
	listener  *sockdiag.Listener
	handle    *netns.Handle // for fences
	ephemeral procfs.Range
	ready     chan struct{} // a notification waits in the kernel, or the listener has failed
	resume    chan struct{} // wait again
	waiting   sync.WaitGroup
	broken    bool                // it has failed; the watcher subscribes again
	fences    map[uint64]struct{} // cookies of fences that have not arrived
	dropped   uint64              // by the kernel, as far as reported, or fences
	overran   bool                // since the newest fences were made
	buffer    int

	// The rate of notifications: began is the start of the present window, last the time of
	// the last notification, count and before the numbers in this window and the one before.
	began, last   clock.Instant
	count, before int
}

// startReceiver subscribes to destroy notifications. Where that fails, scans find closes.
func (w *Watcher) startReceiver(handle *netns.Handle, pid int, settings *Settings) {
	own, err := netns.Open(w.env.ProcRoot, pid)
	if err == nil && own.ID() != handle.ID() { // the pid is another process's by now
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
}

// wait signals ready when a notification can be read, and again after each resume.
func (r *receiver) wait() {
	defer close(r.ready)
	for r.listener.Wait() == nil {
		r.ready <- struct{}{}
		if _, open := <-r.resume; !open {
			return
		}
	}
}

// readable returns a channel that has a signal when notifications wait; nil where none
// are received.
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

// reportHostTransients logs, one time, that transients in the host's namespace have no
// known owner. Where the host's own ports are reported, gaps count them.
func (w *Watcher) reportHostTransients() {
	if m := w.env.members(w.id); m.Host && attribute.HostOwner(m.Containers) == nil && w.env.Notices.First("host transients") {
		w.env.Logger.WithField("containers", m.Names).
			Warn("Without eBPF, ports on the host's network that open and close between two scans are not reported: their containers are not known.")
	}
}

// receive sends the notifications that wait in the kernel, for maxCatchUp at most. The
// error ends the session.
func (w *Watcher) receive() error {
	r := w.receiver
	batch := batches.Take()
	defer batches.Give(batch)
	for began := clock.Now(); clock.Since(began) < maxCatchUp; {
		n, err := r.listener.ReceiveWaiting(batch[:])
		w.sendCloses(batch[:n], err)
		switch {
		case err != nil && isMalformed(err):
			w.env.Logger.WithError(err).Warn("A destroy notification cannot be decoded; portwatcher scans the namespace instead.")
			w.Poke()
		case errors.Is(err, unix.ENOBUFS):
			w.Poke()
		case err != nil:
			w.env.Logger.WithError(err).Warn("Destroy notifications have ended; portwatcher subscribes to them again.")
			r.broken = true
			return errRetune
		case n == 0:
			signal(r.resume)
			return nil
		}
	}
	signal(r.resume) // more waits, and ready gets a signal
	return nil
}

func isMalformed(err error) bool {
	_, is := errors.AsType[*sockdiag.MalformedError](err)
	return is
}

// sendCloses sends notifications, and the overrun after them.
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
			q.Overrun = false // only fences were dropped
		}
	}
	w.env.ask(q)
}

// lost returns how many notifications the kernel dropped since the last call, where that
// is known. As many as there are fences on their way are not counted: settle shows
// whether these were dropped.
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

// listened distinguishes a server's socket from a client's, which is one whose connect
// failed, or a UDP socket with a port that the kernel gives to clients. Go programs bind
// two IPv6 sockets to loopback, port 0, at their start, without listening
// (ipStackCapabilities.probe in package net): no message distinguishes these from
// listeners, so they count as clients, too.
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

// note adds notifications to the rate.
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

// storm reports whether the rate of notifications is so high that more will follow.
func (r *receiver) storm(now clock.Instant) bool {
	return now.Sub(r.last) < caughtUp && max(r.before, r.count) >= stormRate
}

// sendOverrun reports that notifications were lost; 0 where their number is not known.
func (w *Watcher) sendOverrun(lost uint64) {
	w.closes.Watcher, w.closes.Time, w.closes.List = w, clock.Now(), w.closes.List[:0]
	w.closes.Overrun, w.closes.Lost = true, lost
	w.env.ask(&w.closes)
}

// endReceiver sends the remaining notifications, within finalTime, and ends the receiver.
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
	w.env.reportUnclosed(r.listener.Close(), r.handle.Close())
	for range r.ready { // until the other goroutine has ended
	}
	r.waiting.Wait()
}
