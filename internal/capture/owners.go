package capture

import (
	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// ownerOf returns the owner of a socket: the container of its cgroups, else the only one of
// its namespace.
func (c *Capture) ownerOf(n *namespace, f *source.Fact, container *model.Container) tracker.Owner {
	switch {
	case container != nil:
	case n.host:
		container = attribute.HostOwner(n.listed)
	case len(n.members) == 1 && f.Socket.Address != attribute.EngineResolver:
		for _, m := range n.members {
			container = m.Container
		}
	}
	if container == nil {
		return tracker.Owner{}
	}
	if m := c.containers[container.ID]; m == nil || !m.monitored {
		return tracker.Owner{}
	}
	return tracker.Owner{Container: container, Processes: f.Processes}
}

// cgroupOwner is a container, or the id of one that the engine may report later, or
// neither.
type cgroupOwner struct {
	container *model.Container
	stranger  string
	gone      bool // neither: the cgroup had ended before its path could be read
}

const maxOwners = 4096

// findOwner returns the owner by the cgroup of a socket, else by that of its process.
func (c *Capture) findOwner(cgroups *source.CgroupPaths, socket, task uint64) cgroupOwner {
	key := [2]uint64{socket, task}
	if owner, ok := c.owners[key]; ok {
		return owner
	}
	paths := []string{cgroups.Path(socket), cgroups.Path(task)}
	var owner cgroupOwner
	owner.container, owner.stranger = attribute.ContainerIn(c.forms, c.find, paths...)
	if owner.container != nil {
		c.addForm(paths)
	}
	owner.gone = cgroups.Gone(socket) || cgroups.Gone(task)
	if c.owners == nil || len(c.owners) >= maxOwners {
		c.owners = map[[2]uint64]cgroupOwner{}
	}
	c.owners[key] = owner
	return owner
}

// reportUnnamed reports by a gap what happened in cgroups that had ended before their paths
// could be read.
func (c *Capture) reportUnnamed() {
	if c.unnamed.count > 0 {
		c.gap(nil, "containers started and ended before portwatcher could read their cgroups: the machine is very busy, or portwatcher was delayed", c.unnamed.count)
		c.unnamed.count = 0
	}
}

// unnamed counts what happened in such cgroups. A socket that closes there without having
// opened there is of a container that ends: it was reported, or is of no interest.
type unnamed struct {
	count uint64            // openings and closings since the last gap
	open  map[uint64]uint64 // openings whose closing is to come, by the namespace's cookie
}

const maxUnnamed = 4096 // namespaces

// fact reports whether a fact counts.
func (u *unnamed) fact(f *source.Fact) bool {
	if f.Kind == probe.Closed {
		if u.open[f.NetnsCookie] == 0 {
			return false
		}
		if u.open[f.NetnsCookie]--; u.open[f.NetnsCookie] == 0 {
			delete(u.open, f.NetnsCookie)
		}
		return true
	}
	if u.open == nil || len(u.open) >= maxUnnamed {
		u.open = map[uint64]uint64{}
	}
	u.open[f.NetnsCookie]++
	return true
}

// addForm adds the form in which these cgroup paths name a container of this engine to the
// directory.
func (c *Capture) addForm(paths []string) {
	if forms := c.forms.Learn(c.find, paths...); forms != c.forms {
		c.forms = forms
		c.publishDirectory()
	}
}
