package controller

import (
	"fmt"
	"slices"
	"time"

	"portwatcher/internal/port"
	"portwatcher/internal/process"
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/tracker"
)

// destroyed takes a destroy notification over. A socket that nobody had seen
// was open between two looks, unless it was a client's.
func (w *watcher) destroyed(r *receiver, d *sockdiag.Destroyed, at time.Time) {
	c := w.c
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if w.group.watcher != w {
		return
	}
	c.calm.count()
	w.rate.count(at)
	w.facts++
	if !d.Client && (d.Socket.Protocol == port.TCP || !r.ephemeral.Holds(d.Socket.Port)) {
		w.hot.mark(&d.Socket, at)
	}
	if w.isInFlight(d.Socket.Cookie) {
		w.deferred = append(w.deferred, deferredClose{r, *d, at})
		return
	}
	w.close(r, d, at)
}

// close takes over that a socket is gone. The caller holds the lock.
func (w *watcher) close(r *receiver, d *sockdiag.Destroyed, at time.Time) {
	c, id := w.c, w.group.id
	changes, known := c.tracker.Closed(c.changes[:0], id, d.Socket.Cookie, at, port.SourceDestroy)
	if !known && w.wasListening(r, d) {
		container, certain := w.onlyMember()
		var told bool
		changes, told = c.tracker.Transient(changes, id, d.Socket, tracker.Owner{Container: container}, at, port.SourceDestroy)
		switch {
		case !certain:
			w.unattributed(&d.Socket)
		case !told && container != nil:
			w.untold(&d.Socket)
		}
	}
	c.publish(changes)
}

// deferredClose is the close of a socket that a dump has just shown, and whose
// opening is about to be reported.
type deferredClose struct {
	receiver *receiver
	sockdiag.Destroyed
	at time.Time
}

// isInFlight says whether a socket is new in the dump that is being attributed.
func (w *watcher) isInFlight(cookie uint64) bool {
	if w.inFlight == nil {
		return false
	}
	return slices.ContainsFunc(w.unknown, func(i int) bool { return w.inFlight[i].Cookie == cookie })
}

// closeDeferred closes what was closed while it was in flight. The caller holds
// the lock.
func (w *watcher) closeDeferred() {
	for i := range w.deferred {
		d := &w.deferred[i]
		w.close(d.receiver, &d.Destroyed, d.at)
	}
	w.deferred = nil
}

// wasListening tells a port from a client: a connect that failed, or a UDP
// socket whose port is one that the kernel gives to clients. Go programs find
// out at their start what the host can do by binding two IPv6 sockets to
// loopback, port 0, without listening (ipStackCapabilities.probe in package
// net): no message tells those from listeners, so they are left out too.
func (w *watcher) wasListening(r *receiver, d *sockdiag.Destroyed) bool {
	container, _ := w.onlyMember()
	if d.Client || !w.c.reported(container, d.Socket.Protocol, d.Socket.Port) || d.Socket.Address == process.EngineResolver {
		return false
	}
	if !r.ephemeral.Holds(d.Socket.Port) {
		return true
	}
	if d.Socket.Protocol == port.UDP {
		return w.c.UDPClients
	}
	return !d.IPv6 || !d.Socket.Address.IsLoopback()
}

// onlyMember is the container of a socket of which nothing but its namespace is
// known; nil if it is not monitored. certain is false where several containers
// share the namespace. The caller holds the lock.
func (w *watcher) onlyMember() (_ *port.Container, certain bool) {
	if w.group.host || len(w.group.members) != 1 {
		return nil, w.group.host // of the host's own sockets nothing is expected
	}
	for _, m := range w.group.members {
		if m.monitored {
			return m.Container, true
		}
	}
	return nil, true
}

// unattributed counts a port whose container is not known. The caller holds the
// lock, here and below.
func (w *watcher) unattributed(s *port.Socket) {
	w.doubt(&w.ownerless, s)
}

// untold counts a port that was open before the socket that a scan has found
// there since, or beside it (SO_REUSEPORT): the message does not tell which.
func (w *watcher) untold(s *port.Socket) {
	w.doubt(&w.hidden, s)
}

// doubt is what is known of ports only in part.
type doubt struct {
	count  int // since a gap told of them
	last   string
	toldAt time.Time
}

func (w *watcher) doubt(d *doubt, s *port.Socket) {
	d.count++
	d.last = fmt.Sprintf("%d/%s on %s", s.Port, s.Protocol, s.Address)
	w.tellDoubts()
}

