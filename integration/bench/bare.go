package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// bareScanner is the least that a scan can cost: the four dumps by blocking
// system calls, into one buffer, decoded into one slice. It trusts the kernel
// and has no time limit. The layouts are those of linux/inet_diag.h.
type bareScanner struct {
	fd       int
	requests [][]byte
	buffer   []byte
	sockets  []model.Socket
}

func openBare() (*bareScanner, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	s := &bareScanner{fd: fd, buffer: make([]byte, 32<<10)}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		s.requests = append(s.requests,
			bareRequest(family, unix.IPPROTO_TCP, 1<<10 /* TCP_LISTEN */, nil),
			bareRequest(family, unix.IPPROTO_UDP, 1<<7 /* TCP_CLOSE */, refuseAutoBound))
	}
	return s, nil
}

// refuseAutoBound refuses sockets whose port the kernel chose: where
// INET_DIAG_BC_AUTO (6) matches, the next operation jumps (INET_DIAG_BC_JMP,
// 1) past the end, otherwise it is jumped over.
var refuseAutoBound = []byte{6, 4, 8, 0, 1, 4, 8, 0}

func bareRequest(family, protocol byte, states uint32, filter []byte) []byte {
	b := make([]byte, 72) // nlmsghdr and inet_diag_req_v2
	if filter != nil {
		b = binary.NativeEndian.AppendUint16(b, uint16(4+len(filter)))
		b = binary.NativeEndian.AppendUint16(b, 1) // INET_DIAG_REQ_BYTECODE
		b = append(b, filter...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], 20) // SOCK_DIAG_BY_FAMILY
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[16], b[17] = family, protocol
	binary.NativeEndian.PutUint32(b[20:], states)
	return b
}

func (s *bareScanner) close() error { return unix.Close(s.fd) }

func (s *bareScanner) scan() (int, error) {
	s.sockets = s.sockets[:0]
	for _, request := range s.requests {
		if _, err := unix.Write(s.fd, request); err != nil {
			return 0, err
		}
		for done := false; !done; {
			n, err := unix.Read(s.fd, s.buffer)
			if err != nil {
				return 0, err
			}
			if done, err = s.decode(s.buffer[:n], model.Protocol(request[17])); err != nil {
				return 0, err
			}
		}
	}
	return len(s.sockets), nil
}

func (s *bareScanner) decode(b []byte, protocol model.Protocol) (done bool, err error) {
	for len(b) > 0 {
		length := binary.NativeEndian.Uint32(b)
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return true, fmt.Errorf("sock_diag: errno %d", -int32(binary.NativeEndian.Uint32(b[16:])))
		}
		s.append(b[16:length], protocol)
		b = b[(length+3)&^3:]
	}
	return false, nil
}

// append decodes an inet_diag_msg with its attributes.
func (s *bareScanner) append(m []byte, protocol model.Protocol) {
	socket := model.Socket{
		Protocol: protocol,
		Port:     binary.BigEndian.Uint16(m[4:]),
		Cookie:   uint64(binary.NativeEndian.Uint32(m[44:])) | uint64(binary.NativeEndian.Uint32(m[48:]))<<32,
		UID:      binary.NativeEndian.Uint32(m[64:]),
		Inode:    binary.NativeEndian.Uint32(m[68:]),
	}
	if m[0] == unix.AF_INET {
		socket.Address = netip.AddrFrom4([4]byte(m[8:]))
	} else {
		socket.Address = netip.AddrFrom16([16]byte(m[8:])).Unmap()
	}
	for m = m[72:]; len(m) > 0; {
		length := binary.NativeEndian.Uint16(m)
		switch binary.NativeEndian.Uint16(m[2:]) {
		case 11: // INET_DIAG_SKV6ONLY
			socket.IPv6Only = m[4] != 0
		case 21: // INET_DIAG_CGROUP_ID
			socket.Cgroup = binary.NativeEndian.Uint64(m[4:])
		}
		m = m[min((int(length)+3)&^3, len(m)):]
	}
	s.sockets = append(s.sockets, socket)
}
