package model

import "time"

// Drift is the kind of difference between what is expected and what is open.
type Drift string

const (
	// DriftUnexpected: open, and not expected.
	DriftUnexpected Drift = "unexpected"
	// DriftMissing: required, and not open.
	DriftMissing Drift = "missing"
	// DriftWider: reachable from further than expected.
	DriftWider Drift = "wider"
	// DriftProcess: another program than expected holds it.
	DriftProcess Drift = "process"
	// DriftUncovered: no expectation covers the container; reported once for each target,
	// instead of an unexpected drift for each of its ports.
	DriftUncovered Drift = "uncovered"
)

// Drifts has every kind of drift, in the order of the documentation.
var Drifts = []Drift{DriftUnexpected, DriftMissing, DriftWider, DriftProcess, DriftUncovered}

// ParseDrift reads a kind of drift. The error names what is allowed.
func ParseDrift(text string) (Drift, error) { return oneOf(text, Drifts) }

// DriftKey is the identity of a drift on one host. Neither a container's id nor a process is
// part of it: a restart, a recreated container or another replica continues the drift.
type DriftKey struct {
	Drift Drift
	// Target is [ContainerRef.Target].
	Target string
	// Protocol, Port and Exposure are zero for an uncovered target; Exposure is empty for a
	// missing port, too.
	Protocol Protocol
	Port     uint16
	Exposure Exposure
}

// OpenDrift is a drift that lasts. It is immutable.
type OpenDrift struct {
	Drift Drift `json:"drift"`
	// Since is when the drift began, in UTC.
	Since time.Time `json:"since"`
	// Target is [ContainerRef.Target].
	Target string `json:"target"`
	// Listener describes one of the endpoints that drift, the first by [Endpoint.Compare]. A
	// missing drift has protocol and port only, and the container where one was seen; an
	// uncovered one the container only.
	Listener
	// Endpoints is the number of endpoints that drift, 0 for missing and uncovered.
	Endpoints int `json:"endpoints,omitempty"`
	// Expected is what the expectation allows, for people: "at most network", "process
	// nginx", "open".
	Expected string `json:"expected,omitempty"`
	// Entry has the lines of YAML to add to the file of expectations, so that it is no drift
	// any more. It is empty for a missing drift, whose entry is there.
	Entry string `json:"entry,omitempty"`
}

// DriftPeriod is a drift from its beginning to its end. A period is identified by its key and
// its beginning (Since): one that ends and begins again within a minute is the same.
type DriftPeriod struct {
	OpenDrift
	// Ended is when it ended, in UTC; zero while it lasts.
	Ended time.Time `json:"ended,omitzero"`
}

// Key returns the identity of the drift.
func (d *OpenDrift) Key() DriftKey {
	return DriftKey{d.Drift, d.Target, d.Protocol, d.Port, d.Exposure}
}

// Target is the name by which drifts are kept: project/service of a container that has both,
// else its name.
func (c *ContainerRef) Target() string {
	if c.Project != "" && c.Service != "" {
		return c.Project + "/" + c.Service
	}
	return c.Name
}
