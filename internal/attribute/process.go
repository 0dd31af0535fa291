// Package attribute finds the owner of a socket: the processes that hold it, and the
// container it belongs to.
//
// It reads /proc and the cgroup file system and keeps no state but caches. Holders
// are searched for when a socket is new, and again when a process that held it has
// ended or become another program, which [Lives] finds out at little cost: a host
// on which nothing happens costs next to nothing.
package attribute

import (
	"portwatcher/internal/model"
)

// Owner is the owner of a socket, as far as it is known.
type Owner struct {
	// Container is nil if the socket belongs to no known container.
	Container *model.Container
	// Processes that hold the socket, ordered by pid; empty if none was found.
	Processes []model.Process
}

// Members are the containers that a socket can belong to.
type Members struct {
	// Lookup finds a running container by its full id, nil if there is none.
	Lookup func(id string) *model.Container
	// Forms are those of this engine that are learned; nil is none.
	Forms *Forms
	// Namespace are the containers that share the socket's network namespace.
	Namespace []*model.Container
	// Host is true for the host's own namespace: what belongs to no container
	// there belongs to the host.
	Host bool
}
