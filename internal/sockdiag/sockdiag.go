// Package sockdiag lists the sockets of a network namespace that can be spoken to,
// and receives a message for each one that is destroyed, by NETLINK_SOCK_DIAG.
//
// A [Conn] is one netlink socket that lives in one namespace: the namespace is
// entered once, when it is dialled, and no thread is switched for a dump. The
// kernel walks only what is asked for (listeners, and unconnected UDP), so the
// cost of a dump does not grow with the number of connections.
//
// The hot loop to keep efficient is Conn.Dump: a dump that meets no new socket
// allocates nothing. A benchmark holds it to that.
//
// The package parses kernel messages and nothing else: containers, processes and
// time are not its subject.
//
// Sources: sock_diag(7), include/uapi/linux/inet_diag.h,
// include/uapi/linux/netlink.h, net/ipv4/inet_diag.c.
package sockdiag

import (
	"errors"
	"fmt"
)

// ErrInterrupted is returned by Dump when a table changed under every one of
// the attempts to read it (NLM_F_DUMP_INTR).
var ErrInterrupted = errors.New("sock_diag: the kernel interrupted the dump again and again")

// UnsupportedError reports that this kernel cannot answer a request.
type UnsupportedError struct {
	Feature string // what was asked for
	Remedy  string // names the modules to load
	Err     error  // the errno
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("sock_diag: %s is not available: %v (%s)", e.Feature, e.Err, e.Remedy)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// MalformedError reports a message that is not what the kernel's headers promise.
type MalformedError struct {
	What string // what was wrong, with the sizes or values found
}

func (e *MalformedError) Error() string { return "sock_diag: malformed message: " + e.What }

func malformed(format string, args ...any) error {
	return &MalformedError{What: fmt.Sprintf(format, args...)}
}
