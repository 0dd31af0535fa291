package harness

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// ContainerRef is the container of an event.
type ContainerRef struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Image   string `json:"image"`
	Project string `json:"project"`
	Service string `json:"service"`
}

// Event is one line of `portwatcher run --format json`.
type Event struct {
	ID          uint64        `json:"id"`
	Time        time.Time     `json:"time"`
	Type        string        `json:"type"`
	Host        string        `json:"host"`
	Container   *ContainerRef `json:"container"`
	Protocol    string        `json:"protocol"`
	Address     string        `json:"address"`
	Port        int           `json:"port"`
	Processes   []Process     `json:"processes"`
	Exposure    string        `json:"exposure"`
	Published   []string      `json:"published"`
	Source      string        `json:"source"`
	Transient   *bool         `json:"transient"`
	OpenedAt    *time.Time    `json:"opened_at"`
	OpenSeconds *float64      `json:"open_seconds"`
	Reason      string        `json:"reason"`
	// Lost belongs to gaps, what follows to bursts.
	Lost      uint64     `json:"lost"`
	Opened    *uint64    `json:"opened"`
	Closed    *uint64    `json:"closed"`
	First     *time.Time `json:"first"`
	Last      *time.Time `json:"last"`
	Ports     []int      `json:"ports"`
	PortCount int        `json:"port_count"`
	// Line is the event as it was printed.
	Line string `json:"-"`
}

// Listener returns what the event says of the endpoint.
func (e Event) Listener() Listener {
	return Listener{
		Container: e.Container.Name, Protocol: e.Protocol, Address: e.Address, Port: e.Port,
		Exposure: e.Exposure, Published: e.Published, Processes: e.Processes,
	}
}

// endpoint is the event's endpoint as a key.
func (e Event) endpoint() string {
	return fmt.Sprintf("%s %s %s %d", e.Container.ID, e.Protocol, e.Address, e.Port)
}

// parseEvent reads one line, and says what in it breaks the contract of the
// design: "" if nothing does.
func parseEvent(line string, now time.Time) (Event, string) {
	event := Event{Line: line}
	if err := json.Unmarshal([]byte(line), &event); err != nil {
		return event, fmt.Sprintf("not a JSON object: %v", err)
	}
	age := now.Sub(event.Time)
	switch {
	case event.Type == "gap":
		if event.Reason == "" {
			return event, "a gap without a reason"
		}
	case event.Type == "burst":
		return event, brokenBurst(&event)
	case event.Type != "opened" && event.Type != "closed" && event.Type != "changed":
		return event, "an unknown type"
	case event.Container == nil || len(event.Container.ID) != 64 || event.Container.Name == "":
		return event, "no container, or an incomplete one"
	// The networks of a container that ended before anyone could look at it, which
	// eBPF alone saw, are not known.
	case event.Protocol == "" || event.Address == "" || event.Port == 0 || event.Exposure == "" && event.Source != "ebpf":
		return event, "no protocol, address, port or exposure"
	case event.Host == "" || event.Source == "" || event.Transient == nil:
		return event, "no host, source or transient"
	case age < -time.Second || age > time.Hour || event.Time.Location() != time.UTC:
		return event, fmt.Sprintf("its time is %v from now, or not UTC", age)
	// Nobody saw when a transient opened, or for how long open was what closed
	// while portwatcher did not run.
	case event.Type == "closed" && !*event.Transient && (event.OpenedAt == nil || event.OpenSeconds == nil && event.Source != "restart"):
		return event, "closed without opened_at or open_seconds"
	}
	return event, ""
}

// brokenBurst says what in a burst breaks the contract: "" if nothing does.
func brokenBurst(e *Event) string {
	switch {
	case e.Container == nil || len(e.Container.ID) != 64 || e.Container.Name == "":
		return "a burst without a container"
	case e.Host == "" || e.Source == "" || e.Transient == nil:
		return "no host, source or transient"
	case e.Opened == nil || e.Closed == nil || *e.Opened+*e.Closed == 0:
		return "a burst that counts nothing"
	case e.First == nil || e.Last == nil || e.First.After(*e.Last) || e.First.Location() != time.UTC || e.Last.Location() != time.UTC:
		return "a burst without first and last, or their order is wrong"
	case len(e.Ports) > 64 || len(e.Ports) > e.PortCount || !slices.IsSorted(e.Ports) || len(slices.Compact(slices.Clone(e.Ports))) != len(e.Ports):
		return "the ports of a burst are not distinct, not in order, too many, or more than port_count"
	case e.Port != 0 && e.PortCount != 1:
		return "a burst of one port and of several"
	}
	return ""
}

// Match selects events: an empty field takes any value.
type Match struct {
	Type      string
	Container string // name
	Protocol  string
	Address   string
	Port      int
}

// Opened matches the opening of a port.
func Opened(container, protocol, address string, port int) Match {
	return Match{"opened", container, protocol, address, port}
}

// Closed matches the closing of a port.
func Closed(container, protocol, address string, port int) Match {
	return Match{"closed", container, protocol, address, port}
}

func (m Match) matches(e Event) bool {
	if e.Container == nil {
		return m.Type == e.Type && m.Container == ""
	}
	return (m.Type == "" || m.Type == e.Type) &&
		(m.Container == "" || m.Container == e.Container.Name) &&
		(m.Protocol == "" || m.Protocol == e.Protocol) &&
		(m.Address == "" || m.Address == e.Address) &&
		(m.Port == 0 || m.Port == e.Port)
}
