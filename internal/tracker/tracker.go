// Package tracker turns observations of sockets into changes of endpoints. It
// is a pure state machine: no I/O, no goroutine, and time only as it is told.
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
//     missing in it would look closed.
//   - DO remember sockets that belong to nobody. DON'T ask for their owner
//     again at each snapshot; [Tracker.Reconsider] says when it may have changed.
//   - DO remember for a moment which sockets closed exactly when. DON'T let a
//     snapshot open them again: it may have passed that place before.
//   - DO give a change all that is known at that moment. DON'T refer to state
//     that may change later: consumers keep changes.
//   - DO tell a change when no process is left of those that the last change of
//     an open endpoint told of: another took it over, by inheritance, or by
//     coming back within the close grace. DON'T tell one when one of a group of
//     sockets (SO_REUSEPORT) leaves, whoever it was: the others held the endpoint
//     before. DON'T tell one while a process stayed (workers come and go), while
//     who holds one of the sockets is not known, or when a process becomes another
//     program by exec: its pid is the same process. What is known of it is right
//     from then on all the same.
package tracker

import (
	"slices"
	"time"

	"portwatcher/internal/port"
)

// Owner is what is known of a socket's owner. A nil Container means that the
// socket is of no interest: it is remembered and never reported.
type Owner struct {
	Container *port.Container
	Processes []port.Process
}

// Snapshot is all sockets of a namespace at one moment.
type Snapshot struct {
	// Began is when the first table was asked for, Time when the last answer
	// was there. Both should carry a monotonic clock reading.
	Began, Time time.Time
	Source      port.Source
	Sockets     []port.Socket
	// Resumed says that nobody looked for a while: what differs from the state
	// happened meanwhile, and has the source [port.SourceRestart].
	Resumed bool
	// New has the owners of the sockets that [Tracker.Unknown] named, by index
	// in Sockets. A new socket that is missing here is passed over until a
	// later snapshot.
	New map[int]Owner
}

// Change is an endpoint that opened, closed or changed its owner.
type Change struct {
	Type      port.Type
	Time      time.Time
	Source    port.Source
	Endpoint  port.Endpoint
	Namespace port.Namespace
	Container *port.Container
	// Processes hold the endpoint's sockets, ordered by pid; of a closed
	// endpoint, the last known.
	Processes []port.Process
	// IPv6Only says that no socket of the endpoint takes IPv4 traffic.
	IPv6Only bool
	// OpenedAt is zero for a transient: nobody saw it open.
	OpenedAt time.Time
	// Transient says that the endpoint is known by its close alone.
	Transient bool
}

// settleTime is how long an exact fact and a snapshot may contradict each
// other: the kernel tells that a socket listens before it is in the table that
// a dump reads, and that a UDP socket closes before it leaves that table.
const settleTime = time.Second

// Tracker holds the state. It is not safe for concurrent use.
type Tracker struct {
	grace      time.Duration
	namespaces map[port.Namespace]*namespace
	endpoints  map[port.Endpoint]*endpoint
	dirty      []*endpoint // touched since the last settle
	revision   uint64      // of what [Tracker.Sockets] and Open say
}

type namespace struct {
	id         port.Namespace
	sockets    map[uint64]*socket
	generation uint64
	stale      bool
	// byInode says that cookies are made up from inodes: the last snapshot came
	// from a source that has no cookies.
	byInode bool
	ended   tombstones
}

type socket struct {
	port.Socket
	opened     time.Time
	processes  []port.Process
	endpoint   *endpoint // nil if the socket is of no interest
	generation uint64    // of the last snapshot that had it
	settled    bool      // counted in what was reported of its endpoint
	exact      bool      // opened is the very moment
	restored   bool      // no snapshot has had it yet
	fresh      bool      // its processes have not been looked up a second time
	looked     time.Time // when the last look at its processes began
}

