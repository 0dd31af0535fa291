// Package attribute finds the owner of a socket: the processes that hold it, and the
// container that it belongs to.
//
// It reads /proc and the cgroup file system and keeps no state but caches. It neither
// asks the engine nor decides when to search: its callers search for the holders of a
// socket when the socket is new, and again when [Lives] reports that a process that
// held it has ended or become another program.
//
// Invariants:
//
//   - The first answer counts: the socket's cgroup, the cgroup of a process that holds
//     the socket, the only container of the namespace.
//   - A container that the engine has not announced yet owns its sockets: no other
//     container gets them.
//   - No lock is held during I/O that another caller does not wait for.
package attribute

import (
	"errors"
	"net/netip"

	"portwatcher/internal/model"
)

// Owner is the owner of a socket, as far as it is known.
type Owner struct {
	// Container is nil if the socket belongs to no known container.
	Container *model.Container
	// Processes hold the socket; ordered by pid, empty if none was found.
	Processes []model.Process
}

// Members are the containers that a socket can belong to.
type Members struct {
	// Lookup returns a running container by its full id, nil if there is none.
	Lookup func(id string) *model.Container
	// Forms are the learned forms of this engine; nil is none.
	Forms *Forms
	// Namespace are the containers that share the socket's network namespace.
	Namespace []*model.Container
	// Host is true for the host's own namespace, where the host owns what belongs
	// to no container: the [model.HostOwner] among Namespace, if there is one.
	Host bool
}

// EngineResolver is where the Docker Engine's own DNS resolver listens, inside
// the network namespace of each container on a user-defined network.
// Source: https://docs.docker.com/engine/network/#dns-services.
var EngineResolver = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// Attributor finds the owners of sockets. It is safe for concurrent use.
type Attributor struct {
	finder  *Finder
	cgroups *Cgroups // nil where no v2 hierarchy is visible
}

// NewAttributor returns an attributor over a finder and the v2 hierarchy;
// cgroups may be nil.
func NewAttributor(finder *Finder, cgroups *Cgroups) *Attributor {
	return &Attributor{finder: finder, cgroups: cgroups}
}

// Attribute returns the owner of each socket, in the order of sockets.
//
// denied counts the processes whose open files could not be listed, where a socket
// was found with none of the others. The error names what could not be read; the
// owners are then what could be found without it.
func (a *Attributor) Attribute(sockets []model.Socket, members Members) (owners []Owner, denied int, err error) {
	inodes := make([]uint32, 0, len(sockets))
	for _, s := range sockets {
		if s.Inode != 0 {
			inodes = append(inodes, s.Inode)
		}
	}
	var holders Holders
	if len(inodes) > 0 {
		holders, err = a.finder.Find(inodes)
	}
	owners = make([]Owner, len(sockets))
	for i, s := range sockets {
		owners[i].Processes = holders.ByInode[s.Inode]
		if len(owners[i].Processes) == 0 {
			denied = len(holders.Denied)
		}
		container, problem := a.container(s, owners[i].Processes, members)
		owners[i].Container = container
		err = errors.Join(err, problem)
	}
	return owners, denied, err
}

func (a *Attributor) container(s model.Socket, processes []model.Process, members Members) (*model.Container, error) {
	path, err := a.CgroupPath(s.Cgroup)
	container, stranger := ContainerIn(members.Forms, members.Lookup, path)
	if container != nil {
		return container, err
	}
	for _, p := range processes {
		paths, problem := a.finder.cgroupOf(p.PID)
		err = errors.Join(err, problem)
		c, unknown := ContainerIn(members.Forms, members.Lookup, paths)
		if c != nil {
			return c, err
		}
		stranger += unknown
	}
	// The engine's resolver is in the container's namespace, but is no process of
	// the container.
	switch {
	case stranger != "" || s.Address == EngineResolver:
		return nil, err
	case members.Host:
		return HostOwner(members.Namespace), err
	case len(members.Namespace) != 1:
		return nil, err
	}
	return members.Namespace[0], err
}

// HostOwner returns the [model.HostOwner] among the members of a namespace; nil where there
// is none.
func HostOwner(members []*model.Container) *model.Container {
	for _, c := range members {
		if c.IsHost() {
			return c
		}
	}
	return nil
}

// CgroupPath returns the path of a cgroup, empty if it cannot be found; see
// [Cgroups.Path].
func (a *Attributor) CgroupPath(id uint64) (string, error) {
	if id == 0 || a.cgroups == nil {
		return "", nil
	}
	path, _, err := a.cgroups.Path(id)
	return path, err
}

// KnownCgroupPath is CgroupPath without I/O: ok is false where only I/O can find the
// path.
func (a *Attributor) KnownCgroupPath(id uint64) (path string, ok bool) {
	if id == 0 || a.cgroups == nil {
		return "", true
	}
	return a.cgroups.Known(id)
}
