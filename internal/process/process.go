// Package process tells who owns a socket: which processes hold it, and which
// container it belongs to.
//
// It reads /proc and the cgroup file system and keeps no state but caches. Who
// holds a socket is asked when the socket is new, and again when one of those
// who held it is not what it was any more, which [Lives] tells at little cost:
// a host on which nothing happens costs next to nothing.
package process

import (
	"portwatcher/internal/port"
)

// Owner is what is known of a socket's owner.
type Owner struct {
	// Container is nil if the socket belongs to no known container.
	Container *port.Container
	// Processes that hold the socket, ordered by pid; empty if none was found.
	Processes []port.Process
}

// Members are the containers that a socket can belong to.
type Members struct {
	// Lookup finds a running container by its full id, nil if there is none.
	Lookup func(id string) *port.Container
	// Namespace are the containers that share the socket's network namespace.
	Namespace []*port.Container
	// Host says that it is the host's own namespace: what belongs to no
	// container there belongs to the host.
	Host bool
}