// endpoint has at least one socket, or is about to be closed.
type endpoint struct {
	key       port.Endpoint
	namespace port.Namespace
	container *port.Container
	sockets   []*socket
	// processes hold it, as far as is known; told are those of the last change,
	// or the first known where it had none.
	processes, told []port.Process
	left            bool // a socket has gone since the last settle
	ipv6Only        bool
	source          port.Source
	openedAt        time.Time

	reported bool // an opened change has been made
	restored bool // it was open before the first snapshot of its namespace
	recalled bool // its processes are those that an earlier run knew
	dirty    bool
	// closedAt and closedBy are set while the close grace runs.
	closedAt time.Time
	closedBy port.Source
}

// New returns an empty tracker. closeGrace is how long an endpoint may be
// without a socket before it is reported closed; 0 reports at once.
func New(closeGrace time.Duration) *Tracker {
	return &Tracker{
		grace:      closeGrace,
		namespaces: map[port.Namespace]*namespace{},
		endpoints:  map[port.Endpoint]*endpoint{},
	}
}

// SetGrace changes the close grace, also for endpoints that wait for its end.
func (t *Tracker) SetGrace(closeGrace time.Duration) { t.grace = closeGrace }

// Unknown appends to dst the indices of those sockets that the tracker does not
// know, and whose owner it needs. It allocates nothing where there are none.
func (t *Tracker) Unknown(dst []int, id port.Namespace, sockets []port.Socket) []int {
	ns := t.namespaces[id]
	for i := range sockets {
		if ns != nil {
			if known := ns.sockets[sockets[i].Cookie]; known != nil && known.samePlace(&sockets[i]) {
				continue
			}
		}
		dst = append(dst, i)
	}
	return dst
}

// samePlace says whether a socket is still where it was: a socket that is shut
// down can listen again elsewhere, under the same cookie.
func (s *socket) samePlace(other *port.Socket) bool {
	return s.Port == other.Port && s.Protocol == other.Protocol && s.Address == other.Address
}

// Snapshot compares a complete snapshot with the state, and appends what
// changed to dst. It allocates nothing where nothing did.
func (t *Tracker) Snapshot(dst []Change, id port.Namespace, s Snapshot) []Change {
	ns := t.namespace(id)
	ns.stale = false
	ns.generation++
	ns.identify(&s)
	seen := 0
	for i := range s.Sockets {
		observed := &s.Sockets[i]
		known := ns.sockets[observed.Cookie]
		if known != nil && !known.samePlace(observed) {
			t.removeSocket(ns, known)
			known = nil
		}
		if known == nil {
			owner, ok := s.New[i]
			if !ok || ns.ended.outdates(observed.Cookie, s.Began) {
				continue
			}
			known = t.addSocket(ns, *observed, owner, s.Time)
		}
		if known.generation != ns.generation {
			known.generation = ns.generation
			seen++
			if known.restored {
				t.confirm(known)
			}
		}
	}
	if seen < len(ns.sockets) {
		for _, known := range ns.sockets {
			if known.generation != ns.generation && known.settledBefore(s.Began) {
				ns.ended.add(known.Cookie, ending{at: s.Time})
				t.removeSocket(ns, known)
			}
		}
	}
	source := s.Source
	if s.Resumed {
		source = port.SourceRestart
	}
	return t.settle(dst, s.Time, source)
}

// Failed marks a namespace's state as stale: a snapshot of it failed. It says
// whether that is new.
func (t *Tracker) Failed(id port.Namespace) bool {
	ns := t.namespace(id)
	was := ns.stale
	ns.stale = true
	return !was
}

// Stale says whether the last snapshot of a namespace failed.
func (t *Tracker) Stale(id port.Namespace) bool {
	ns := t.namespaces[id]
	return ns != nil && ns.stale
}

