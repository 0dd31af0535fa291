package tracker

import (
	"slices"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Holding is a socket of an endpoint, with the processes that hold it.
type Holding struct {
	Namespace model.Namespace
	Container *model.Container // of the endpoint
	Cookie    uint64
	Inode     uint32 // 0 where it is not known: then no process can be found by it
	Processes []model.Process
}

// Lookup is the result of a lookup of the processes that hold sockets.
type Lookup struct {
	// Began is when the lookup began, Time when it ended.
	Began, Time clock.Instant
	Source      model.Source
	// Incomparable means that the pids are those of another pid namespace than the pids of
	// exact facts: the processes replace the known ones, and no change is reported.
	Incomparable bool
	// Holdings have the processes that were found. A socket without a found process keeps
	// the last known ones.
	Holdings []Holding
}

// Fresh appends to dst the sockets that opened up to a moment and were not in a result
// of Fresh before: their processes need a second lookup. more reports whether there are
// younger ones, for a later call.
func (t *Tracker) Fresh(dst []Holding, id model.Namespace, until clock.Instant) (_ []Holding, more bool) {
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
			dst = append(dst, s.holding())
		}
	}
	return dst, more
}

// Holders calls f for each process of each endpoint that is open.
func (t *Tracker) Holders(f func(*model.Process)) {
	for _, e := range t.endpoints {
		if len(e.sockets) == 0 {
			continue
		}
		for i := range e.processes {
			f(&e.processes[i])
		}
	}
}

// Holdings appends to dst all sockets of the endpoints that a process holds for which
// held returns true; of all endpoints where held is nil.
func (t *Tracker) Holdings(dst []Holding, held func(pid int) bool) []Holding {
	for _, e := range t.endpoints {
		by := func(p model.Process) bool { return held(p.PID) }
		if held != nil && !slices.ContainsFunc(e.processes, by) {
			continue
		}
		for _, s := range e.sockets {
			dst = append(dst, s.holding())
		}
	}
	return dst
}

// holding needs a socket of an endpoint.
func (s *socket) holding() Holding {
	return Holding{
		Namespace: s.namespace.id, Container: s.endpoint.container, Cookie: s.Cookie, Inode: s.Inode, Processes: s.processes,
	}
}

// Held applies the result of a lookup. Where none of the last reported processes of an
// endpoint is left, it appends a changed. It ignores sockets that are not known any more,
// and those of which a later lookup was applied.
func (t *Tracker) Held(dst []Change, l Lookup) []Change {
	// The first lookup of restored endpoints finds what happened meanwhile.
	for _, recalled := range []bool{true, false} {
		source := l.Source
		if recalled {
			source = model.SourceRestart
		}
		for i := range l.Holdings {
			s := t.socketOf(&l.Holdings[i])
			if s == nil || l.Began.Before(s.lookup) || (s.endpoint != nil && s.endpoint.recalled) != recalled {
				continue
			}
			s.lookup = l.Began
			t.setProcesses(s, l.Holdings[i].Processes)
			if l.Incomparable && s.endpoint != nil {
				s.endpoint.reportedProcesses = nil
			}
		}
		dst = t.settle(dst, l.Time, source)
	}
	for i := range l.Holdings {
		if s := t.socketOf(&l.Holdings[i]); s != nil && s.endpoint != nil {
			s.endpoint.recalled = false
		}
	}
	return dst
}

func (t *Tracker) socketOf(h *Holding) *socket {
	ns := t.namespaces[h.Namespace]
	if ns == nil {
		return nil
	}
	return ns.sockets[h.Cookie]
}

// setProcesses replaces the processes that hold a socket, unless none is known.
func (t *Tracker) setProcesses(s *socket, processes []model.Process) {
	if len(processes) == 0 || slices.EqualFunc(s.processes, processes, sameProcess) {
		return
	}
	s.processes = processes
	if s.endpoint != nil {
		t.touch(s.endpoint)
	}
}

func sameProcess(a, b model.Process) bool {
	sameUser := a.UID == b.UID || a.UID != nil && b.UID != nil && *a.UID == *b.UID
	a.UID, b.UID = nil, nil
	return sameUser && a == b
}

// holders is the union of the sockets' processes, ordered by pid.
func (e *endpoint) holders() []model.Process {
	first := e.sockets[0].processes
	other := func(s *socket) bool {
		return len(s.processes) != len(first) || len(first) > 0 && &s.processes[0] != &first[0]
	}
	if !slices.ContainsFunc(e.sockets, other) {
		return first
	}
	lists := make([][]model.Process, len(e.sockets))
	for i, s := range e.sockets {
		lists[i] = s.processes
	}
	return model.MergeProcesses(lists...)
}

// changedOwner reports whether the endpoint certainly has another owner than reported:
// the holders of each socket are known, and no process is the same. A process is the
// same after exec.
func (e *endpoint) changedOwner() bool {
	unknown := func(s *socket) bool { return len(s.processes) == 0 }
	return len(e.reportedProcesses) > 0 && !slices.ContainsFunc(e.sockets, unknown) && !model.ShareProcess(e.processes, e.reportedProcesses)
}
