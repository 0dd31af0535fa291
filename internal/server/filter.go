package server

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/journal"
	"portwatcher/internal/port"
)

// Filter says which endpoints and events are wanted: those that match one
// value of each list. An empty list wants all. It matches what the journal
// finds for the query of the same fields: a gap that names no container is
// wanted only where no container is asked for.
type Filter struct {
	// Containers are names, which may have * for any characters; project/service
	// likewise; and beginnings of ids, 12 or more hexadecimal digits.
	Containers []string
	// Project is the name of a Compose project; empty wants all.
	Project   string
	Protocols []port.Protocol
	Ports     []journal.PortRange
	Exposures []port.Exposure
	// Types and Transient are about events only.
	Types     []port.Type
	Transient *bool
}

// query returns the journal's query for the same events.
func (f *Filter) query() journal.Query {
	return journal.Query{
		Containers: f.Containers, Project: f.Project, Ports: f.Ports, Types: f.Types,
		Protocols: f.Protocols, Exposures: f.Exposures, Transient: f.Transient,
	}
}

// Event says whether an event is wanted.
func (f *Filter) Event(e *port.Event) bool {
	return wants(f.Types, e.Type) && (f.Transient == nil || *f.Transient == e.Transient) &&
		(f.Listener(&e.Listener) || e.Type == port.Bursts && f.burst(&e.Listener))
}

// burst says whether a burst of several ports or protocols is wanted: whichever is
// asked for may be among them.
func (f *Filter) burst(l *port.Listener) bool {
	return (l.Protocol == 0 || wants(f.Protocols, l.Protocol)) && wants(f.Exposures, l.Exposure) && f.Container(l.Container) &&
		(len(f.Ports) == 0 || slices.ContainsFunc(f.Ports, func(r journal.PortRange) bool {
			return (l.Port == 0 || l.Port >= r.First && l.Port <= r.Last) && (r.Protocol == 0 || l.Protocol == 0 || l.Protocol == r.Protocol)
		}))
}

// Listener says whether an endpoint is wanted.
func (f *Filter) Listener(l *port.Listener) bool {
	return wants(f.Protocols, l.Protocol) && wants(f.Exposures, l.Exposure) && f.port(l) && f.Container(l.Container)
}

// Container says whether a container is wanted; nil is none.
func (f *Filter) Container(c *port.ContainerRef) bool {
	if len(f.Containers) == 0 && f.Project == "" {
		return true
	}
	return c != nil && f.container(c) && (f.Project == "" || f.Project == c.Project)
}

func (f *Filter) container(c *port.ContainerRef) bool {
	return len(f.Containers) == 0 || slices.ContainsFunc(f.Containers, func(pattern string) bool {
		if project, service, both := strings.Cut(pattern, "/"); both {
			return c.Project != "" && c.Service != "" && glob(project, c.Project) && glob(service, c.Service)
		}
		return glob(pattern, c.Name) || identifier.MatchString(pattern) && strings.HasPrefix(c.ID, pattern)
	})
}

func (f *Filter) port(l *port.Listener) bool {
	return len(f.Ports) == 0 || slices.ContainsFunc(f.Ports, func(r journal.PortRange) bool {
		return l.Port >= r.First && l.Port <= r.Last && (r.Protocol == 0 || r.Protocol == l.Protocol)
	})
}

func wants[T comparable](list []T, value T) bool {
	return len(list) == 0 || slices.Contains(list, value)
}

// glob takes patterns that were checked by parseName: they have no special
// character but *, and names have no slash.
func glob(pattern, name string) bool {
	matched, err := path.Match(pattern, name)
	return err == nil && matched
}

var (
	// identifier matches what can be the beginning of a container's id.
	identifier = regexp.MustCompile(`^[0-9a-f]{12,64}$`)
	// names matches names of containers, projects and services, with *.
	// Source: https://docs.docker.com/reference/api/engine/ (ContainerCreate: name).
	names = regexp.MustCompile(`^[a-zA-Z0-9_.*-]+$`)
)

const (
	allowedContainers = "names of letters, digits, _ . - and * for any, project/service, and ids of 12 to 64 hexadecimal digits"
	allowedProjects   = "names of letters, digits, _ . -"
	allowedPorts      = "1 to 65535 and ranges such as 8000-8100, with /tcp or /udp behind or without"
)

func parseContainer(word string) (string, bool) {
	project, service, both := strings.Cut(word, "/")
	return word, names.MatchString(project) && (!both || names.MatchString(service))
}

func parseProtocol(word string) (port.Protocol, bool) {
	var p port.Protocol
	err := p.UnmarshalText([]byte(word))
	return p, err == nil
}

func parsePort(word string) (journal.PortRange, bool) {
	var r journal.PortRange
	numbers, protocol, hasProtocol := strings.Cut(word, "/")
	if hasProtocol {
		var ok bool
		if r.Protocol, ok = parseProtocol(protocol); !ok {
			return r, false
		}
	}
	first, last, isRange := strings.Cut(numbers, "-")
	if !isRange {
		last = first
	}
	low, errLow := strconv.ParseUint(first, 10, 16)
	high, errHigh := strconv.ParseUint(last, 10, 16)
	r.First, r.Last = uint16(low), uint16(high)
	return r, errLow == nil && errHigh == nil && low > 0 && low <= high
}

// oneOf returns a parser of a few words.
func oneOf[T ~string](words []T) func(string) (T, bool) {
	return func(word string) (T, bool) { return T(word), slices.Contains(words, T(word)) }
}

var (
	exposures = []port.Exposure{port.Loopback, port.Network, port.Published, port.Host}
	types     = []port.Type{port.Opened, port.Closed, port.Changed, port.Bursts, port.Gap}
)
