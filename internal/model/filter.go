package model

import (
	"fmt"
	"slices"
	"strings"
)

// Filter selects endpoints and events: those that match each of its fields. An empty
// field selects all. Containers decides by (host) about what names no container.
type Filter struct {
	Containers Selection
	// Project is the name of a Compose project.
	Project   string
	Protocols []Protocol
	Ports     PortSet
	Exposures []Exposure
	// Outside compares Listener.Outside; nil selects all.
	Outside *bool
	// Drifts are about events and open endpoints ([Matcher.Open]).
	Drifts []Drift
	// Types and Transient are about events only.
	Types     []Type
	Transient *bool
}

// All reports whether every endpoint is selected.
func (f *Filter) All() bool {
	return f.Containers.Empty() && f.Project == "" && len(f.Protocols) == 0 && f.Ports.Empty() && len(f.Exposures) == 0 && f.Outside == nil &&
		len(f.Drifts) == 0
}

// String returns a text that is the same for equal filters only.
func (f *Filter) String() string {
	return fmt.Sprintf("%q %q %v %q %q %s %q %q %s", f.Containers, f.Project, f.Protocols, f.Ports, f.Exposures, truth(f.Outside), f.Drifts, f.Types, truth(f.Transient))
}

func truth(value *bool) string {
	if value == nil {
		return "both"
	}
	return fmt.Sprint(*value)
}

// Matcher returns a [Matcher] of the filter, among containers of some names.
func (f *Filter) Matcher(names Names) *Matcher { return &Matcher{Filter: *f, names: names} }

// Matcher compares endpoints and events with a filter. It is used by one goroutine at a
// time.
type Matcher struct {
	Filter
	names Names
	// last is the container that was compared last, and selected its result: endpoints
	// and events come container by container.
	last     *ContainerRef
	selected bool
}

// Event reports whether an event is selected. A burst of several ports or protocols is
// selected where one that is asked for may be among them.
func (m *Matcher) Event(e *Event) bool {
	return contains(m.Types, e.Type) && contains(m.Drifts, e.Drift) && (m.Transient == nil || *m.Transient == e.Transient) &&
		(m.Listener(&e.Listener) || e.Type == Bursts && m.burst(&e.Listener))
}

func (m *Matcher) burst(l *Listener) bool {
	return (l.Protocol == 0 || contains(m.Protocols, l.Protocol)) && m.reach(l) &&
		(m.Ports.Empty() || m.Ports.mayContain(l.Protocol, l.Port)) && m.Container(l.Container)
}

// Open reports whether an open endpoint is selected.
func (m *Matcher) Open(o *Open) bool { return contains(m.Drifts, o.Drift) && m.Listener(&o.Listener) }

// Drift reports whether a drift is selected. One without a port (uncovered) is selected only
// where no port is asked for.
func (m *Matcher) Drift(d *OpenDrift) bool {
	return contains(m.Drifts, d.Drift) && m.Listener(&d.Listener)
}

// Listener reports whether an endpoint is selected, whatever its drift.
func (m *Matcher) Listener(l *Listener) bool {
	return contains(m.Protocols, l.Protocol) && m.reach(l) &&
		(m.Ports.Empty() || m.Ports.Contains(l.Protocol, l.Port)) && m.Container(l.Container)
}

func (m *Matcher) reach(l *Listener) bool {
	return contains(m.Exposures, l.Exposure) && (m.Outside == nil || l.Outside != nil && *m.Outside == *l.Outside)
}

// Container reports whether what a container does is selected; nil is no container.
func (m *Matcher) Container(c *ContainerRef) bool {
	switch {
	case m.Containers.Empty() && m.Project == "":
		return true
	case c == nil:
		return m.Project == "" && m.Containers.Matches(nil, m.names)
	case m.last != nil && (m.last == c || m.last.Same(c)):
		return m.selected
	}
	m.last = c
	m.selected = (m.Project == "" || m.Project == c.Project) && m.Containers.Matches(c, m.names)
	return m.selected
}

func contains[T comparable](list []T, value T) bool {
	return len(list) == 0 || slices.Contains(list, value)
}

// Types, Changes and Exposures have every value, in the order of the documentation.
var (
	Types     = []Type{Opened, Closed, Changed, Bursts, Gap, Drifted}
	Changes   = []Change{ChangeProcess, ChangeExposure, ChangeForward}
	Exposures = []Exposure{Loopback, Network, Lan, Published, Host}
)

// ParseType reads the type of an event. The error names what is allowed.
func ParseType(text string) (Type, error) { return oneOf(text, Types) }

// ParseExposure reads an exposure. The error names what is allowed.
func ParseExposure(text string) (Exposure, error) { return oneOf(text, Exposures) }

func oneOf[T ~string](text string, all []T) (T, error) {
	if slices.Contains(all, T(text)) {
		return T(text), nil
	}
	return "", fmt.Errorf("allowed are %s", Join(all, ", "))
}

// Join concatenates words, with separator between them.
func Join[T ~string](words []T, separator string) string {
	texts := make([]string, len(words))
	for i, word := range words {
		texts[i] = string(word)
	}
	return strings.Join(texts, separator)
}
