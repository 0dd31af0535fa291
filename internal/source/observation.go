package source

import (
	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/freelist"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/tracker"
)

// Observation is what a source sends to the capture: one of the types below.
type Observation interface{ observation() }

// SessionOpened reports that a watcher has opened its namespace.
type SessionOpened struct {
	Watcher *Watcher
	// Source is that of its snapshots.
	Source model.Source
	// NetnsCookie is the namespace's in eBPF's events; 0 where it is not known.
	NetnsCookie uint64
	// Destroy means that destroy notifications are received. WithoutDestroy is why they are
	// not although they could be; else empty.
	Destroy        bool
	WithoutDestroy string
}

// SessionClosed reports that a watcher has closed its namespace, to open it again or
// to end.
type SessionClosed struct{ Watcher *Watcher }

// Failed reports that a watcher could not read its namespace. It tries again.
type Failed struct {
	Watcher *Watcher
	Err     error
}

// WatcherEnded reports that a watcher sends nothing more.
type WatcherEnded struct{ Watcher *Watcher }

// Scan is a snapshot of a namespace, and the question which of its sockets need an owner.
// Where the capture applies the snapshot it leaves Unknown empty; otherwise the watcher
// resolves the owners of the unknown sockets and sends the scan again, Resolved. The answer
// to that has the sockets that the capture ignores: they have closed since, or their owners
// were not found.
type Scan struct {
	reply
	Watcher  *Watcher
	Snapshot tracker.Snapshot
	// Resolved means that Snapshot.New has the owners.
	Resolved bool
	// Epoch is that of the [Members] by which the owners were resolved.
	Epoch uint64

	// Unknown is the answer: indices into Snapshot.Sockets, whose memory is reused.
	Unknown []int
}

// Closes are destroy notifications of a namespace, in the order in which they came.
type Closes struct {
	reply
	Watcher *Watcher
	// Time is when they were read.
	Time clock.Instant
	List []Close
	// Overrun means that the kernel dropped notifications before the list was read;
	// Lost is their number, 0 where that is not known.
	Overrun bool
	Lost    uint64
}

// Close is a socket that was destroyed.
type Close struct {
	// Socket has cookie, protocol, address and port.
	Socket model.Socket
	// Server means that it may have served: not every notification distinguishes a server's
	// port from a client's; see [Watcher.listened].
	Server bool
}

// Fact is a report of eBPF about a socket, with its process as it was right after.
type Fact struct {
	probe.Event
	Processes []model.Process
}

// Facts are reports of eBPF, in the order in which they happened. The capture returns the
// value by [Facts.Release].
type Facts struct {
	List []Fact
	// Cgroups has the known paths of the facts' cgroups.
	Cgroups *CgroupPaths
	free    freelist.List[Facts]
}

// Counts are openings and closings that eBPF counted.
type Counts struct {
	List    []Count
	Cgroups *CgroupPaths
}

// Count is one entry of what eBPF counted, with the process of the last opening.
type Count struct {
	probe.Count
	Processes []model.Process
}

// Loss is a number of openings and closings that eBPF could neither record nor
// count, and of which the container is not known.
type Loss struct{ Count uint64 }

// Malformed reports that a record of eBPF could not be decoded.
type Malformed struct{}

// ProbeState reports that the reading of eBPF begins or has ended.
type ProbeState struct {
	Reader *Reader // nil where it has ended
	Err    error   // why it has ended
	// HostCookie is the cookie of the host's network namespace; 0 where it is not known.
	HostCookie uint64
}

// ContainerChange is a change that the engine reported, with the network namespace of the
// container.
type ContainerChange struct {
	engine.Change
	// Namespace is the network namespace of a Started or Updated container; zero where
	// Err reports why it is not known.
	Namespace model.Namespace
	// Host means that it is the host's own.
	Host bool
	// Interfaces are those of the namespace; see [exposure.Namespace].
	Interfaces Interfaces
	// Ended means that the process is not there: the container is about to be stopped.
	Ended bool
	Err   error
	// Late, of a Stopped or Passed, means that reports of the kernel about the container may
	// follow.
	Late bool
}

// EngineInfo is the engine's information about itself.
type EngineInfo struct{ engine.Info }

// EngineEnded reports that the engine is not followed any more.
type EngineEnded struct{ Err error }

// WatcherOf asks for the watcher of a container's namespace: nil where none runs.
type WatcherOf struct {
	reply
	ID      string
	Watcher *Watcher
}

// Fresh asks for the sockets that opened up to a moment and whose processes need a second
// lookup.
type Fresh struct {
	reply
	Watcher *Watcher
	Until   clock.Instant

	Holdings []tracker.Holding
	// More means that there are younger ones.
	More bool
}

// Holders asks for the processes that hold open endpoints.
type Holders struct {
	reply
	Recorded []attribute.Recorded
}

// Holdings asks for all sockets of the endpoints that one of PIDs holds; of all
// endpoints where PIDs is nil.
type Holdings struct {
	reply
	PIDs     map[int]struct{}
	Holdings []tracker.Holding
}

// Held has the processes that hold sockets now.
type Held struct {
	Lookup tracker.Lookup
	// Ending are the ids of containers whose first process is about to end: which of its
	// processes hold a port for that moment is no change.
	Ending map[string]bool
	// Watcher is nil where the check of all holders did the lookup.
	Watcher *Watcher
}

func (SessionOpened) observation()    {}
func (SessionClosed) observation()    {}
func (Failed) observation()           {}
func (WatcherEnded) observation()     {}
func (*Facts) observation()           {}
func (*Counts) observation()          {}
func (Loss) observation()             {}
func (Malformed) observation()        {}
func (ProbeState) observation()       {}
func (*ContainerChange) observation() {}
func (EngineInfo) observation()       {}
func (EngineEnded) observation()      {}
func (*Held) observation()            {}

// Release returns the memory to the reader. The facts must not be used afterwards.
func (f *Facts) Release() {
	clear(f.List)
	f.List = f.List[:0]
	f.free.Give(f)
}

// CgroupPaths are paths of cgroups by their ids. A value is immutable.
type CgroupPaths struct{ paths map[uint64]string }

// NewCgroupPaths returns paths by the ids of their cgroups. It keeps the map.
func NewCgroupPaths(paths map[uint64]string) *CgroupPaths { return &CgroupPaths{paths} }

// Path returns a cgroup's path, "" where it is not known.
func (c *CgroupPaths) Path(id uint64) string {
	if c == nil {
		return ""
	}
	return c.paths[id]
}

// Gone reports whether a cgroup had ended before its path could be read.
func (c *CgroupPaths) Gone(id uint64) bool {
	if c == nil {
		return false
	}
	path, read := c.paths[id]
	return read && path == ""
}
