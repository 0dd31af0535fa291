package model

import (
	"slices"
	"time"
)

// View is the state of the capture at one moment. It is immutable: readers share it,
// and must not change what it refers to.
type View struct {
	// Version rises with each change of the fields below.
	Version uint64
	// Time is when the view was made, in UTC.
	Time time.Time
	// Open are the open endpoints, ordered by container name, port, protocol and
	// address.
	Open []Open
	// Containers are all running containers, monitored or not, ordered by name.
	Containers []ContainerState
	// Drifts are the open drifts, ordered by target, port, protocol, kind and exposure.
	// Expecting means that there is a file of expectations, or a label of a container: else
	// nothing is judged.
	Drifts    []OpenDrift
	Expecting bool
	Status    CaptureStatus
	Counters  Counters
}

// Named reports whether a running container has this name; it is a [Names].
func (v *View) Named(name string) bool {
	return slices.ContainsFunc(v.Containers, func(c ContainerState) bool { return c.Name == name })
}

// Counters count since the start.
type Counters struct {
	// Events counts events by type and source.
	Events map[EventKind]uint64
	// BurstOpened and BurstClosed are the sums of all bursts' counts.
	BurstOpened, BurstClosed uint64
	// Detection has, for each source that observes the exact moment of a change, the
	// time from that moment to its event.
	Detection map[Source]Distribution
	// Pipeline counts openings and closings at each stage that they pass.
	Pipeline []Stage
}

// EventKind is a type of event with the source that observed it. The source is
// empty for a gap.
type EventKind struct {
	Type   Type
	Source Source
}

// Distribution is a histogram of durations.
type Distribution struct {
	// Counts has the number of durations up to each of [DetectionBounds], each duration
	// counted at its lowest bound only, and last the number of those above all bounds.
	Counts []uint64
	// Sum is in seconds.
	Sum float64
}

// DetectionBounds are the upper bounds of Distribution.Counts, in seconds.
var DetectionBounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Stage is a stage of the pipeline that openings and closings pass. In a stage that
// balances, In is the sum of Out, Counted, Held, Dropped and Lost.
type Stage struct {
	// Name is kernel, facts (of eBPF, one by one), counts (of eBPF), notifications (of the
	// closing of sockets), changes (of endpoints), bursts, or the name of a sink.
	Name string
	// In entered the stage. Out left it one by one, Counted in a count; Held has not left
	// it yet. Dropped was of no interest (not monitored, not selected, known already).
	// Lost was lost, and gaps report it.
	In, Out, Counted, Held, Dropped, Lost uint64
}

// ContainerState is a running container and how it is watched. It is immutable.
type ContainerState struct {
	*Container
	// Monitored means that the container is selected.
	Monitored bool
	// Namespace is the container's network namespace; zero where it could not be
	// identified.
	Namespace Namespace
	// Source reports new endpoints there at present; empty where nothing does.
	Source Source
	// LastScan is when the namespace was last scanned with success, in UTC; zero before
	// the first time.
	LastScan time.Time
	// Stale means that the last scan failed: the state may be out of date.
	Stale bool
}

// CaptureStatus is the condition of the capture.
type CaptureStatus struct {
	// Host is the name of this host in events; empty until it is known.
	Host string
	// StartedAt is when the capture began, in UTC.
	StartedAt time.Time
	Engine    EngineStatus
	Source    SourceStatus
	// Watchers has one entry for each namespace that is watched.
	Watchers []WatcherStatus
	// Gaps is the number of gap events, Overruns how often the kernel dropped reports that
	// were not read in time, and Lost how many events a sink's queue dropped; since the
	// start.
	Gaps     uint64
	Overruns uint64
	Lost     uint64
	// Queues are the sinks' queues.
	Queues []QueueStatus
}

// EngineStatus is the condition of the connection to the Docker Engine.
type EngineStatus struct {
	Connected bool
	// Since is when it was connected, or when the connection was lost, in UTC.
	Since   time.Time
	Address string
	Name    string
	Version string
	// Reconnects is how often the connection was made again.
	Reconnects uint64
	// Error is why it is not connected; empty while it is.
	Error string
}

// SourceStatus names the sources in use.
type SourceStatus struct {
	// Wanted is the setting: auto, ebpf, netlink or proc.
	Wanted string
	// EBPF means that eBPF reports every change on this host.
	EBPF bool
	// Destroy means that destroy notifications are received in every namespace that is
	// watched.
	Destroy bool
}

// WatcherStatus is the condition of one namespace that is watched.
type WatcherStatus struct {
	Namespace Namespace
	// Name is the namespace as /proc shows it, "net:[4026531840]".
	Name string
	// Host means that it is the host's own.
	Host    bool
	Source  Source
	Destroy bool
	// Reason is why destroy notifications are not received although they could be.
	Reason string
	// LastScan is when it was last scanned with success, in UTC.
	LastScan time.Time
	Stale    bool
	// Containers are the names of the monitored ones, sorted.
	Containers []string
}

// QueueStatus is the fill of the queue in front of one sink.
type QueueStatus struct {
	// Name is the sink: output, journal or live.
	Name string
	// Length is how many events wait, of Capacity.
	Length   int
	Capacity int
	// Dropped is how many it did not take since the start.
	Dropped uint64
}
