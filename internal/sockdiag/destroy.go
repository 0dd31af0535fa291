package sockdiag

import (
	"encoding/binary"

	"portwatcher/internal/model"
)

// Destroyed is a socket that went away, as far as the kernel's message describes it:
// inode, user, cgroup and process are not in it.
type Destroyed struct {
	// Socket has cookie, protocol, address and port.
	Socket model.Socket
	// Client is true for what was certainly no listener: an outgoing connection
	// attempt that failed.
	Client bool
	// IPv6 is true for a socket of AF_INET6, also where its address is IPv4's.
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
	if h.kind != typeSockDiagFamily {
		return malformed("message type %d among destroy notifications", h.kind)
	}
	*d = Destroyed{}
	if err := parseSocket(&d.Socket, payload, 0); err != nil {
		return err
	}
	d.IPv6 = payload[0] == familyIPv6
	for rest := payload[messageLength:]; len(rest) > 0; { // its form is checked
		length := int(binary.NativeEndian.Uint16(rest))
		value := rest[attributeHeader:length]
		switch binary.NativeEndian.Uint16(rest[2:]) & attributeTypeMask {
		case attributeProtocol:
			if len(value) < 1 {
				return malformed("INET_DIAG_PROTOCOL is empty")
			}
			d.Socket.Protocol = model.Protocol(value[0])
		case attributeInfo:
			d.Client = connected(value)
		}
		rest = rest[min(align(length), len(rest)):]
	}
	if d.Socket.Protocol != model.TCP && d.Socket.Protocol != model.UDP {
		return malformed("%s among destroy notifications of TCP and UDP", d.Socket.Protocol)
	}
	return nil
}

// connected returns whether a TCP socket ever began to connect to a peer: listeners
// never have a path MTU or a maximum segment size, while a refused connect,
// which sets the remote port back to 0, leaves them behind.
func connected(info []byte) bool {
	for _, offset := range []int{offsetReceiveMSS, offsetPathMTU, offsetAdvertisedMSS} {
		if len(info) >= offset+4 && binary.NativeEndian.Uint32(info[offset:]) != 0 {
			return true
		}
	}
	return false
}

// align rounds up to where the next attribute or message begins.
func align(length int) int { return (length + netlinkAlignment - 1) &^ (netlinkAlignment - 1) }