// Fresh appends to dst the sockets that opened up to a moment and were not in an
// answer before: their processes should be looked up a second time. more says
// that there are younger ones, to be asked for later.
func (t *Tracker) Fresh(dst []Holding, id port.Namespace, until time.Time) (_ []Holding, more bool) {
	ns := t.namespaces[id]
	if ns == nil {
		return dst, false
	}
	for _, s := range ns.sockets {
		switch {
		case !s.fresh || s.endpoint == nil:
		case s.opened.After(until):
			more = true
		default:
			s.fresh = false
			dst = append(dst, s.holding(id))
		}
	}
	return dst, more
}

// Reconsider forgets the sockets of a namespace that belonged to nobody, so
// that their owners are asked for again: the set of containers has changed.
func (t *Tracker) Reconsider(id port.Namespace) {
	ns := t.namespaces[id]
	if ns == nil {
		return
	}
	for cookie, s := range ns.sockets {
		if s.endpoint == nil {
			delete(ns.sockets, cookie)
		}
	}
}

// UpdateContainer replaces the description of a container (renamed, other
// networks) for the changes to come.
func (t *Tracker) UpdateContainer(c *port.Container) {
	for _, e := range t.endpoints {
		if e.key.Container == c.ID {
			e.container = c
		}
	}
}

// CloseContainer closes the endpoints of a container that has ended.
func (t *Tracker) CloseContainer(dst []Change, id string, at time.Time, source port.Source) []Change {
	for _, ns := range t.namespaces {
		for _, s := range ns.sockets {
			if s.endpoint != nil && s.endpoint.key.Container == id {
				t.removeSocket(ns, s)
			}
		}
	}
	return t.settle(dst, at, source)
}

// Drop forgets endpoints without a change: they are not to be reported any
// more. Their sockets are of no interest until [Tracker.Reconsider].
func (t *Tracker) Drop(which func(port.Endpoint) bool) {
	for key, e := range t.endpoints {
		if !which(key) {
			continue
		}
		t.revision++
		for _, s := range e.sockets {
			s.endpoint = nil
		}
		delete(t.endpoints, key)
	}
}

// CloseNamespace closes all that is left in a namespace and forgets it.
func (t *Tracker) CloseNamespace(dst []Change, id port.Namespace, at time.Time, source port.Source) []Change {
	ns := t.namespaces[id]
	if ns == nil {
		return dst
	}
	for _, s := range ns.sockets {
		t.removeSocket(ns, s)
	}
	delete(t.namespaces, id)
	return t.settle(dst, at, source)
}

// Expire reports the endpoints whose close grace has run out.
func (t *Tracker) Expire(dst []Change, now time.Time) []Change {
	length := len(dst)
	for _, e := range t.endpoints {
		if !e.closedAt.IsZero() && now.Sub(e.closedAt) >= t.grace {
			dst = append(dst, e.change(port.Closed, e.closedAt, e.closedBy))
			delete(t.endpoints, e.key)
		}
	}
	sortChanges(dst[length:])
	return dst
}

// NextExpiry returns when [Tracker.Expire] has something to do next, false if
// no close grace is running.
func (t *Tracker) NextExpiry() (time.Time, bool) {
	var next time.Time
	if t.grace == 0 {
		return next, false
	}
	for _, e := range t.endpoints {
		if at := e.closedAt.Add(t.grace); !e.closedAt.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, !next.IsZero()
}

// Open returns what is open now, ordered by endpoint, as opened changes.
func (t *Tracker) Open() []Change {
	return t.openWhere(func(*endpoint) bool { return true })
}

// OpenIn is Open for the endpoints of one namespace.
func (t *Tracker) OpenIn(id port.Namespace) []Change {
	return t.openWhere(func(e *endpoint) bool { return e.namespace == id })
}

func (t *Tracker) openWhere(which func(*endpoint) bool) []Change {
	var open []Change
	for _, e := range t.endpoints {
		if e.closedAt.IsZero() && which(e) {
			open = append(open, e.change(port.Opened, e.openedAt, e.source))
		}
	}
	sortChanges(open)
	return open
}

func sortChanges(changes []Change) {
	slices.SortStableFunc(changes, func(a, b Change) int { return a.Endpoint.Compare(b.Endpoint) })
}
