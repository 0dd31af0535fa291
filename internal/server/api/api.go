// Package api has the answers of the HTTP API as Go types, for the server and its Go clients.
// The server's openapi.yaml describes the same for everybody else.
//
// Times are RFC 3339 in UTC, to the nanosecond. Fields are added, never renamed; a client ignores
// fields that it does not know.
package api

import (
	"net/netip"
	"time"

	"portwatcher/internal/model"
)

// The paths of the API.
const (
	PathStatus     = "/api/v1/status"
	PathContainers = "/api/v1/containers"
	PathPorts      = "/api/v1/ports"
	PathEvents     = "/api/v1/events"
	PathExplain    = "/api/v1/explain"
	PathDrift      = "/api/v1/drift"
)

// Status is the answer of [PathStatus].
type Status struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"`
	// NotReady is why Ready is false.
	NotReady string `json:"not_ready,omitempty"`
	// Host is the name of this host in events; empty until it is known.
	Host      string    `json:"host,omitempty"`
	StartedAt time.Time `json:"started_at"`
	Engine    Engine    `json:"engine"`
	Source    Source    `json:"source"`
	// Watchers has one entry for each network namespace that is watched.
	Watchers []Watcher `json:"watchers"`
	// Gaps is the number of gap events, Overruns how often the kernel dropped messages that were
	// not read in time, and Lost the number of events that no consumer's queue could take; since
	// the start.
	Gaps     uint64 `json:"gaps"`
	Overruns uint64 `json:"overruns"`
	Lost     uint64 `json:"lost_events"`
	// Queues are the queues of the consumers of events.
	Queues []Queue `json:"queues"`
	// Namespaces is the number of Watchers, Containers of the monitored containers, and Ports of
	// the open endpoints.
	Namespaces int           `json:"namespaces"`
	Containers int           `json:"containers"`
	Ports      int           `json:"ports"`
	Journal    Journal       `json:"journal"`
	Streams    Streams       `json:"streams"`
	Alerts     AlertsSummary `json:"alerts"`
}

// Engine is the connection to the Docker Engine.
type Engine struct {
	Connected bool `json:"connected"`
	// Since is when it was connected, or when the connection was lost.
	Since   time.Time `json:"since,omitzero"`
	Address string    `json:"address"`
	Name    string    `json:"name,omitempty"`
	Version string    `json:"version,omitempty"`
	// Reconnects is how often the connection was made again.
	Reconnects uint64 `json:"reconnects"`
	// Error is why it is not connected; empty while it is.
	Error string `json:"error,omitempty"`
}

// Source is which sources are in use.
type Source struct {
	// Wanted is the setting: auto, ebpf, netlink or proc.
	Wanted string `json:"wanted"`
	// EBPF means that eBPF observes every change on this host, Destroy that destroy notifications
	// are received in every namespace that is watched.
	EBPF    bool `json:"ebpf"`
	Destroy bool `json:"destroy"`
}

// Watcher is one network namespace that is watched.
type Watcher struct {
	// Name is the namespace in the form of /proc, "net:[4026531840]".
	Name string `json:"namespace"`
	// Host means that it is the host's.
	Host    bool         `json:"host"`
	Source  model.Source `json:"source,omitempty"`
	Destroy bool         `json:"destroy"`
	// Reason is why destroy notifications are not received although they could be.
	Reason string `json:"reason,omitempty"`
	// LastScan is when the last scan succeeded; Stale means that a scan has failed since.
	LastScan time.Time `json:"last_scan_at,omitzero"`
	Stale    bool      `json:"stale"`
	// Containers are the names of the monitored containers, sorted.
	Containers []string `json:"containers"`
}

// Queue is the queue of one consumer of events.
type Queue struct {
	// Name is the consumer: output, journal or live.
	Name string `json:"name"`
	// Length is how many events wait, of Capacity.
	Length   int `json:"length"`
	Capacity int `json:"capacity"`
	// Dropped is how many events it had no room for since the start.
	Dropped uint64 `json:"dropped"`
}

// Journal is the state of the record of events.
type Journal struct {
	// Path is the database file; empty where it is in memory.
	Path     string `json:"path,omitempty"`
	InMemory bool   `json:"in_memory"`
	// FirstID and LastID are the ids of the first and the last event that is kept; both 0 where
	// there is none.
	FirstID uint64 `json:"first_id"`
	LastID  uint64 `json:"last_id"`
	// LagSeconds is the age of the oldest event that is not recorded yet.
	LagSeconds float64 `json:"lag_seconds"`
	SizeBytes  int64   `json:"size_bytes"`
	// Queued is how many events wait to be recorded, of Capacity.
	Queued   int `json:"queued"`
	Capacity int `json:"capacity"`
	// Written is how many events were recorded since the start, and Dropped how many the queue
	// had no room for.
	Written uint64 `json:"written"`
	Dropped uint64 `json:"dropped"`
	// Error is why nothing can be recorded at present.
	Error string `json:"error,omitempty"`
}

