package probe

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// recordSize is the size of struct record in bpf/sockets.bpf.c, whose fields have the
// offsets below. Numbers are in the host's byte order, addresses in network byte order.
const recordSize = 96

const (
	flagIPv6Only = 1 << iota
	flagAutoBound
	flagConnected
	knownFlags = flagIPv6Only | flagAutoBound | flagConnected
)

// nameSize is TASK_COMM_LEN, include/linux/sched.h.
const nameSize = 16

// parseAddress decodes the 16 bytes of an address; ok is false for an unknown family.
func parseAddress(family byte, raw []byte) (address netip.Addr, ok bool) {
	switch family {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(raw[:4])), true
	case unix.AF_INET6:
		return netip.AddrFrom16([16]byte(raw)).Unmap(), true
	}
	return netip.Addr{}, false
}

// maxNames bounds the table of names. A host has fewer in practice; beyond, the table is
// cleared.
const maxNames = 4096

// names keeps one string for each process name, so that an event with a known
// name costs no allocation.
type names map[[nameSize]byte]string

func (n names) get(raw [nameSize]byte) string {
	name, ok := n[raw]
	if ok {
		return name
	}
	if len(n) >= maxNames {
		clear(n)
	}
	name = unix.ByteSliceToString(raw[:])
	n[raw] = name
	return name
}

// parseRecord decodes a record into event, which is unchanged after an error. The
// error is a *MalformedError.
func parseRecord(raw []byte, event *Event, names names) error {
	if len(raw) != recordSize {
		return malformed("%d bytes, want %d", len(raw), recordSize)
	}
	word := func(at int) uint64 { return binary.NativeEndian.Uint64(raw[at:]) }
	half := func(at int) uint32 { return binary.NativeEndian.Uint32(raw[at:]) }

	kind, protocol, flags := Kind(raw[54]), model.Protocol(raw[55]), raw[57]
	if kind != Opened && kind != Closed {
		return malformed("kind %d, want %d or %d", kind, Opened, Closed)
	}
	if protocol != model.TCP && protocol != model.UDP {
		return malformed("protocol %d, want %d or %d", protocol, model.TCP, model.UDP)
	}
	if flags&^knownFlags != 0 {
		return malformed("flags %#x, known are %#x", flags, knownFlags)
	}
	address, ok := parseAddress(raw[56], raw[64:80])
	if !ok {
		return malformed("address family %d, want %d or %d", raw[56], unix.AF_INET, unix.AF_INET6)
	}
	cookie := word(8)
	if cookie == 0 {
		return malformed("no socket cookie")
	}

	*event = Event{
		Kind: kind, Time: clock.Instant(word(0)),
		Socket: model.Socket{
			Cookie: cookie, Protocol: protocol, Address: address,
			Port:     binary.NativeEndian.Uint16(raw[52:]),
			IPv6Only: flags&flagIPv6Only != 0, AutoBound: flags&flagAutoBound != 0,
			Inode: half(40), UID: half(44), Cgroup: word(24),
		},
		NetnsCookie: word(16),
		TaskCgroup:  word(32),
		PID:         int(half(48)),
		Connected:   flags&flagConnected != 0,
	}
	if kind == Opened {
		event.Name = names.get([nameSize]byte(raw[80:96]))
	}
	return nil
}
