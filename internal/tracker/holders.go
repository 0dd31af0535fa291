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

// Lookup is an answer to the question who holds sockets now.
type Lookup struct {
	// Began is when it was asked for, Time when the answer was there.
	Began, Time clock.Instant
	Source      model.Source
	// Incomparable says that the processes are numbered otherwise than those of
	// exact facts: they replace what is known, and no change is reported.
	Incomparable bool
	// Holdings have the processes that were found. A socket of which none was
	// found keeps the last known.
	Holdings []Holding
}

// Fresh appends to dst the sockets that opened up to a moment and were not in an
// answer before: their processes should be looked up a second time. more reports
// that there are younger ones, to be asked for later.
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

// Holdings appends to dst all sockets of the endpoints that one of some
// processes holds, as far as is known; nil stands for every process, and for
// none.
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

// holding is for sockets of an endpoint only.
func (s *socket) holding() Holding {
	return Holding{
		Namespace: s.namespace.id, Container: s.endpoint.container, Cookie: s.Cookie, Inode: s.Inode, Processes: s.processes,
	}
}

// Held takes the answer to a lookup. Where none of the processes that an
// endpoint was last reported with is left, it appends a changed: another process
// holds the endpoint. It passes over sockets that are not known any more, and
// those that a later lookup has answered.
func (t *Tracker) Held(dst []Change, l Lookup) []Change {
	// The first lookup of what an earlier run left finds what happened meanwhile.
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
			t.learn(s, l.Holdings[i].Processes)
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

// learn replaces what is known of the processes that hold a socket.
func (t *Tracker) learn(s *socket, processes []model.Process) {
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
	same := func(s *socket) bool {
		return len(s.processes) == len(first) && (len(first) == 0 || &s.processes[0] == &first[0])
	}
	if !slices.ContainsFunc(e.sockets, func(s *socket) bool { return !same(s) }) {
		return first
	}
	var all []model.Process
	for _, s := range e.sockets {
		all = append(all, s.processes...)
	}
	slices.SortStableFunc(all, func(a, b model.Process) int { return a.PID - b.PID })
	return slices.CompactFunc(all, func(a, b model.Process) bool { return a.PID == b.PID })
}

// takenOver reports that the endpoint certainly has another owner than was
// reported: who holds it is known of each socket, and no process is the same. A
// process that has become another program (exec) is the same.
func (e *endpoint) takenOver() bool {
	unknown := func(s *socket) bool { return len(s.processes) == 0 }
	if len(e.reportedProcesses) == 0 || slices.ContainsFunc(e.sockets, unknown) {
		return false
	}
	return !slices.ContainsFunc(e.processes, func(p model.Process) bool {
		return slices.ContainsFunc(e.reportedProcesses, func(q model.Process) bool { return p.PID == q.PID })
	})
}
