// Package tracker turns observations of sockets into changes of endpoints. It
// is a pure state machine: no I/O, no goroutine, and all time is passed in.
//
// Facts are merged by socket identity (network namespace and cookie), so the
// same fact from two sources is one change. Endpoints are aggregated over their
// sockets, and live longer than a namespace: a container that restarts within
// the close grace keeps its endpoints.
//
// Invariants:
//
//   - DO compare a snapshot with the moment it began. DON'T let it close a
//     socket that opened later: the dump may have passed that place already.
//   - DO keep all state when a snapshot fails. DON'T feed a partial one: what is
//     missing in it would appear closed.
//   - DO remember sockets that belong to nobody. DON'T ask for their owner
//     again at each snapshot; [Tracker.Reconsider] follows when it may have changed.
//   - DO remember for a moment which sockets closed exactly when. DON'T let a
//     snapshot open them again: it may have passed that place before. A snapshot
//     that began before what is remembered opens nothing.
//   - DO open a namespace before it is observed. DON'T make one for an
//     observation: one that comes after the end would make it for ever.
//   - DO give a change all that is known at that moment. DON'T refer to state
//     that may change later: consumers keep changes.
//   - DO report a change when no process is left of those that the last change of
//     an open endpoint reported: another holds it now, by inheritance, or by
//     coming back within the close grace. DON'T report one when one of a group of
//     sockets (SO_REUSEPORT) leaves, whoever it was: the others held the endpoint
//     before. DON'T report one while a process stayed (workers come and go), while
//     who holds one of the sockets is not known, or when a process becomes another
//     program by exec: its pid is the same process. What is known of it is right
//     from then on all the same.
//   - DO walk only what an observation concerns. DON'T walk all endpoints for
//     one container, one namespace or one end of a grace.
//
// The order of observations matters little. Whatever the order in which facts,
// counts and snapshots of one history arrive, as long as each socket's own order
// is kept, the state after a snapshot that began settleTime after all of them is
// that snapshot's, and the changes of an endpoint alternate between opened and
// closed. The counts are right as well where the sockets of an endpoint do not
// overlap, and no snapshot comes before the facts; TestAnyOrder states it
// precisely.
package tracker

import (
	"iter"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Owner is what is known of a socket's owner. A nil Container means that the
// socket is of no interest: it is remembered and never reported.
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
	// Processes hold the endpoint's sockets, ordered by pid; of a closed
	// endpoint, the last known.
	Processes []model.Process
	// IPv6Only says that no socket of the endpoint takes IPv4 traffic.
	IPv6Only bool
	// OpenedAt is zero for a transient: no source saw it open.
	OpenedAt clock.Instant
	// Transient says that the endpoint is known by its close alone.
	Transient bool
}

// settleTime is how long an exact fact and a snapshot may contradict each
// other: the kernel reports that a socket listens before it is in the table that
// a dump reads, and that a UDP socket closes before it leaves that table.
const settleTime = time.Second

// Tracker holds the state. It is not safe for concurrent use.
type Tracker struct {
	grace      time.Duration
	namespaces map[model.Namespace]*namespace
	endpoints  map[model.Endpoint]*endpoint
	containers map[string]*container
	waiting    expiries
	dirty      []*endpoint // touched since the last settle
	revision   uint64      // of what [Tracker.Sockets] and Open return
	vanished   uint64
	emptied    uint64      // revision when a container last lost its last endpoint
}

// New returns an empty tracker. closeGrace is how long an endpoint may be
// without a socket before it is reported closed; 0 reports at once.
func New(closeGrace time.Duration) *Tracker {
	return &Tracker{
		grace:      closeGrace,
		namespaces: map[model.Namespace]*namespace{},
		endpoints:  map[model.Endpoint]*endpoint{},
		containers: map[string]*container{},
	}
}

// Revision rises whenever the sockets, the processes or the container of an
// endpoint have changed, also where that is no change to report.
func (t *Tracker) Revision() uint64 { return t.revision }

// Vanished returns how many sockets of containers snapshots have found closed since New.
func (t *Tracker) Vanished() uint64 { return t.vanished }

// Open returns what is open now, ordered by endpoint, as opened changes.
func (t *Tracker) Open() []Change { return openOf(maps.Values(t.endpoints)) }

// openOf returns those of some endpoints that are open.
func openOf(endpoints iter.Seq[*endpoint]) []Change {
	var open []*endpoint
	for e := range endpoints {
		if !e.isWaiting() {
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

// Prune gives back the memory of exact facts of a while ago.
func (t *Tracker) Prune(now clock.Instant) {
	for _, ns := range t.namespaces {
		ns.ended.prune(now)
		ns.counted.prune(now)
	}
}
