// Package truth compares what portwatcher reported with what really happened.
//
// What happened is a list of facts: the workload writes one for each call that
// opens or closes a socket. What was reported is a list of events: the JSON lines
// of portwatcher. A [Ledger] adds the events of each container up, and
// [Ledger.Judge] compares these sums with what happened. [Case.Compare] compares
// single facts with single events. The integration tests, make verify-suite and
// the benchmarks all use it.
//
// It does no I/O. Nothing in it is safe for concurrent use.
package truth

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// Action is what a fact is about.
type Action string

const (
	Opened     Action = "opened"     // a socket can be spoken to
	Closed     Action = "closed"     // its last holder closed the socket
	Held       Action = "held"       // a child process holds an inherited socket
	Terminated Action = "terminated" // kill-port ended a process by SIGTERM
	Killed     Action = "killed"     // kill-port ended a process by SIGKILL
	Summary    Action = "summary"    // many operations in one fact
)

// Fact is something that the workload did to one socket or process. It is one JSON
// line on the workload's standard output; absent fields do not apply.
type Fact struct {
	Action Action `json:"action"`
	// Time is right before the call and After is right after it, in UTC. The change
	// became visible between the two.
	Time     time.Time      `json:"time"`
	After    time.Time      `json:"after"`
	Protocol model.Protocol `json:"protocol,omitzero"`
	Address  netip.Addr     `json:"address,omitzero"`
	Port     uint16         `json:"port,omitempty"`
	// PID is the process, in its own pid namespace. UID is its effective user, and
	// absent for a process that kill-port ended.
	PID int     `json:"pid"`
	UID *uint32 `json:"uid,omitempty"`
	// Cookie is the kernel's identity of the socket. With MPTCP it is that of the
	// socket that the process has, and not of the TCP socket that a dump shows.
	Cookie uint64 `json:"cookie,omitempty"`
	MPTCP  bool   `json:"mptcp,omitempty"`
	// Count is the number of operations of a summary, PerSecond their rate.
	Count     uint64  `json:"count,omitempty"`
	PerSecond float64 `json:"per_second,omitempty"`
}

// ReadFacts reads the output of the workload.
func ReadFacts(output string) ([]Fact, error) {
	var facts []Fact
	for line := range strings.Lines(output) {
		var f Fact
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			return nil, fmt.Errorf("read the workload's line %q: %w", line, err)
		}
		facts = append(facts, f)
	}
	return facts, nil
}

// Endpoint is where the socket is bound. Its container is empty.
func (f *Fact) Endpoint() model.Endpoint {
	return model.Endpoint{Protocol: f.Protocol, Address: f.Address, Port: f.Port}
}

// String returns the name, as in messages.
func (f *Fact) String() string {
	return fmt.Sprintf("%s %d/%s on %s", f.Action, f.Port, f.Protocol, f.Address)
}

// clockPrecision bounds the difference between the kernel's clock, converted to wall
// time, and a program's.
const clockPrecision = 2 * time.Millisecond

// holds reports whether the change may have become visible at this time.
func (f *Fact) holds(at time.Time) bool {
	return !at.Before(f.Time.Add(-clockPrecision)) && !at.After(f.After.Add(clockPrecision))
}

// Changes returns the facts that open or close an endpoint, which is open while at
// least one of its sockets is.
func Changes(facts []Fact) []Fact {
	var changes []Fact
	sockets := map[model.Endpoint]int{}
	for _, f := range facts {
		at := f.Endpoint()
		switch f.Action {
		case Opened:
			if sockets[at]++; sockets[at] == 1 {
				changes = append(changes, f)
			}
		case Closed:
			if sockets[at]--; sockets[at] == 0 {
				changes = append(changes, f)
			}
		}
	}
	return changes
}

// Count is a number of openings and of closings.
type Count struct{ Opened, Closed uint64 }

// CountFacts counts sockets that were opened and closed. Each operation of a summary is
// both.
func CountFacts(facts []Fact) (c Count) {
	for _, f := range facts {
		switch f.Action {
		case Opened:
			c.Opened++
		case Closed:
			c.Closed++
		case Summary:
			c = c.Add(Count{f.Count, f.Count})
		}
	}
	return c
}

// Add returns the sum of both.
func (c Count) Add(more Count) Count { return Count{c.Opened + more.Opened, c.Closed + more.Closed} }

// Sum is the number of openings and closings together.
func (c Count) Sum() uint64 { return c.Opened + c.Closed }

// String returns the name, as in messages.
func (c Count) String() string { return fmt.Sprintf("%d openings and %d closings", c.Opened, c.Closed) }
