package journal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/model"
)

// matching compares events with the filter of a query.
type matching struct {
	// matcher has the filter without containers and ports.
	matcher *model.Matcher
	// origins are the rows whose events are selected; nil: those of all.
	origins map[int64]bool
	// known are the ports that are selected of the events of a kind; nil: none.
	known map[string]*portMap
	maps  map[portKind]*portMap
	set   model.PortSet
}

// portMap has a true for each port that is selected.
type portMap [1 << 16]bool

// portKind is what decides beside the port whether a set of ports selects an event.
type portKind struct {
	protocol model.Protocol
	burst    bool
}

// newMatching returns nil where every event is selected.
func newMatching(t transaction, f *model.Filter) (*matching, error) {
	if f.All() && len(f.Types) == 0 && f.Transient == nil {
		return nil, nil
	}
	m := &matching{known: map[string]*portMap{}, maps: map[portKind]*portMap{}, set: f.Ports}
	rest := withoutContainers(f)
	rest.Ports = model.PortSet{}
	m.matcher = rest.Matcher(nil)
	chosen, origins, err := selectContainers(t, f)
	if err != nil || chosen == nil {
		return m, err
	}
	m.origins = map[int64]bool{}
	for row, o := range origins {
		if chosen[o.id()] {
			m.origins[row] = true
		}
	}
	return m, nil
}

// selectContainers returns the ids of the containers that a filter selects by one of their
// names ("" for what names no container), and all origins; nil where it selects all. A
// container has several names where it was renamed.
func selectContainers(t transaction, f *model.Filter) (chosen map[string]bool, origins map[int64]*origin, err error) {
	if f.Containers.Empty() && f.Project == "" {
		return nil, nil, nil
	}
	if origins, err = readOrigins(t, "true"); err != nil {
		return nil, nil, err
	}
	containers := map[string][]*model.ContainerRef{}
	for _, o := range origins {
		if o.container != nil {
			containers[o.id()] = append(containers[o.id()], o.container)
		}
	}
	var all []*model.ContainerRef
	for _, refs := range containers {
		all = append(all, refs...)
	}
	names := model.NamesOf(all)
	chosen = map[string]bool{"": f.Project == "" && f.Containers.Matches(nil, names)}
	for id, refs := range containers {
		inProject := func(c *model.ContainerRef) bool { return f.Project == "" || f.Project == c.Project }
		chosen[id] = slices.ContainsFunc(refs, inProject) && f.Containers.MatchesAny(refs, names)
	}
	return chosen, origins, nil
}

// withoutContainers returns what a filter compares beside containers.
func withoutContainers(f *model.Filter) model.Filter {
	rest := *f
	rest.Containers, rest.Project = model.Selection{}, ""
	return rest
}

// none reports that no event matches.
func (m *matching) none() bool { return m.origins != nil && len(m.origins) == 0 }

// ports returns which ports are selected of the events of a kind; nil: none.
func (m *matching) ports(kind []byte) *portMap {
	ports, found := m.known[string(kind)]
	if !found {
		ports = m.decide(string(kind))
		m.known[string(kind)] = ports
	}
	return ports
}

func (m *matching) decide(kind string) *portMap {
	origin, event, err := parseKind(kind)
	switch {
	case err != nil: // of a damaged row; it has no type
		return nil
	case m.origins != nil && !m.origins[origin], !m.matcher.Event(event):
		return nil
	}
	key := portKind{event.Protocol, event.Type == model.Bursts}
	ports := m.maps[key]
	if ports == nil {
		ports = &portMap{}
		matcher := (&model.Filter{Ports: m.set}).Matcher(nil)
		for port := range ports {
			event.Port = uint16(port)
			ports[port] = matcher.Event(event)
		}
		m.maps[key] = ports
	}
	return ports
}

// parseKind reads a value of kindColumn.
func parseKind(kind string) (origin int64, e *model.Event, err error) {
	fields := strings.Split(kind, "|")
	if len(fields) != 6 && len(fields) != 7 { // a block of schema 3 has none for the drift
		return 0, nil, fmt.Errorf("the kind %q has %d fields, want 6 or 7", kind, len(fields))
	}
	if origin, err = strconv.ParseInt(fields[0], 10, 64); err != nil {
		return 0, nil, err
	}
	protocol, err := strconv.ParseUint(fields[3], 10, 8)
	e = &model.Event{Type: model.Type(fields[1]), Transient: fields[2] == "1"}
	e.Protocol, e.Exposure = model.Protocol(protocol), model.Exposure(fields[4])
	if fields[5] != "" {
		e.Outside = new(fields[5] == "1")
	}
	if len(fields) == 7 {
		e.Drift = model.Drift(fields[6])
	}
	return origin, e, err
}
