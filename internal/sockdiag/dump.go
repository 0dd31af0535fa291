package sockdiag

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// table is one of the kernel's tables, with the request for it.
type table struct {
	protocol  model.Protocol
	autoBound bool // every socket of this dump has a port that the kernel chose
	request   []byte
	name      string
}

func newTable(family uint8, protocol model.Protocol, ports choice) table {
	name := protocol.String() + " sockets of IPv4"
	if family == unix.AF_INET6 {
		name = protocol.String() + " sockets of IPv6"
	}
	return table{
		protocol: protocol, autoBound: ports == kernelChosen, name: name,
		request: appendRequest(nil, family, protocol, ports),
	}
}

// listeners is the table of the TCP listeners of both families.
func listeners() table {
	return table{protocol: model.TCP, name: "tcp sockets", request: appendBothRequest(nil)}
}

// parseDump appends the sockets of one datagram to dst. done is true at the end of
// the dump, interrupted where its table changed meanwhile.
func parseDump(dst []model.Socket, b []byte, sequence uint32, t *table) (_ []model.Socket, done, interrupted bool, err error) {
	for len(b) > 0 {
		h, payload, rest, err := nextMessage(b)
		if err != nil {
			return dst, false, interrupted, err
		}
		b = rest
		if h.sequence != sequence {
			return dst, false, interrupted, malformed("an answer to request %d while waiting for %d", h.sequence, sequence)
		}
		interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
		switch h.kind {
		case unix.NLMSG_NOOP:
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return dst, true, interrupted, kernelError(payload, t)
		case unix.SOCK_DIAG_BY_FAMILY, typeTCPDiag:
			dst = append(dst, model.Socket{})
			s := &dst[len(dst)-1]
			if err := parseSocket(s, nil, payload); err != nil {
				return dst[:len(dst)-1], false, interrupted, err
			}
			s.Protocol, s.AutoBound = t.protocol, t.autoBound
			if s.Port == 0 { // not bound
				dst = dst[:len(dst)-1]
			}
		default:
			return dst, false, interrupted, malformed("message type %d", h.kind)
		}
	}
	return dst, false, interrupted, nil
}

func kernelError(payload []byte, t *table) error {
	code, err := errorCode(payload)
	if err != nil || code == 0 {
		return err
	}
	switch errno := syscall.Errno(code); errno {
	case syscall.ENOENT, // no handler for the protocol: its module is missing
		syscall.EOPNOTSUPP: // none for the older message: inet_diag is missing
		return &UnsupportedError{Feature: t.name, Remedy: remedyModules("inet_diag", t.protocol.String()+"_diag"), Err: errno}
	default:
		return errno
	}
}

// remedyModules is the remedy for a missing module of the kernel, the last of names,
// and those that it needs. The kernel could not load it by itself; see [LoadModules].
func remedyModules(names ...string) string {
	option := "CONFIG_INET_" + strings.ToUpper(strings.TrimPrefix(names[len(names)-1], "inet_"))
	return "on the host, run modprobe -a " + strings.Join(names, " ") +
		" and name them in /etc/modules-load.d/portwatcher.conf; where there are no such modules, use a kernel with " + option
}
