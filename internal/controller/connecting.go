package controller

import (
	"time"

	"portwatcher/internal/port"
)

const (
	// connectTime is how long after a connect a scan looks whether it has taken
	// place: many are settled by one scan.
	connectTime = 50 * time.Millisecond
	// maxConnect is how long a connect may take; one that waits for a route or a
	// policy in the kernel is done or given up by then.
	maxConnect = 2 * time.Second
)

// connecting are the UDP sockets that were about to connect, by cookie, and when
// that was. One that has is no port any more; but eBPF tells before, and a connect
// may fail, or be undone: the next dump shows whether the socket can still be
// spoken to.
type connecting struct {
	sockets map[uint64]time.Time
	timer   *time.Timer // pokes the watcher
	armed   bool
}

// connects has a scan settle a connect. The caller holds the lock, here and
// below.
func (w *watcher) connects(f *fact) {
	c := &w.connecting
	if c.sockets == nil {
		c.sockets = map[uint64]time.Time{}
		c.timer = time.AfterFunc(time.Hour, func() { signal(w.poke) })
		c.timer.Stop()
	}
	c.sockets[f.Socket.Cookie] = f.Time
	c.arm()
}

func (c *connecting) arm() {
	if !c.armed {
		c.armed = true
		c.timer.Reset(connectTime)
	}
}

// settleConnects closes the sockets that have connected, as of that moment: those
// that are not in this dump, which began at a time.
func (w *watcher) settleConnects(sockets []port.Socket, began time.Time) {
	c := &w.connecting
	c.armed = false
	if len(c.sockets) == 0 {
		return
	}
	shown := make(map[uint64]bool, len(sockets))
	for i := range sockets {
		shown[sockets[i].Cookie] = true
	}
	for cookie, at := range c.sockets {
		switch {
		case at.After(began): // the next dump shows it
		case !shown[cookie]:
			changes, _ := w.c.tracker.Closed(w.c.changes[:0], w.group.id, cookie, at, port.SourceEBPF)
			w.c.publish(changes)
			delete(c.sockets, cookie)
		case began.Sub(at) > maxConnect: // it has not connected, or not for long
			delete(c.sockets, cookie)
		}
	}
	if len(c.sockets) > 0 {
		c.arm()
	}
}