// tellDoubts reports such ports as gaps, at most one a gapInterval.
func (w *watcher) tellDoubts() {
	if w.ownerless.due() {
		w.c.gap(nil, fmt.Sprintf("ports that opened and closed between two looks in the network namespace of %s: %d, the last %s; whose they were is not known",
			w.group.names(), w.ownerless.count, w.ownerless.last))
		w.ownerless = doubt{toldAt: time.Now()}
	}
	if w.hidden.due() {
		container, _ := w.onlyMember()
		w.c.gap(container, fmt.Sprintf("sockets that closed at ports which another socket holds: %d, the last %s; the ports may have opened and closed in between",
			w.hidden.count, w.hidden.last))
		w.hidden = doubt{toldAt: time.Now()}
	}
	if w.ownerless.count+w.hidden.count > 0 {
		w.arm()
	}
}

func (d *doubt) due() bool { return d.count > 0 && time.Since(d.toldAt) >= gapInterval }

// In a storm the destroy notifications are behind: the kernel sends them from a
// work queue, and there is a backlog. The snapshot's new sockets must wait for
// those that were closed before, or these would seem to have been open beside
// them.
const (
	rateWindow  = 100 * time.Millisecond
	stormRate   = 200                   // notifications in a window
	caughtUp    = 30 * time.Millisecond // without a notification
	maxCatchUp  = 250 * time.Millisecond
	catchUpStep = 5 * time.Millisecond
	hotTime     = time.Second // from one close at a port to the next
	hotCloses   = 10          // in a row
	maxHot      = 1024        // ports
)

// rate tells a storm of destroy notifications from everyday life.
type rate struct {
	last    time.Time // notification
	began   time.Time // of the window
	current int       // notifications in it
	before  int       // in the window before
}

func (r *rate) count(at time.Time) {
	if age := at.Sub(r.began); age >= rateWindow {
		r.before = r.current
		if age >= 2*rateWindow {
			r.before = 0
		}
		r.began, r.current = at, 0
	}
	r.current++
	r.last = at
}

func (r *rate) storm(now time.Time) bool {
	return now.Sub(r.last) < rateWindow && max(r.before, r.current) >= stormRate
}

// hotPorts are those at which sockets have closed lately.
type hotPorts map[hotPort]heat

type hotPort struct {
	protocol port.Protocol
	number   uint16
}

// heat is how often sockets closed at a port, each within hotTime of the one
// before.
type heat struct {
	closes int
	last   time.Time
}

func (h *hotPorts) mark(s *port.Socket, at time.Time) {
	if *h == nil || len(*h) >= maxHot {
		*h = hotPorts{}
	}
	key := hotPort{s.Protocol, s.Port}
	heat := (*h)[key]
	if at.Sub(heat.last) >= hotTime {
		heat.closes = 0
	}
	heat.closes++
	heat.last = at
	(*h)[key] = heat
}

// hot says whether sockets come and go at a port all the time.
func (h hotPorts) hot(s *port.Socket, now time.Time) bool {
	heat := h[hotPort{s.Protocol, s.Port}]
	return heat.closes >= hotCloses && now.Sub(heat.last) < hotTime
}

// catchUp waits, in a storm, until no destroy notification has come for a
// moment. The caller holds the lock, which is released meanwhile.
func (w *watcher) catchUp() {
	if w.session.receiver == nil || !w.rate.storm(time.Now()) {
		return
	}
	for began := time.Now(); time.Since(began) < maxCatchUp && time.Since(w.rate.last) < caughtUp; {
		w.c.mutex.Unlock()
		time.Sleep(catchUpStep)
		w.c.mutex.Lock()
	}
}

// passOverHot takes those sockets from the unknown at whose ports others come and
// go all the time: more closes are on their way, which these would hide, and a
// later scan will do. The caller holds the lock.
func (w *watcher) passOverHot(sockets []port.Socket) {
	now := time.Now()
	w.unknown = slices.DeleteFunc(w.unknown, func(i int) bool { return w.hot.hot(&sockets[i], now) })
}

// overrun reports that closes were lost, and has the namespace scanned.
func (w *watcher) overrun() {
	w.c.mutex.Lock()
	defer w.c.mutex.Unlock()
	if w.group.watcher != w {
		return
	}
	w.c.counts.overruns++
	w.facts++
	container, _ := w.onlyMember()
	w.c.gap(container, "destroy notifications were lost: sockets closed faster than they could be read; scanned again")
	signal(w.poke)
}
