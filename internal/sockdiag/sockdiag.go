// Package sockdiag lists the TCP listeners and unconnected UDP sockets of a network
// namespace, and receives a message for each one that is destroyed, by
// NETLINK_SOCK_DIAG. It does not find containers or processes.
//
// A [Conn] and a [Listener] are one netlink socket each, which lives in one namespace:
// only Dial and Listen enter the namespace. The kernel walks only the requested tables
// (listeners, and unconnected UDP), so the cost of a dump does not grow with the number
// of connections.
//
// The hot loop to keep efficient is Conn.Dump: a dump without a new socket allocates
// nothing, nor does Listener.ReceiveWaiting. Benchmarks and tests check both.
//
// Sources: sock_diag(7), include/uapi/linux/inet_diag.h,
// include/uapi/linux/netlink.h, net/ipv4/inet_diag.c.
package sockdiag

import (
	"errors"
	"fmt"
)

// ErrInterrupted is returned by Dump when a table changed during each of 16 attempts
// to read it (NLM_F_DUMP_INTR).
var ErrInterrupted = errors.New("sock_diag: the kernel interrupted the dump again and again")

// UnsupportedError reports that this kernel cannot answer a request.
type UnsupportedError struct {
	Feature string // what was asked for
	Remedy  string // names the modules to load
	Err     error  // the errno
}

// Error implements error.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("sock_diag: %s is not available: %v (%s)", e.Feature, e.Err, e.Remedy)
}

// Unwrap returns the cause.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// MalformedError reports a message that does not match the kernel's headers.
type MalformedError struct {
	What string // what was wrong, with the sizes or values found
}

// Error implements error.
func (e *MalformedError) Error() string { return "sock_diag: malformed message: " + e.What }

func malformed(format string, args ...any) error {
	return &MalformedError{What: fmt.Sprintf(format, args...)}
}
