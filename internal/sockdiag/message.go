package sockdiag

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// Numbers and sizes of include/uapi/linux/inet_diag.h.
const (
	typeTCPDiag       = 18 // TCPDIAG_GETSOCK
	requestLength     = 56 // struct inet_diag_req_v2
	bothRequestLength = 60 // struct inet_diag_req
	idLength          = 48 // struct inet_diag_sockid
	messageLength     = 72 // struct inet_diag_msg
	attributeBytecode = 1  // INET_DIAG_REQ_BYTECODE
	attributeIPv6Only = 11 // INET_DIAG_SKV6ONLY, u8
	attributeCgroup   = 21 // INET_DIAG_CGROUP_ID, u64
	bytecodeJump      = 1  // INET_DIAG_BC_JMP
	bytecodeAuto      = 6  // INET_DIAG_BC_AUTO
	bytecodeOperation = 4  // struct inet_diag_bc_op

	attributeTypeMask   = 0x3fff // NLA_TYPE_MASK, include/uapi/linux/netlink.h
	stateClose          = 7      // TCP_CLOSE, also UDP bound and unconnected
	stateListen         = 10     // TCP_LISTEN
	offsetSourcePort    = 4      // within inet_diag_msg: inet_diag_sockid
	offsetDestPort      = 6
	offsetSourceAddress = 8
	offsetCookie        = 44
	offsetUID           = 64
	offsetInode         = 68
)

// choice narrows a dump by who chose the port.
type choice uint8

const (
	anyPort      choice = iota
	kernelChosen        // autobind, or bind to port 0
	userChosen
)

// appendRequest appends one dump request for the listening or unconnected sockets of
// a family and protocol.
func appendRequest(b []byte, family uint8, protocol model.Protocol, ports choice) []byte {
	filter := bytecode(ports)
	length := requestLength
	if len(filter) > 0 {
		length += unix.SizeofNlAttr + len(filter)
	}
	state := uint32(1) << stateListen
	if protocol == model.UDP {
		state = 1 << stateClose
	}
	b = appendHeader(b, unix.SOCK_DIAG_BY_FAMILY, length)
	b = append(b, family, uint8(protocol), 0, 0)
	b = binary.NativeEndian.AppendUint32(b, state)
	b = append(b, make([]byte, idLength)...) // any address and port
	if len(filter) > 0 {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(filter)))
		b = binary.NativeEndian.AppendUint16(b, attributeBytecode)
		b = append(b, filter...)
	}
	return b
}

// appendBothRequest appends a dump request for the TCP listeners of IPv4 and IPv6,
// which are in one table. Only the older message, TCPDIAG_GETSOCK, can request both
// (inet_diag_dump_compat in net/ipv4/inet_diag.c); the newer one walks the table twice.
func appendBothRequest(b []byte) []byte {
	b = appendHeader(b, typeTCPDiag, bothRequestLength)
	b = append(b, make([]byte, 4+idLength)...) // any family, address and port
	b = binary.NativeEndian.AppendUint32(b, 1<<stateListen)
	return binary.NativeEndian.AppendUint32(b, 0) // idiag_dbs, unused
}

func appendHeader(b []byte, kind uint16, length int) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+length))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = binary.NativeEndian.AppendUint32(b, 0)    // sequence, set for each dump
	return binary.NativeEndian.AppendUint32(b, 0) // port id: the kernel
}

// bytecode is the filter that runs in the kernel. An operation jumps by "yes" or "no"
// bytes. A jump exactly to the end accepts a socket, one four bytes past it refuses it.
func bytecode(ports choice) []byte {
	operation := func(code, yes uint8, no uint16) []byte {
		return binary.NativeEndian.AppendUint16([]byte{code, yes}, no)
	}
	switch ports {
	case kernelChosen:
		return operation(bytecodeAuto, bytecodeOperation, 2*bytecodeOperation)
	case userChosen: // where AUTO matches, a second jump always refuses
		return append(operation(bytecodeAuto, bytecodeOperation, 2*bytecodeOperation),
			operation(bytecodeJump, bytecodeOperation, 2*bytecodeOperation)...)
	}
	return nil
}

