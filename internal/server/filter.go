package server

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// Filter says which endpoints and events are wanted: those that match one
// value of each list. An empty list wants all. It matches what the journal
// finds for the query of the same fields: a gap that names no container is
// wanted only where no container is asked for.
type Filter struct {
	// Containers, at most maxPatterns of them, are names, which may have * for any characters; project/service
	// likewise; and beginnings of ids, 12 or more hexadecimal digits.
	Containers []string
	// Project is the name of a Compose project; empty wants all.
	Project   string
	Protocols []model.Protocol
	Ports     []journal.PortRange
	Exposures []model.Exposure
	// Types and Transient are about events only.
	Types     []model.Type
	Transient *bool
}

// query returns the journal's query for the same events.
func (f *Filter) query() journal.Query {
	return journal.Query{
		Containers: f.Containers, Project: f.Project, Ports: f.Ports, Types: f.Types,
		Protocols: f.Protocols, Exposures: f.Exposures, Transient: f.Transient,
	}
}

// all says that every endpoint is wanted.
func (f *Filter) all() bool {
	return len(f.Containers) == 0 && f.Project == "" && len(f.Protocols) == 0 && len(f.Ports) == 0 && len(f.Exposures) == 0
}

// Event says whether an event is wanted.
func (f *Filter) Event(e *model.Event) bool { return f.compile().event(e) }

// Listener says whether an endpoint is wanted.
func (f *Filter) Listener(l *model.Listener) bool { return f.compile().listener(l) }

// Container says whether a container is wanted; nil is none.
func (f *Filter) Container(c *model.ContainerRef) bool { return f.compile().container(c) }

// compiled is a filter whose patterns are prepared once. It is used by one
// goroutine at a time.
type compiled struct {
	*Filter
	patterns []pattern
	// last is the container that was compared last, and wanted what came of it:
	// endpoints and events come by container.
	last   *model.ContainerRef
	wanted bool
}

// pattern is one of Filter.Containers.
type pattern struct {
	project, name string
	both          bool // project and service
	globs         bool // there is a * in it
	id            bool // it can be the beginning of an id
}

func (f *Filter) compile() *compiled {
	c := &compiled{Filter: f, patterns: make([]pattern, len(f.Containers))}
	for i, text := range f.Containers {
		p := pattern{globs: strings.Contains(text, "*"), id: identifier.MatchString(text)}
		if p.project, p.name, p.both = strings.Cut(text, "/"); !p.both {
			p.name = text
		}
		c.patterns[i] = p
	}
	return c
}

// matches takes patterns that were checked by parseContainer: they have no special
// character but *, and names have no slash.
func (p *pattern) matches(c *model.ContainerRef) bool {
	switch {
	case p.both:
		return c.Project != "" && c.Service != "" && p.equal(p.project, c.Project) && p.equal(p.name, c.Service)
	case p.equal(p.name, c.Name):
		return true
	}
	return p.id && strings.HasPrefix(c.ID, p.name)
}

func (p *pattern) equal(pattern, name string) bool {
	if !p.globs {
		return pattern == name
	}
	matched, err := path.Match(pattern, name)
	return err == nil && matched
}

func (c *compiled) event(e *model.Event) bool {
	return wants(c.Types, e.Type) && (c.Transient == nil || *c.Transient == e.Transient) &&
		(c.listener(&e.Listener) || e.Type == model.Bursts && c.burst(&e.Listener))
}

// burst says whether a burst of several ports or protocols is wanted: whichever is asked
// for may be among them.
func (c *compiled) burst(l *model.Listener) bool {
	return (l.Protocol == 0 || wants(c.Protocols, l.Protocol)) && wants(c.Exposures, l.Exposure) && c.container(l.Container) &&
		(len(c.Ports) == 0 || slices.ContainsFunc(c.Ports, func(r journal.PortRange) bool {
			return (l.Port == 0 || l.Port >= r.First && l.Port <= r.Last) && (r.Protocol == 0 || l.Protocol == 0 || l.Protocol == r.Protocol)
		}))
}

func (c *compiled) listener(l *model.Listener) bool {
	return wants(c.Protocols, l.Protocol) && wants(c.Exposures, l.Exposure) && c.port(l) && c.container(l.Container)
}

func (c *compiled) container(ref *model.ContainerRef) bool {
	switch {
	case len(c.patterns) == 0 && c.Project == "":
		return true
	case ref == nil:
		return false
	case c.last != nil && (c.last == ref || *c.last == *ref):
		return c.wanted
	}
	c.last = ref
	c.wanted = (c.Project == "" || c.Project == ref.Project) &&
		(len(c.patterns) == 0 || slices.ContainsFunc(c.patterns, func(p pattern) bool { return p.matches(ref) }))
	return c.wanted
}

func (f *Filter) port(l *model.Listener) bool {
	return len(f.Ports) == 0 || slices.ContainsFunc(f.Ports, func(r journal.PortRange) bool {
		return l.Port >= r.First && l.Port <= r.Last && (r.Protocol == 0 || r.Protocol == l.Protocol)
	})
}

func wants[T comparable](list []T, value T) bool {
	return len(list) == 0 || slices.Contains(list, value)
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

func parseProtocol(word string) (model.Protocol, bool) {
	var p model.Protocol
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
	exposures = []model.Exposure{model.Loopback, model.Network, model.Published, model.Host}
	types     = []model.Type{model.Opened, model.Closed, model.Changed, model.Bursts, model.Gap}
)
