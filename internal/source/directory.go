package source

import (
	"slices"

	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
)

// Directory lists the running containers and the network namespaces that they share. It
// is immutable: a change makes a new one.
type Directory struct {
	// Containers are all running ones, by id.
	Containers map[string]*model.Container
	// Namespaces are those that could be identified.
	Namespaces map[model.Namespace]*Members
	// Forms are those in which cgroup paths name this engine's containers.
	Forms *attribute.Forms
}

// Members are the containers of a network namespace. A value is immutable.
type Members struct {
	Containers []*model.Container
	// Names lists the monitored ones, for log messages.
	Names string
	// Inner are processes that lead into an inner namespace; empty for a container's own.
	Inner []int
	// Host means that the namespace is the host's.
	Host bool
	// Epoch rises whenever the members change.
	Epoch uint64
}

// Lookup returns a running container by its id, nil if there is none.
func (d *Directory) Lookup(id string) *model.Container {
	if d == nil {
		return nil
	}
	return d.Containers[id]
}

// members returns the containers of a namespace; none where it is not known.
func (e *Env) members(id model.Namespace) *Members {
	if d := e.Directory.Load(); d != nil && d.Namespaces[id] != nil {
		return d.Namespaces[id]
	}
	return &Members{}
}

// pids are processes that lead into the namespace: the first ones of the members, unless it
// is an inner one.
func (m *Members) pids() []int {
	if len(m.Inner) > 0 {
		return m.Inner
	}
	pids := make([]int, 0, len(m.Containers))
	for _, c := range m.Containers {
		pids = append(pids, c.PID)
	}
	slices.Sort(pids)
	return pids
}
