// Package procfs reads which sockets of a network namespace can be spoken to
// from /proc/<pid>/net/{tcp,tcp6,udp,udp6}: for kernels and sandboxes without
// sock_diag, and where the /proc of another pid namespace is all there is.
//
// It is the poorest source. The kernel walks its whole table of connections for
// each read, a read in several portions can miss a socket that moves meanwhile
// or show one twice, and some facts are not in these files at all:
//
//   - The socket's cookie; see [Cookie] for what takes its place.
//   - The cgroup, and whether an IPv6 socket takes IPv4 traffic: left zero.
//   - Whether the kernel chose a port. For UDP, a port in the namespace's range
//     of ephemeral ports is the only hint; see [Range].
//
// Sources: proc(5), net/ipv4/tcp_ipv4.c (tcp4_seq_show), net/ipv4/udp.c
// (udp4_seq_show), net/ipv6/tcp_ipv6.c, net/ipv6/datagram.c.
package procfs

import (
	"fmt"
	"hash/fnv"

	"portwatcher/internal/model"
)

// cookieFlag marks the cookies of this package, nodeless those of sockets
// without an inode.
const (
	cookieFlag = model.MadeUpCookie
	nodeless   = cookieFlag | 1<<62
)

// Cookie returns what stands for the kernel's cookie of a socket known by the
// number of its inode. No two open sockets of a host have the same.
//
// The "sl" column of the files is no identity (a position) and the address in
// them is hashed or zero, but the inode stays with a socket and is in
// /proc/<pid>/fd too. It has 32 bits, so that a Cookie is 1<<63 to 1<<63 + 1<<32.
// The kernel's own cookies count up from 1 and, rarely, down from 1<<64 - 1
// (gen_cookie_next in include/linux/cookie.h): neither gets there.
func Cookie(inode uint32) uint64 { return cookieFlag | uint64(inode) }

// IsCookie returns whether a cookie was made by this package.
func IsCookie(cookie uint64) bool {
	return cookie>>32 == cookieFlag>>32 || cookie>>32 == nodeless>>32
}

// addressCookie stands for the cookie of a socket without an inode, by what it
// is bound to. Linux shows an inode for each socket returned by Read; a sandbox
// need not.
func addressCookie(s *model.Socket) uint64 {
	sum := fnv.New32a()
	address := s.Address.As16()
	_, _ = sum.Write(address[:]) // a hash.Hash never returns an error
	_, _ = sum.Write([]byte{byte(s.Protocol), byte(s.Port >> 8), byte(s.Port)})
	return nodeless | uint64(sum.Sum32())
}

// Range is the ports that the kernel gives to clients, first and last included,
// as in ip_local_port_range. The zero Range holds none.
type Range struct{ First, Last uint16 }

// Holds returns whether a port is in the range.
func (r Range) Holds(number uint16) bool {
	return number >= r.First && number <= r.Last && number != 0
}

// ParseError names the place where a file is not what the kernel writes.
type ParseError struct {
	File string
	Line int // from 1
	What string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("%s, line %d: %s", e.File, e.Line, e.What)
}
