// Package api holds the answers of the HTTP API as Go types, shared by the
// server and its clients. openapi.yaml of the server describes the same to
// everyone else.
//
// Times are RFC 3339 in UTC, to the nanosecond. Fields are added, never
// renamed; a client ignores those that it does not know.
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
)

// Status is the answer of [PathStatus].
type Status struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"`
	// NotReady is why Ready is false.
	NotReady string `json:"not_ready,omitempty"`
	model.CaptureStatus
	// Namespaces is how many are watched, Containers how many are monitored,
	// Ports how many endpoints are open.
	Namespaces int     `json:"namespaces"`
	Containers int     `json:"containers"`
	Ports      int     `json:"ports"`
	Journal    Journal `json:"journal"`
	Streams    Streams `json:"streams"`
}

// Journal tells of the record of events.
type Journal struct {
	// Path is the database file; empty where it is in memory.
	Path     string `json:"path,omitempty"`
	InMemory bool   `json:"in_memory"`
	// FirstID and LastID are those of the events that are kept; both 0 where
	// none is.
	FirstID uint64 `json:"first_id"`
	LastID  uint64 `json:"last_id"`
	// LagSeconds is the age of the oldest event that is not recorded yet.
	LagSeconds float64 `json:"lag_seconds"`
	SizeBytes  int64   `json:"size_bytes"`
	// Queued is how many events wait to be recorded, of Capacity.
	Queued   int `json:"queued"`
	Capacity int `json:"capacity"`
	// Written is how many events were recorded since the start, and Dropped how
	// many the queue could not take.
	Written uint64 `json:"written"`
	Dropped uint64 `json:"dropped"`
	// Error is why nothing can be recorded at present.
	Error string `json:"error,omitempty"`
}

// Streams tells of the readers of the event stream.
type Streams struct {
	Open int `json:"open"`
	// Most is how many there can be at one time.
	Most int `json:"most"`
	// CutOff is how many were ended because they read too slowly, since the
	// start.
	CutOff uint64 `json:"cut_off"`
}

// Containers is the answer of [PathContainers].
type Containers struct {
	Containers []Container `json:"containers"`
}

// Container is a running container, with what it declares beside what listens.
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
	// Namespace is the network namespace as /proc shows it.
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
	// Listening says that something that is not bound to the loopback alone
	// listens there.
	Listening bool `json:"listening"`
}

// Undeclared is a port where something listens and that is neither exposed nor
// published.
type Undeclared struct {
	Protocol  model.Protocol `json:"protocol"`
	Port      uint16         `json:"port"`
	Addresses []netip.Addr   `json:"addresses"`
}

// Ports is the answer of [PathPorts].
type Ports struct {
	// Time is when this was so.
	Time  time.Time    `json:"time"`
	Ports []model.Open `json:"ports"`
	// Watching belongs to answers about a time in the past: false says that
	// portwatcher did not run then, so that what was open may differ.
	Watching *bool `json:"watching,omitempty"`
}

// Events is one page of [PathEvents].
type Events struct {
	// Events have rising ids.
	Events []*model.Event `json:"events"`
	// FirstID and LastID are those of all events that are kept.
	FirstID uint64 `json:"first_id"`
	LastID  uint64 `json:"last_id"`
	// Next is the path and query of the next page: of newer events where after=
	// was asked for, of older ones otherwise. It is empty at the end.
	Next string `json:"next,omitempty"`
}

// MediaTypeStream and MediaTypeProblem are what the API answers with beside
// application/json.
const (
	MediaTypeStream  = "text/event-stream"
	MediaTypeProblem = "application/problem+json"
)

// The events of the stream that are not events of a port.
const (
	StreamHello = "hello" // the first; data is a Hello
	StreamReset = "reset" // the wanted id is not there any more; data is a Reset
	StreamEnd   = "end"   // the last, before the server closes; data is an End
)

// Hello begins a stream.
type Hello struct {
	LastID  uint64 `json:"last_id"`
	Host    string `json:"host,omitempty"`
	Version string `json:"version"`
}

// Reset says that events between the wanted id and FirstID are missing, or
// that the wanted id belongs to another journal. The stream goes on at FirstID:
// a client that keeps state drops it and asks for it anew.
type Reset struct {
	FirstID uint64 `json:"first_id"`
	LastID  uint64 `json:"last_id"`
}

// End says why the server ends a stream, and which id to send as Last-Event-ID
// in order to go on without a hole or a repeat.
type End struct {
	ResumeAfter uint64 `json:"resume_after"`
	Reason      string `json:"reason"`
}

// Problem is every error of the API, as RFC 9457 describes it.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what was wrong, and what is allowed.
	Detail string `json:"detail,omitempty"`
	// Parameter is the query parameter that is wrong, and Value what it was.
	Parameter string `json:"parameter,omitempty"`
	Value     string `json:"value,omitempty"`
	// Allowed are the parameters that the address knows, where an unknown one
	// was given.
	Allowed []string `json:"allowed,omitempty"`
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}
