package controller

import (
	"errors"
	"fmt"
	"os"
	"time"

	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/procnet"
)

// The longest times between dumps of a namespace in which nothing seems to open.
// A dump finds what closed without a word: a UDP socket that connects is no longer
// a port, and no notification tells of it, but eBPF does.
const (
	fullScan      = 10 * time.Second
	fullScanExact = 5 * time.Minute // with eBPF
)

// quiet tells without a dump that nothing opened since the last one: the
// namespace has as many sockets as were dumped, and none of those has closed,
// which destroy notifications, or eBPF, would have told. So there is no other. A
// namespace with connections or UDP clients has more sockets than those dumped,
// and is dumped each time.
//
// The kernel sends a notification from a work queue, some time after the close: a
// port that opens in the moment after another closed may be found one scan later.
type quiet struct {
	counter *procnet.Counter // nil where it cannot be told
	longest time.Duration    // fullScan or fullScanExact

	// The last dump; its sockets are counted in sockets.
	at      time.Time
	sockets procnet.InUse
	facts   uint64 // watcher.facts when it began
	epoch   uint64 // group.epoch
	settled bool   // all its sockets were known already
}

// dumped remembers a dump that began at a time, when there had been as many
// facts. The caller holds the lock.
func (q *quiet) dumped(w *watcher, at time.Time, facts uint64, sockets []port.Socket) {
	if q.counter == nil {
		return
	}
	q.at, q.facts, q.epoch, q.settled = at, facts, w.group.epoch, len(w.unknown) == 0
	q.sockets = procnet.InUse{}
	for i := range sockets {
		if sockets[i].Protocol == port.TCP {
			q.sockets.TCP++
		} else {
			q.sockets.UDP++
		}
	}
}

// count opens the counter of a namespace, nil where that is not possible.
func (c *Controller) count(id port.Namespace, pid int) *procnet.Counter {
	counter, err := procnet.OpenCounter(c.ProcRoot, pid)
	if err == nil {
		// The pid may be another's by now.
		var found port.Namespace
		if found, err = netns.Identify(c.ProcRoot, pid); err == nil && found != id {
			err = fmt.Errorf("process %d is in network namespace %s, not %s: %w", pid, found, id, netns.ErrProcessGone)
		}
		if err == nil {
			return counter
		}
		err = errors.Join(err, counter.Close())
	}
	c.tellUncounted(err)
	return nil
}

func (c *Controller) tellUncounted(err error) {
	if errors.Is(err, netns.ErrProcessGone) || errors.Is(err, os.ErrClosed) {
		return // its watcher ends
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.once("uncounted", func() {
		c.log.WithError(err).Warn("The sockets of a network namespace cannot be counted: each scan dumps them, which needs more CPU.")
	})
}

// unchanged says that a dump now would show nothing new.
func (w *watcher) unchanged() bool {
	q := &w.session.quiet
	if q.counter == nil || !q.settled || time.Since(q.at) >= q.longest {
		return false
	}
	// Before the facts are looked at: one that follows is seen the next time.
	inUse, err := q.counter.Read()
	if err != nil {
		q.counter = nil // the session closes it
		w.c.tellUncounted(err)
		return false
	}
	if inUse != q.sockets {
		return false
	}
	w.c.mutex.Lock()
	defer w.c.mutex.Unlock()
	return w.facts == q.facts && w.group.epoch == q.epoch
}
