package controller

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/netns"
	"portwatcher/internal/procnet"
	"portwatcher/internal/sockdiag"
)

// receiver receives the destroy notifications of a namespace. It belongs to a
// watcher, not to one of its sessions: while one ends and the next begins, no
// close is missed.
type receiver struct {
	*sockdiag.Listener
	ephemeral procnet.Range
	broken    atomic.Bool // it has ended by itself
	done      sync.WaitGroup
}

// startReceiver subscribes to destroy notifications. Without them, nil, closes
// are found by scans.
func (w *watcher) startReceiver(handle *netns.Handle, pid int) *receiver {
	l, err := sockdiag.Listen(handle.FD())
	if err != nil {
		w.c.mutex.Lock()
		defer w.c.mutex.Unlock()
		w.c.once("destroy", func() {
			w.c.log.WithError(err).Warn("Destroy notifications are not available: closes are found by scans, and ports that live shorter are missed.")
		})
		return nil
	}
	w.tellHostTransients()
	r := &receiver{Listener: l, ephemeral: w.c.ephemeralPorts(pid)}
	r.done.Go(func() { w.receive(r) })
	return r
}

// tellHostTransients says once what cannot be told in the host's namespace: whose
// a port was that lived shorter than the time between two scans.
func (w *watcher) tellHostTransients() {
	w.c.mutex.Lock()
	defer w.c.mutex.Unlock()
	if w.group.host {
		w.c.once("host transients", func() {
			w.c.log.WithField("containers", w.group.names()).
				Warn("Without eBPF, ports on the host's network that open and close between two scans are not reported: whose they were is not known.")
		})
	}
}

// receive takes destroy notifications until the receiver is closed.
func (w *watcher) receive(r *receiver) {
	var d sockdiag.Destroyed
	for {
		err := r.Receive(&d)
		var bad *sockdiag.MalformedError
		switch {
		case err == nil:
			w.destroyed(r, &d, time.Now())
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, unix.ENOBUFS):
			w.overrun()
		case errors.As(err, &bad):
			w.c.log.WithError(err).Warn("A destroy notification is not understood; it is passed over.")
			signal(w.poke)
		default:
			w.c.log.WithError(err).Warn("Destroy notifications have ended; starting again.")
			r.broken.Store(true)
			signal(w.retune)
			return
		}
	}
}

// endReceiver reads what is left, not for long, and ends the receiver. It
// belongs to the watcher's goroutine.
func (w *watcher) endReceiver(ctx context.Context) {
	r := w.receiver
	if r == nil {
		return
	}
	w.receiver = nil
	for began := time.Now(); !r.Empty() && !r.broken.Load() && ctx.Err() == nil && time.Since(began) < maxCatchUp; {
		time.Sleep(catchUpStep)
	}
	unread := !r.Empty() && ctx.Err() == nil
	if err := r.Close(); err != nil {
		w.c.log.WithError(err).Warn("A netlink socket could not be closed.")
	}
	r.done.Wait()
	if unread {
		w.overrun()
	}
}
