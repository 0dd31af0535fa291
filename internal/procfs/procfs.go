// Package procfs reads /proc: the sockets of a network namespace from
// /proc/<pid>/net/{tcp,tcp6,udp,udp6}, how many sockets there are, and what /proc
// shows of one process. It also finds the root of the cgroup v2 hierarchy.
//
// As a source of sockets it is for kernels and sandboxes without sock_diag, and where
// only the /proc of another pid namespace is there. The kernel walks its whole table
// of connections for each read, a read in several portions can miss a socket that
// moves meanwhile or show it twice, and some facts are not in these files:
//
//   - The socket's cookie. A number made from the inode takes its place; see
//     [model.MadeUpCookie].
//   - The cgroup, and whether an IPv6 socket accepts IPv4 traffic: both stay zero.
//   - Whether the kernel chose the port. For UDP, a port in the namespace's range of
//     ephemeral ports is the only hint; see [Range].
//
// The package keeps no state. All functions are safe for concurrent use. Where a
// process does not exist any more, the error wraps [netns.ErrProcessGone].
//
// Sources: proc(5), net/ipv4/tcp_ipv4.c (tcp4_seq_show), net/ipv4/udp.c
// (udp4_seq_show), net/ipv6/tcp_ipv6.c, net/ipv6/datagram.c.
package procfs

import (
	"fmt"
	"hash/fnv"

	"portwatcher/internal/model"
)

// noInode marks the cookie of a socket without an inode.
const noInode = model.MadeUpCookie | 1<<62

// inodeCookie returns the substitute for the kernel's cookie of a socket with this inode.
// No two open sockets of a host have the same.
//
// The column "sl" is a position and no identity, and the address of the socket is
// hashed or zero, but the inode belongs to the socket and is in /proc/<pid>/fd too. It
// has 32 bits, so that an inodeCookie is 1<<63 to 1<<63 + 1<<32. The kernel's own cookies
// count up from 1 and, rarely, down from 1<<64 - 1 (gen_cookie_next in
// include/linux/cookie.h), and reach neither.
func inodeCookie(inode uint32) uint64 { return model.MadeUpCookie | uint64(inode) }

// addressCookie returns the substitute for the cookie of a socket without an inode,
// made from what it is bound to. Linux shows an inode for each socket that [Read]
// returns; a sandbox may not.
func addressCookie(s *model.Socket) uint64 {
	sum := fnv.New32a()
	address := s.Address.As16()
	_, _ = sum.Write(address[:]) // a hash.Hash never returns an error
	_, _ = sum.Write([]byte{byte(s.Protocol), byte(s.Port >> 8), byte(s.Port)})
	return noInode | uint64(sum.Sum32())
}

// Range is the ports that the kernel gives to clients, first and last included,
// as in ip_local_port_range. The zero Range holds none.
type Range struct{ First, Last uint16 }

// Holds reports whether a port is in the range.
func (r Range) Holds(number uint16) bool {
	return number >= r.First && number <= r.Last && number != 0
}

// ParseError names the place where a file is not what the kernel writes.
type ParseError struct {
	File string
	Line int // from 1
	What string
}

// Error implements error.
func (e *ParseError) Error() string {
	return fmt.Sprintf("%s, line %d: %s", e.File, e.Line, e.What)
}
