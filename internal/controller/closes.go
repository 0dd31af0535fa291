package controller

import (
	"time"

	"portwatcher/internal/port"
	"portwatcher/internal/process"
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/tracker"
)

// destroyed takes a destroy notification over. A socket that nobody had seen
// was open between two looks, unless it was a client's.
func (w *watcher) destroyed(s *session, d *sockdiag.Destroyed, at time.Time) {
	c, id := w.c, w.group.id
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if w.group.watcher != w {
		return
	}
	changes, known := c.tracker.Closed(c.changes[:0], id, d.Socket.Cookie, at, port.SourceDestroy)
	if !known && w.wasListening(s, d) {
		owner := tracker.Owner{Container: w.onlyMember(d.Socket)}
		changes = c.tracker.Transient(changes, id, d.Socket, owner, at, port.SourceDestroy)
	}
	c.publish(changes)
}

// wasListening tells a port from a client: a connect that failed, or a UDP
// socket whose port is one that the kernel gives to clients. Go programs find
// out at their start what the host can do by binding two IPv6 sockets to
// loopback, port 0, without listening (ipStackCapabilities.probe in package
// net): no message tells those from listeners, so they are left out too.
func (w *watcher) wasListening(s *session, d *sockdiag.Destroyed) bool {
	if d.Client || !w.c.watches(d.Socket.Port) || d.Socket.Address == process.EngineResolver {
		return false
	}
	if !s.ephemeral.Holds(d.Socket.Port) {
		return true
	}
	if d.Socket.Protocol == port.UDP {
		return w.c.UDPClients
	}
	return !d.IPv6 || !d.Socket.Address.IsLoopback()
}

// onlyMember is the container of a socket of which nothing but its namespace is
// known. The caller holds the lock.
func (w *watcher) onlyMember(s port.Socket) *port.Container {
	if len(w.group.members) == 1 && !w.group.host {
		for _, m := range w.group.members {
			if m.monitored {
				return m.Container
			}
		}
		return nil
	}
	w.c.once("shared "+w.group.id.String(), func() {
		w.c.log.WithField("containers", w.group.names()).Warnf(
			"A port that lived shorter than a scan interval (%d/%s) cannot be attributed: several containers share the network namespace. eBPF would tell.",
			s.Port, s.Protocol)
	})
	return nil
}

// overrun reports that closes were lost, and has the namespace scanned.
func (w *watcher) overrun() {
	w.c.mutex.Lock()
	defer w.c.mutex.Unlock()
	if w.group.watcher != w {
		return
	}
	var container *port.Container
	if len(w.group.members) == 1 {
		container = w.onlyMember(port.Socket{})
	}
	w.c.gap(container, "destroy notifications were lost: sockets closed faster than they could be read; scanned again")
	signal(w.poke)
}
