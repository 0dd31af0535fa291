// Package tracker turns observations of sockets into changes of endpoints. It
// is a pure state machine: no I/O, no goroutine, and all time is passed in.
//
// Facts are merged by socket identity (network namespace and cookie), so the same
// fact from two sources is one change. An endpoint has all its sockets together, and
// lives longer than a namespace: a container that restarts within the close grace
// keeps its endpoints.
//
// Invariants:
//
//   - DO compare a snapshot with the moment when it began. DON'T let it close a socket
//     that opened later: the dump may have passed that place already.
//   - DO keep all state when a snapshot fails. DON'T pass a partial one: what it lacks
//     would close.
//   - DO remember sockets without an owner. DON'T ask for their owner again at each
//     snapshot; [Tracker.Reconsider] does when the set of containers has changed.
//   - DO remember closes for a moment. DON'T let a snapshot open these sockets again:
//     it may have passed that place before. A snapshot that began before the oldest
//     remembered close opens nothing.
//   - DO open a namespace before it is observed. DON'T make one for an observation: an
//     observation that comes after the end of the namespace would leak it.
//   - DO give a change all that is known at that moment. DON'T refer to state that may
//     change later: consumers keep changes.
//   - DO report a change of owner when no process is left of those that the last change
//     of an open endpoint had: it was inherited, or opened again within the close grace.
//     DON'T report one when a socket of a group (SO_REUSEPORT) closes: the others held
//     the endpoint before. DON'T report one while one of the processes stays (workers
//     come and go), while the holder of one of the sockets is unknown, or after exec: the
//     process is the same. The next change has the new processes in any case.
//   - DO walk only what an observation concerns. DON'T walk all endpoints for one
//     container, one namespace or one end of a close grace.
//
// The order of observations matters little. In whatever order the facts, counts and
// snapshots of one history arrive, as long as the order of each socket is kept, the
// state after a snapshot that began settleTime after all of them is that snapshot's,
// and the changes of an endpoint alternate between opened and closed. The numbers of
// changes are right, too, where the sockets of an endpoint do not overlap and no
// snapshot comes before the facts; TestAnyOrder states it precisely.
package tracker

import (
	"iter"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Owner is the owner of a socket. A nil Container means that the socket is of no
// interest: it is remembered and never reported.
type Owner struct {
	Container *model.Container
	Processes []model.Process
}

// Change is an endpoint that opened, closed or changed its owner.
type Change struct {
	Type      model.Type
	Time      clock.Instant
	Source    model.Source
	Endpoint  model.Endpoint
	Namespace model.Namespace
	Container *model.Container
	// Processes hold the endpoint's sockets, ordered by pid; those of a closed endpoint
	// are the last known.
	Processes []model.Process
	// IPv6Only means that no socket of the endpoint takes IPv4 traffic.
	IPv6Only bool
	// OpenedAt is zero for a transient.
	OpenedAt clock.Instant
	// Transient means that the endpoint is known by its close alone.
	Transient bool
}

// settleTime is how long an exact fact and a snapshot may contradict each other: the
// kernel reports a listening socket before it is in the table that a dump reads, and
// the close of a UDP socket before it leaves that table.
const settleTime = time.Second

// Tracker holds the state. It is not safe for concurrent use.
type Tracker struct {
	grace      time.Duration
	namespaces map[model.Namespace]*namespace
	endpoints  map[model.Endpoint]*endpoint
	containers map[string]*container
	waiting    expiries
	woken      []*endpoint // see [Tracker.Woken]
	dirty      []*endpoint // touched since the last settle
	revision   uint64      // of what [Tracker.Sockets] and Open return
	vanished   uint64      // see [Tracker.Vanished]
	emptied    uint64      // revision when a container last lost its last endpoint
}

// New returns an empty tracker. closeGrace is how long an endpoint may be without a
// socket before it closes.
func New(closeGrace time.Duration) *Tracker {
	return &Tracker{
		grace:      closeGrace,
		namespaces: map[model.Namespace]*namespace{},
		endpoints:  map[model.Endpoint]*endpoint{},
		containers: map[string]*container{},
	}
}

// Revision rises whenever the sockets, the processes or the container of an endpoint
// have changed, also where that is no change to report.
func (t *Tracker) Revision() uint64 { return t.revision }

// Vanished returns how many sockets of containers were missing in snapshots since New.
func (t *Tracker) Vanished() uint64 { return t.vanished }

// Open returns what is open now, ordered by endpoint, as opened changes.
func (t *Tracker) Open() []Change { return openOf(maps.Values(t.endpoints)) }

// Reported returns what is open by the changes so far, as Open does: also the endpoints whose
// close grace runs.
func (t *Tracker) Reported() []Change {
	return changesOf(maps.Values(t.endpoints), func(e *endpoint) bool { return e.reported })
}

// openOf returns those of some endpoints that are open.
func openOf(endpoints iter.Seq[*endpoint]) []Change {
	return changesOf(endpoints, func(e *endpoint) bool { return !e.isWaiting() })
}

func changesOf(endpoints iter.Seq[*endpoint], which func(*endpoint) bool) []Change {
	var open []*endpoint
	for e := range endpoints {
		if which(e) {
			open = append(open, e)
		}
	}
	slices.SortFunc(open, func(a, b *endpoint) int { return a.key.Compare(b.key) })
	changes := make([]Change, len(open))
	for i, e := range open {
		changes[i] = e.change(model.Opened, e.openedAt, e.source)
	}
	return changes
}

// Prune frees the memory of old exact facts.
func (t *Tracker) Prune(now clock.Instant) {
	for _, ns := range t.namespaces {
		ns.ended.prune(now)
		ns.counted.prune(now)
	}
}
