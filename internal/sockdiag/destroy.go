package sockdiag

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// Destroyed is a socket that was destroyed, as the kernel's message describes it:
// without inode, user, cgroup and process.
type Destroyed struct {
	// Socket has cookie, protocol, address and port.
	Socket model.Socket
	// Client is true for a failed attempt to connect, which was no listener.
	Client bool
	// IPv6 is true for a socket of AF_INET6, also with an IPv4 address.
	IPv6 bool
}

// destroyGroups is the number of multicast groups of NETLINK_SOCK_DIAG that have
// destroy notifications, from 1: TCP and UDP, of IPv4 and IPv6. Source: enum
// sknetlink_groups in include/uapi/linux/sock_diag.h.
const destroyGroups = 4

const (
	attributeInfo     = 2  // INET_DIAG_INFO: struct tcp_info
	attributeProtocol = 10 // INET_DIAG_PROTOCOL, u8

	// Offsets in struct tcp_info, include/uapi/linux/tcp.h. The first two are in
	// every version of it, the third since 2.6.
	offsetReceiveMSS    = 20
	offsetPathMTU       = 60
	offsetAdvertisedMSS = 84
)

// parseDestroyed reads one destroy message into d. Each datagram is one.
func parseDestroyed(d *Destroyed, b []byte) error {
	h, payload, _, err := nextMessage(b)
	if err != nil {
		return err
	}
	if h.kind != unix.SOCK_DIAG_BY_FAMILY {
		return malformed("message type %d among destroy notifications", h.kind)
	}
	*d = Destroyed{}
	if err := parseSocket(&d.Socket, d, payload); err != nil {
		return err
	}
	d.IPv6 = payload[0] == unix.AF_INET6
	if d.Socket.Protocol != model.TCP && d.Socket.Protocol != model.UDP {
		return malformed("%s among destroy notifications of TCP and UDP", d.Socket.Protocol)
	}
	return nil
}

// connected reports whether a TCP socket ever began to connect to a peer: listeners
// never have a path MTU or a maximum segment size. A refused connect sets the remote
// port back to 0 and leaves both.
func connected(info []byte) bool {
	for _, offset := range []int{offsetReceiveMSS, offsetPathMTU, offsetAdvertisedMSS} {
		if len(info) >= offset+4 && binary.NativeEndian.Uint32(info[offset:]) != 0 {
			return true
		}
	}
	return false
}

// align rounds up to where the next attribute or message begins.
func align(length int) int { return (length + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
