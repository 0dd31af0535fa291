package source

import (
	"errors"
	"fmt"
	"os"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
)

// The longest times between dumps of a namespace in which nothing seems to open. Only a
// dump finds what closes without a notification: a UDP socket that connects, which eBPF
// alone reports.
const (
	fullScan      = 10 * time.Second
	fullScanExact = 5 * time.Minute // with eBPF
)

// quiet proves without a dump that nothing opened since the last dump: the namespace has
// as many sockets as that had, and none of those has closed, which destroy notifications
// or eBPF would have reported. A namespace with connections or UDP clients has more sockets
// than a dump, and is dumped each time.
//
// The kernel sends a notification from a work queue, some time after the close: a port
// that opens right after another closed may be found one scan later.
type quiet struct {
	counter *procfs.Counter // nil where sockets cannot be counted
	longest time.Duration   // fullScan or fullScanExact

	// The last dump; its sockets are counted in sockets.
	at      clock.Instant
	sockets procfs.InUse
	facts   uint64 // Watcher.facts when it began
	epoch   uint64 // Members.Epoch
	settled bool   // all its sockets were known already
}

// dumped remembers a dump: when it began, and the number of facts and the epoch then.
func (q *quiet) dumped(at clock.Instant, facts, epoch uint64, sockets []model.Socket, settled bool) {
	if q.counter == nil {
		return
	}
	q.at, q.facts, q.epoch, q.settled = at, facts, epoch, settled
	q.sockets = procfs.InUse{}
	for i := range sockets {
		if sockets[i].Protocol == model.TCP {
			q.sockets.TCP++
		} else {
			q.sockets.UDP++
		}
	}
}

// unchanged reports whether a dump now would show nothing new.
func (w *Watcher) unchanged(now clock.Instant) bool {
	q := &w.session.quiet
	if q.counter == nil || !q.settled || w.fullDue(now) {
		return false
	}
	// Before the facts are compared: the next call compares one that follows.
	inUse, err := q.counter.Read()
	if err != nil {
		q.counter = nil // the session closes it
		w.env.reportUncounted(err)
		return false
	}
	return inUse == q.sockets && w.facts.Load() == q.facts && w.env.members(w.id).Epoch == q.epoch
}

// fullDue reports whether a dump is due although nothing seems to have changed. Not all
// namespaces have it at the same moment.
func (w *Watcher) fullDue(now clock.Instant) bool {
	q := &w.session.quiet
	period := func(at clock.Instant) clock.Instant { return at.Add(-w.shift(q.longest)) / clock.Instant(q.longest) }
	return period(now) != period(q.at)
}

// count opens the counter of a namespace; nil where that is not possible.
func (e *Env) count(id model.Namespace, pid int) *procfs.Counter {
	counter, err := procfs.OpenCounter(e.ProcRoot, pid)
	if err == nil {
		// The pid may be another process's by now.
		var found model.Namespace
		if found, err = netns.Identify(e.ProcRoot, pid); err == nil && found != id {
			err = fmt.Errorf("process %d is in network namespace %s, not %s: %w", pid, found, id, netns.ErrProcessGone)
		}
		if err == nil {
			return counter
		}
		err = errors.Join(err, counter.Close())
	}
	e.reportUncounted(err)
	return nil
}

func (e *Env) reportUncounted(err error) {
	if errors.Is(err, netns.ErrProcessGone) || errors.Is(err, os.ErrClosed) {
		return // its watcher ends
	}
	if e.Notices.First("uncounted") {
		e.Logger.WithError(err).Warn("The sockets of a network namespace cannot be counted: each scan dumps them, which needs more CPU.")
	}
}