// header is struct nlmsghdr.
type header struct {
	length   uint32
	kind     uint16
	flags    uint16
	sequence uint32
}

// nextMessage splits the first netlink message off b. The payload is a part of b.
func nextMessage(b []byte) (h header, payload, rest []byte, err error) {
	if len(b) < unix.SizeofNlMsghdr {
		return h, nil, nil, malformed("%d bytes left where a netlink header takes %d", len(b), unix.SizeofNlMsghdr)
	}
	h = header{
		length:   binary.NativeEndian.Uint32(b),
		kind:     binary.NativeEndian.Uint16(b[4:]),
		flags:    binary.NativeEndian.Uint16(b[6:]),
		sequence: binary.NativeEndian.Uint32(b[8:]),
	}
	if h.length < unix.SizeofNlMsghdr || uint64(h.length) > uint64(len(b)) {
		return h, nil, nil, malformed("a length of %d in a netlink header, with %d bytes there", h.length, len(b))
	}
	next := min(align(int(h.length)), len(b))
	return h, b[unix.SizeofNlMsghdr:h.length], b[next:], nil
}

// errorCode reads the negative errno at the start of an NLMSG_ERROR or
// NLMSG_DONE payload; 0 is success.
func errorCode(payload []byte) (int, error) {
	if len(payload) < 4 {
		return 0, malformed("%d bytes where an error code takes 4", len(payload))
	}
	code := int32(binary.NativeEndian.Uint32(payload))
	if code > 0 {
		return 0, malformed("a positive error code %d", code)
	}
	return -int(code), nil
}

// parseSocket reads an inet_diag_msg with its attributes into s, and those of destroy
// notifications into d, which is nil in a dump.
func parseSocket(s *model.Socket, d *Destroyed, payload []byte) error {
	if len(payload) < messageLength {
		return malformed("%d bytes where an inet_diag_msg takes %d", len(payload), messageLength)
	}
	*s = model.Socket{
		Port: binary.BigEndian.Uint16(payload[offsetSourcePort:]),
		Cookie: uint64(binary.NativeEndian.Uint32(payload[offsetCookie:])) |
			uint64(binary.NativeEndian.Uint32(payload[offsetCookie+4:]))<<32,
		UID:   binary.NativeEndian.Uint32(payload[offsetUID:]),
		Inode: binary.NativeEndian.Uint32(payload[offsetInode:]),
	}
	address := payload[offsetSourceAddress:]
	switch family := payload[0]; family {
	case unix.AF_INET:
		s.Address = netip.AddrFrom4([4]byte(address))
	case unix.AF_INET6:
		s.Address = netip.AddrFrom16([16]byte(address)).Unmap()
	default:
		return malformed("address family %d, neither AF_INET nor AF_INET6", family)
	}
	return parseAttributes(s, d, payload[messageLength:])
}

func parseAttributes(s *model.Socket, d *Destroyed, b []byte) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofNlAttr {
			return malformed("%d bytes left where an attribute header takes %d", len(b), unix.SizeofNlAttr)
		}
		length := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) & attributeTypeMask
		if length < unix.SizeofNlAttr || length > len(b) {
			return malformed("attribute %d claims %d bytes, with %d there", kind, length, len(b))
		}
		value := b[unix.SizeofNlAttr:length]
		switch {
		case kind == attributeIPv6Only:
			if len(value) < 1 {
				return malformed("INET_DIAG_SKV6ONLY is empty")
			}
			s.IPv6Only = value[0] != 0
		case kind == attributeCgroup:
			if len(value) < 8 {
				return malformed("INET_DIAG_CGROUP_ID has %d bytes, not 8", len(value))
			}
			s.Cgroup = binary.NativeEndian.Uint64(value)
		case kind == attributeProtocol && d != nil:
			if len(value) < 1 {
				return malformed("INET_DIAG_PROTOCOL is empty")
			}
			s.Protocol = model.Protocol(value[0])
		case kind == attributeInfo && d != nil:
			d.Client = connected(value)
		}
		b = b[min(align(length), len(b)):]
	}
	return nil
}
