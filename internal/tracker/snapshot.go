package tracker

import (
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Snapshot is all sockets of a namespace at one moment.
type Snapshot struct {
	// Began is when the dump began, Time when it ended.
	Began, Time clock.Instant
	Source      model.Source
	Sockets     []model.Socket
	// Resumed means that nothing was observed for a while: the differences to the state
	// have the source [model.SourceRestart].
	Resumed bool
	// New has the owners of the sockets that [Tracker.Unknown] returned, by index in
	// Sockets. A new socket that is missing here is ignored until a later snapshot.
	New map[int]Owner
}

// Unknown appends to dst the indices of the sockets that are new, and whose owner the
// tracker needs; none where the namespace is not open. A socket with a cookie made from
// its inode gets the kernel's cookie if that is known. Unknown allocates nothing where
// all sockets are known by their cookies.
func (t *Tracker) Unknown(dst []int, id model.Namespace, sockets []model.Socket) []int {
	ns := t.namespaces[id]
	if ns == nil {
		return dst
	}
	ns.identify(sockets)
	for i := range sockets {
		if known := ns.sockets[sockets[i].Cookie]; known == nil || !known.samePlace(&sockets[i]) {
			dst = append(dst, i)
		}
	}
	return dst
}

// Snapshot compares a complete snapshot with the state, and appends the changes to dst.
// It allocates nothing where nothing changed.
func (t *Tracker) Snapshot(dst []Change, id model.Namespace, s Snapshot) []Change {
	ns := t.namespaces[id]
	if ns == nil {
		return dst
	}
	ns.stale = false
	ns.generation++
	ns.began = s.Began
	ns.identify(s.Sockets)
	seen := 0
	for i := range s.Sockets {
		observed := &s.Sockets[i]
		known := ns.sockets[observed.Cookie]
		if known != nil && !known.samePlace(observed) {
			t.removeSocket(known)
			known = nil
		}
		if known == nil {
			owner, ok := s.New[i]
			if !ok || ns.outdates(observed, s.Began) {
				ns.passOver(observed)
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
			if known.generation != ns.generation && known.count == nil && known.settledBefore(s.Began) {
				ns.ended.add(known.Cookie, ending{at: s.Time})
				if known.endpoint != nil {
					t.vanished++
				}
				t.closeSocket(known, s.Time)
			}
		}
	}
	if len(ns.counts) > 0 {
		t.reviewCounts(ns, &s)
	}
	source := s.Source
	if s.Resumed {
		source = model.SourceRestart
	}
	return t.settle(dst, s.Time, source)
}

// samePlace reports whether a socket is where it was: a socket that is shut down can
// listen again elsewhere, with the same cookie.
func (s *socket) samePlace(other *model.Socket) bool {
	return s.Port == other.Port && s.Protocol == other.Protocol && s.Address == other.Address
}

// settledBefore reports whether a snapshot that began at this moment must have
// the socket if it is open.
func (s *socket) settledBefore(began clock.Instant) bool {
	if s.exact {
		began = began.Add(-settleTime)
	}
	return !s.opened.After(began)
}

// outdates reports whether a snapshot that began at this moment may show a
// socket that has closed since.
func (ns *namespace) outdates(s *model.Socket, began clock.Instant) bool {
	return ns.ended.outdates(s.Cookie, began) || ns.counted.outdates(placeOf(s), began)
}

// identify gives each socket of a snapshot the cookie by which it is known, where one of
// the two is made from the inode: a source without cookies can observe a namespace beside
// or after a source with cookies.
func (ns *namespace) identify(sockets []model.Socket) {
	var byInode map[uint32]*socket // of the sockets with the kernel's cookies
	for i := range sockets {
		observed := &sockets[i]
		if ns.sockets[observed.Cookie] != nil || observed.Inode == 0 {
			continue
		}
		if !observed.HasMadeUpCookie() {
			ns.rename(observed)
			continue
		}
		if byInode == nil {
			byInode = make(map[uint32]*socket, len(ns.sockets))
			for _, known := range ns.sockets {
				byInode[known.Inode] = known
			}
		}
		if known := byInode[observed.Inode]; known != nil && known.samePlace(observed) {
			observed.Cookie = known.Cookie
		}
	}
}

// rename gives a socket that is known by a cookie made from its inode the kernel's.
func (ns *namespace) rename(observed *model.Socket) {
	known := ns.sockets[model.MadeUpCookie|uint64(observed.Inode)]
	if observed.Inode == 0 || known == nil || !known.samePlace(observed) {
		return
	}
	delete(ns.sockets, known.Cookie)
	known.Cookie = observed.Cookie
	ns.sockets[known.Cookie] = known
}
