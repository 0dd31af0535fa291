package tracker

import (
	"cmp"
	"slices"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

type socket struct {
	model.Socket
	namespace  *namespace
	endpoint   *endpoint // nil if the socket is of no interest
	count      *count    // whose stand-in it is; nil if it is no stand-in
	opened     clock.Instant
	processes  []model.Process
	generation uint64        // of the last snapshot that had it
	settled    bool          // part of the last report of its endpoint
	exact      bool          // opened is exact
	restored   bool          // no snapshot has had it yet
	fresh      bool          // its processes were not looked up a second time
	lookup     clock.Instant // when the last lookup of its processes began
}

// endpoint has at least one socket, or its close grace runs.
type endpoint struct {
	key       model.Endpoint
	owner     *container
	namespace model.Namespace
	in        *namespace // nil when that is closed
	container *model.Container
	sockets   []*socket
	// processes hold it, as far as is known; reportedProcesses are those of the last
	// change, or the first known where that had none.
	processes, reportedProcesses []model.Process
	left                         bool // a socket has gone since the last settle
	ipv6Only                     bool
	source                       model.Source
	openedAt                     clock.Instant

	reported bool // an opened change has been made
	restored bool // it was open before the first snapshot of its namespace
	recalled bool // its processes are those of an earlier run
	dirty    bool
	// closedAt and closedBy are of the last socket while the close grace runs;
	// expiry is then the position in Tracker.waiting plus one, else 0.
	closedAt clock.Instant
	closedBy model.Source
	expiry   int
}

func (t *Tracker) addSocket(ns *namespace, observed model.Socket, owner Owner, at clock.Instant) *socket {
	s := &socket{Socket: observed, namespace: ns, opened: at, processes: owner.Processes, fresh: true}
	ns.sockets[s.Cookie] = s
	if owner.Container == nil {
		return s
	}
	key := ns.endpointOf(&observed, owner.Container)
	e := t.endpoints[key]
	if e == nil {
		e = &endpoint{key: key}
		t.add(e)
	}
	e.container = owner.Container
	e.sockets = append(e.sockets, s)
	s.endpoint = e
	t.touch(e)
	return s
}

func (t *Tracker) removeSocket(s *socket) {
	delete(s.namespace.sockets, s.Cookie)
	if s.count != nil {
		s.count.dropStandIn()
	}
	e := s.endpoint
	if e == nil {
		return
	}
	i := slices.Index(e.sockets, s)
	e.sockets = slices.Delete(e.sockets, i, i+1)
	e.left = true
	t.touch(e)
}

func (t *Tracker) touch(e *endpoint) {
	t.revise(e.owner)
	if !e.dirty {
		e.dirty = true
		t.dirty = append(t.dirty, e)
	}
}

// settle compares each touched endpoint with its last report, and appends the changes
// in the order of endpoints.
func (t *Tracker) settle(dst []Change, at clock.Instant, source model.Source) []Change {
	slices.SortFunc(t.dirty, func(a, b *endpoint) int { return a.key.Compare(b.key) })
	for _, e := range t.dirty {
		e.dirty = false
		dst = t.settleEndpoint(dst, e, at, source)
	}
	clear(t.dirty)
	t.dirty = t.dirty[:0]
	return dst
}

func (t *Tracker) settleEndpoint(dst []Change, e *endpoint, at clock.Instant, source model.Source) []Change {
	if e.unconfirmed() {
		return dst // the first snapshot shows whether it was open all the time
	}
	left := e.left && !e.replaced()
	e.left = false
	if len(e.sockets) == 0 {
		return t.close(dst, e, at, source)
	}
	opened := at
	if e.reported && !e.isWaiting() && e.replaced() && t.grace == 0 {
		closed := max(at, e.openedAt)
		dst = append(dst, e.change(model.Closed, closed, source))
		e.reported = false
		opened = max(closed, e.firstOpened())
	}
	t.wake(e)
	e.refresh()
	switch {
	case !e.reported:
		e.reported, e.openedAt, e.source, e.reportedProcesses = true, opened, source, e.processes
		return append(dst, e.change(model.Opened, opened, source))
	case len(e.reportedProcesses) == 0, left:
		e.reportedProcesses = e.processes
	case e.changedOwner():
		e.source, e.reportedProcesses = source, e.processes
		return append(dst, e.change(model.Changed, at, source))
	}
	return dst
}

// close ends an endpoint without sockets. An endpoint that a snapshot has shown does not
// close before that snapshot, however exact the fact.
func (t *Tracker) close(dst []Change, e *endpoint, at clock.Instant, source model.Source) []Change {
	at = max(at, e.openedAt)
	switch {
	case !e.reported: // opened and gone within one observation
		t.forget(e)
	case e.isWaiting():
	case t.grace > 0:
		t.wait(e, at, source)
	default:
		dst = append(dst, e.change(model.Closed, at, source))
		t.forget(e)
	}
	return dst
}

func (e *endpoint) change(kind model.Type, at clock.Instant, source model.Source) Change {
	return Change{
		Type: kind, Time: at, Source: source, Endpoint: e.key, Namespace: e.namespace,
		Container: e.container, Processes: e.processes, IPv6Only: e.ipv6Only, OpenedAt: e.openedAt,
	}
}

// replaced reports whether no socket of the last report is left: the endpoint was closed
// for a moment, and opened again.
func (e *endpoint) replaced() bool {
	return !slices.ContainsFunc(e.sockets, func(s *socket) bool { return s.settled })
}

// setSettled makes the present sockets part of the last report (the endpoint was not
// closed in between, or that is accounted for), or takes them out of it (the endpoint was
// closed before it had them).
func (e *endpoint) setSettled(settled bool) {
	for _, s := range e.sockets {
		s.settled = settled
	}
}

func (e *endpoint) firstOpened() clock.Instant {
	return slices.MinFunc(e.sockets, func(a, b *socket) int { return cmp.Compare(a.opened, b.opened) }).opened
}

// refresh updates an endpoint from its sockets. Where no process is known any
// more, the last known stay.
func (e *endpoint) refresh() {
	if holders := e.holders(); len(holders) > 0 || !e.reported {
		e.processes = holders
	}
	e.locate(e.sockets[len(e.sockets)-1].namespace)
	e.setSettled(true)
	e.ipv6Only = !slices.ContainsFunc(e.sockets, func(s *socket) bool { return !s.IPv6Only })
}
