package source

import (
	"fmt"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/procfs"
)

// The kernel makes a destroy notification of every connection that closes in a namespace
// with a subscriber, before the subscriber's filter drops it: some 2 to 3 us for each end
// of a connection, so that busyRate of them cost about 1 % of a core. Where there are more,
// the namespace is scanned more often instead. `make bench` with --theme accept measures
// the cost.
const (
	busyInterval = 10 * time.Second
	busyRate     = 3000                  // ends of connections that are opened a second
	quietRate    = busyRate / 2          // up to which notifications are received again
	busyScan     = 50 * time.Millisecond // the longest time between two scans meanwhile
)

type busy struct {
	at          clock.Instant // of the last measurement; zero before the first
	connections uint64
	rate        float64 // a second
	// without means that the rate is too high to receive notifications.
	without bool
}

// measureConnections measures the rate since the last call, and returns errRetune where
// the receiving of notifications must begin or end.
func (w *Watcher) measureConnections() error {
	b := &w.busyness
	pids := w.env.members(w.id).pids()
	if len(pids) == 0 {
		return nil
	}
	sum, err := procfs.Connections(w.env.ProcRoot, pids[0])
	if err != nil {
		b.at = 0
		return nil // its watcher ends, or notifications stay as they are
	}
	now, before := clock.Now(), *b
	b.at, b.connections = now, sum
	if before.at.IsZero() || sum < before.connections {
		return nil
	}
	b.rate = float64(sum-before.connections) / now.Sub(before.at).Seconds()
	if b.without = b.rate > busyRate || b.without && b.rate > quietRate; b.without != before.without {
		return errRetune
	}
	return nil
}

// reason returns why the rate of connections prevents notifications; empty where it does
// not.
func (b *busy) reason() string {
	if !b.without {
		return ""
	}
	return fmt.Sprintf("%.0f connections a second would make destroy notifications cost more than 1 %% of a core: scans every %s take their place, and ports that live shorter may be missed",
		b.rate, busyScan)
}
