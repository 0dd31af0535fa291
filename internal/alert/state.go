package alert

import (
	"fmt"
	"strings"
	"time"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/model"
)

// condition is what a rule has found, while it lasts.
type condition struct {
	Key      string
	Rule     string
	Severity notify.Severity
	// Since is when it began, Due when it has lasted for the time of its rule; zero once it
	// has been notified. Last is when it was last notified.
	Since time.Time
	Due   time.Time
	Last  time.Time
	// Ends is when it ends unless it begins again before; zero while it lasts. Closed is the
	// event by which its last endpoint has closed.
	Ends   time.Time    `json:",omitzero"`
	Closed *model.Event `json:",omitempty"`
	// Event is the one by which it began.
	Event     *model.Event
	Container keptContainer
	// Endpoints are those for which it lasts; empty where the event has none.
	Endpoints map[string]bool

	at int // where it is in the schedule; -1: nowhere
}

// pending reports whether the condition has not been notified yet.
func (c *condition) pending() bool { return !c.Due.IsZero() }

// keyOf returns the identity of a condition: what of an event neither a restart nor another
// container of the same target changes.
func keyOf(r *Rule, e *model.Event) string {
	identity := notify.Identity{Rule: r.Name, Protocol: e.Protocol, Port: e.Port, Exposure: e.Exposure}
	if e.Container != nil {
		identity.Target = e.Container.Target()
	}
	return identity.Key()
}

// spotOf returns the target, protocol and port of an event, as far as it has them.
func spotOf(e *model.Event) string {
	spot := ""
	if e.Container != nil {
		spot = e.Container.Target()
	}
	if e.Port != 0 {
		spot += "/" + portOf(e)
	}
	return spot
}

// endpointOf returns the identity of the endpoint of an event; empty for none.
func endpointOf(e *model.Event) string {
	if e.Port == 0 || !e.Address.IsValid() {
		return ""
	}
	container := "" // a process of the host
	if e.Container != nil {
		container = e.Container.ID
	}
	return container + " " + e.Namespace + " " + portOf(e) + " " + e.Address.String()
}

// entry is an alert on its way to one receiver: it waits for others of its group, or is held
// back.
type entry struct {
	Receiver string
	At       time.Time // since when it waits
	Held     bool
	Alert    notify.Alert
	// Container is of the alert's event.
	Container keptContainer

	number uint64 // of the entry, in the order of their beginning
}

// keptContainer is what the JSON form of an event leaves out of its container.
type keptContainer struct {
	StartedAt time.Time         `json:",omitzero"`
	Labels    map[string]string `json:",omitempty"`
}

func keep(e *model.Event) keptContainer {
	if e.Container == nil {
		return keptContainer{}
	}
	return keptContainer{e.Container.StartedAt, e.Container.Labels}
}

// restore completes an event that was decoded.
func (k *keptContainer) restore(e *model.Event) {
	if e.Container != nil {
		e.Container.StartedAt, e.Container.Labels = k.StartedAt, k.Labels
	}
}

// group is what one message is about.
type group struct{ host, project string }

func (e *entry) group() group {
	g := group{host: e.Alert.Event.Host}
	if c := e.Alert.Event.Container; c != nil {
		g.project = c.Project
		if project, _, found := strings.Cut(c.Name, "/"); found && c.ID == "" {
			g.project = project // a target that was not seen running
		}
	}
	return g
}

// sent is when a receiver was sent a message within the last hour.
type sent struct {
	Times []time.Time
}

// counters are numbers that outlast the program.
type counters struct {
	// Entry and Delivery are the last numbers that were used.
	Entry, Delivery uint64
	// Began is when alerts were switched on.
	Began time.Time
	// Alive is the time of the last event before portwatcher stopped.
	Alive time.Time
}

// portOf returns the port of an event as people write it.
func portOf(e *model.Event) string { return fmt.Sprintf("%d/%s", e.Port, e.Protocol) }