// Streams counts the readers of the event stream.
type Streams struct {
	Open int `json:"open"`
	// Most is how many there can be at one time.
	Most int `json:"most"`
	// CutOff is how many were disconnected since the start because they read too slowly.
	CutOff uint64 `json:"cut_off"`
}

// Containers is the answer of [PathContainers].
type Containers struct {
	Containers []Container `json:"containers"`
}

// Container is a running container, with what it declares compared with what listens.
type Container struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Image       string       `json:"image,omitempty"`
	Project     string       `json:"project,omitempty"`
	Service     string       `json:"service,omitempty"`
	Monitored   bool         `json:"monitored"`
	NetworkMode string       `json:"network_mode,omitempty"`
	Paused      bool         `json:"paused"`
	Addresses   []netip.Addr `json:"addresses"`
	Declared    []Declared   `json:"declared"`
	Undeclared  []Undeclared `json:"undeclared"`
	// Namespace is the network namespace in the form of /proc.
	Namespace  string       `json:"namespace,omitempty"`
	Source     model.Source `json:"source,omitempty"`
	LastScanAt time.Time    `json:"last_scan_at,omitzero"`
	Stale      bool         `json:"stale"`
}

// Declared is a port that a container exposes (EXPOSE) or publishes.
type Declared struct {
	Protocol model.Protocol `json:"protocol"`
	Port     uint16         `json:"port"`
	// Published are the addresses on the host that forward to it.
	Published []string `json:"published"`
	Exposed   bool     `json:"exposed"`
	// Listening means that something listens there, on more than the loopback.
	Listening bool `json:"listening"`
}

// Undeclared is a port where something listens and that is neither exposed nor published.
type Undeclared struct {
	Protocol  model.Protocol `json:"protocol"`
	Port      uint16         `json:"port"`
	Addresses []netip.Addr   `json:"addresses"`
}

// Ports is the answer of [PathPorts].
type Ports struct {
	// Time is the moment of the list.
	Time  time.Time    `json:"time"`
	Ports []model.Open `json:"ports"`
	// Watching belongs to a list of the past: false means that portwatcher did not run then, so
	// that the list may be wrong.
	Watching *bool `json:"watching,omitempty"`
}

// Drifts is the answer of [PathDrift].
type Drifts struct {
	// Time is the moment of the list.
	Time time.Time `json:"time"`
	// Expecting means that there is a file of expectations, or a label of a container: else
	// nothing is judged, and there is no drift.
	Expecting bool `json:"expecting"`
	// Drifts are those that last, ordered by target and port.
	Drifts []model.OpenDrift `json:"drifts"`
	// History belongs to a request with since= or until=: what lasted at some time between them,
	// those that began last first.
	History []model.DriftPeriod `json:"history,omitempty"`
}

// Events is one page of [PathEvents].
type Events struct {
	// Events have rising ids.
	Events []*model.Event `json:"events"`
	// FirstID and LastID are those of all events that are kept.
	FirstID uint64 `json:"first_id"`
	LastID  uint64 `json:"last_id"`
	// Next is the address of the next page, relative to that of the request (RFC 3986): of newer
	// events with after=, else of older ones. It is empty at the end.
	Next string `json:"next,omitempty"`
}

// The media types of answers other than application/json.
const (
	MediaTypeStream  = "text/event-stream"
	MediaTypeProblem = "application/problem+json"
)

// The messages of a stream that are not events of a port.
const (
	StreamHello = "hello" // the first; the data is a Hello
	StreamReset = "reset" // the requested id is not kept any more; the data is a Reset
	StreamEnd   = "end"   // the last, before the server closes; the data is an End
)

// Hello begins a stream.
type Hello struct {
	LastID  uint64 `json:"last_id"`
	Host    string `json:"host,omitempty"`
	Version string `json:"version"`
}

// Reset means that events between the requested id and FirstID are missing, or that the
// requested id belongs to another journal. The stream continues at FirstID: a client that has
// built a state from events drops it and reads it again.
type Reset struct {
	FirstID uint64 `json:"first_id"`
	LastID  uint64 `json:"last_id"`
}

// End is why the server ends a stream, and the Last-Event-ID with which a client continues
// without a hole or a repeat.
type End struct {
	ResumeAfter uint64 `json:"resume_after"`
	Reason      string `json:"reason"`
}

// Problem is every error of the API, as in RFC 9457.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail is what was wrong, and what is allowed.
	Detail string `json:"detail,omitempty"`
	// Parameter is the query parameter that is wrong, and Value its value.
	Parameter string `json:"parameter,omitempty"`
	Value     string `json:"value,omitempty"`
	// Allowed are the parameters that the path has, where an unknown one was given.
	Allowed []string `json:"allowed,omitempty"`
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}
