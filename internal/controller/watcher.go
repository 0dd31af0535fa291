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
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/tracker"
)

// secondLook is how long after an opening its processes are looked up once
// more: servers fork their workers after they listen.
const secondLook = time.Second

// Bounds on the wait before a failed watcher is started again.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// watcher scans one namespace in one goroutine. The hot loop to keep efficient
// is watcher.scan: where nothing opened or closed it allocates nothing.
type watcher struct {
	c      *Controller
	group  *group
	cancel context.CancelFunc
	first  chan struct{} // closed after the first scan
	once   sync.Once     // closes it
	last   atomic.Int64  // when the last scan ended, Unix nanoseconds

	conn    *sockdiag.Conn
	sockets []port.Socket // reused
	unknown []int         // reused
	fresh   []port.Socket // opened since the last second look
	second  *time.Timer   // when to take it
}

// startWatcher starts a watcher for a group. The caller holds the lock.
func (c *Controller) startWatcher(ctx context.Context, g *group) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{c: c, group: g, cancel: cancel, first: make(chan struct{}), second: stoppedTimer()}
	w.last.Store(time.Now().UnixNano())
	if c.still {
		return w
	}
	c.watchers.Go(func() { w.supervise(ctx) })
	return w
}

func (w *watcher) stop() { w.cancel() }

func (w *watcher) freshAt() time.Time { return time.Unix(0, w.last.Load()) }

func (c *Controller) stopWatchers() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, g := range c.groups {
		if g.watcher != nil {
			g.watcher.stop()
		}
	}
}

// supervise runs the watcher until ctx ends. An error or a panic is logged and
// ends in a restart with back-off; the state stays, marked as stale.
func (w *watcher) supervise(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		started := time.Now()
		err := w.run(ctx)
		if ctx.Err() != nil {
			return
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

func (w *watcher) run(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if w.conn, err = w.c.dial(w.group); err != nil {
		return err
	}
	conn := w.conn
	// Closing ends a dump that waits, and must not wait for the next tick.
	closed := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if closed() {
			err = errors.Join(err, conn.Close())
		}
	}()
	return w.loop(ctx)
}

func (w *watcher) loop(ctx context.Context) error {
	scan := time.NewTicker(w.c.ScanInterval)
	defer scan.Stop()
	if err := w.scan(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-scan.C:
			if err := w.scan(); err != nil {
				return err
			}
		case <-w.second.C:
			w.lookAgain()
		}
	}
}

// dial opens a connection into a group's namespace, through the first member
// that leads there.
func (c *Controller) dial(g *group) (*sockdiag.Conn, error) {
	c.mutex.Lock()
	pids := g.pids()
	c.mutex.Unlock()
	err := error(netns.ErrProcessGone)
	for _, pid := range pids {
		var handle *netns.Handle
		if handle, err = netns.Open(c.ProcRoot, pid); err != nil {
			continue
		}
		if handle.ID() != g.id { // the process has moved, or the pid is another's
			err = errors.Join(fmt.Errorf("process %d is in network namespace %s, not %s", pid, handle.ID(), g.id), handle.Close())
			continue
		}
		conn, dialError := sockdiag.Dial(handle.FD(), sockdiag.Options{UDPClients: c.UDPClients})
		return conn, errors.Join(dialError, handle.Close())
	}
	return nil, err
}

// scan takes one snapshot and publishes what changed.
func (w *watcher) scan() error {
	began := time.Now()
	sockets, err := w.conn.Dump(w.sockets[:0])
	w.sockets = sockets
	if err != nil {
		return err
	}
	snapshot := tracker.Snapshot{Began: began, Time: time.Now(), Source: port.SourceSockDiag, Sockets: sockets}
	c, id := w.c, w.group.id

	c.mutex.Lock()
	w.unknown = c.tracker.Unknown(w.unknown[:0], id, sockets)
	if len(w.unknown) > 0 {
		members, epoch := w.group.ownership(c), w.group.epoch
		c.mutex.Unlock()
		snapshot.New = w.attribute(sockets, members)
		c.mutex.Lock()
		w.settleOwners(snapshot.New, epoch)
	}
	if w.group.watcher == w { // else it was stopped meanwhile
		c.publish(c.tracker.Snapshot(c.changes[:0], id, snapshot))
	}
	c.mutex.Unlock()

	w.last.Store(snapshot.Time.UnixNano())
	w.once.Do(func() { close(w.first) })
	return nil
}
