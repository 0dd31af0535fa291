package probe

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Count has the numbers, since the last [Probe.Counts], of one endpoint of one cgroup,
// or of the rest of a cgroup.
//
// Opened, Closed and Missed are exact. The details are those of one of the last
// openings or closings: where two processors count at once, they may be mixed.
type Count struct {
	// NetnsCookie identifies the network namespace, see [NetnsCookie].
	NetnsCookie uint64
	// Cgroup is the socket's cgroup or, before Linux 5.15, that of the task.
	Cgroup uint64
	// TaskCgroup is the cgroup of the process that opened last, or 0.
	TaskCgroup uint64
	// Socket has Protocol and, except with Rest, Address and Port of all that is
	// counted; the other details are of the socket opened last. Where nothing was
	// opened Cookie is 0. Port is 0 also where a TCP socket listened without bind.
	Socket model.Socket
	// PID and Name are the process that opened last, as in [Event]; 0 and empty
	// where nothing was opened.
	PID  int
	Name string
	// SameProcess means that every opening was by PID.
	SameProcess bool
	// Opened and Closed are the openings and closings that are no [Event]. The closing
	// of a counted opening is counted too, perhaps in a later Count.
	Opened, Closed uint64
	// Missed are closings of sockets whose opening was an [Event] (or was before
	// [Open]) and that found no room in the ring buffer.
	Missed uint64
	// First and Last bound the times of all that is counted.
	First, Last clock.Instant
	// LastOpened and LastClosed (or missed) are zero where there was none.
	LastOpened, LastClosed clock.Instant
	// ClosedCookie is the cookie of the socket closed (or missed) last.
	ClosedCookie uint64
	// Rest means that there was no entry left for the endpoint: several endpoints are
	// counted here.
	Rest bool
}

// Sizes of struct count_key and struct count in bpf/account.h, whose fields have the
// offsets below.
const (
	countKeySize   = 40
	countValueSize = 112
)

// parseCount decodes an entry into count, which is unchanged after an error. The
// error is a *MalformedError.
func parseCount(key, value []byte, count *Count, names names) error {
	if len(key) != countKeySize || len(value) != countValueSize {
		return malformed("a count of %d and %d bytes, want %d and %d", len(key), len(value), countKeySize, countValueSize)
	}
	word := func(at int) uint64 { return binary.NativeEndian.Uint64(value[at:]) }
	half := func(at int) uint32 { return binary.NativeEndian.Uint32(value[at:]) }

	protocol, family, flags, several := model.Protocol(key[34]), key[35], value[92], value[93]
	if protocol != model.TCP && protocol != model.UDP {
		return malformed("protocol %d of a count, want %d or %d", protocol, model.TCP, model.UDP)
	}
	if flags&^knownFlags != 0 {
		return malformed("flags %#x of a count, known are %#x", flags, knownFlags)
	}
	if several > 1 {
		return malformed("%d for several processes of a count, want 0 or 1", several)
	}
	var address netip.Addr
	if family != 0 {
		var ok bool
		if address, ok = parseAddress(family, key[16:32]); !ok {
			return malformed("address family %d of a count, want %d, %d or 0", family, unix.AF_INET, unix.AF_INET6)
		}
	}

	*count = Count{
		NetnsCookie: binary.NativeEndian.Uint64(key[8:]),
		Cgroup:      binary.NativeEndian.Uint64(key),
		TaskCgroup:  word(56),
		Socket: model.Socket{
			Cookie: word(48), Protocol: protocol, Address: address,
			Port:     binary.NativeEndian.Uint16(key[32:]),
			IPv6Only: flags&flagIPv6Only != 0, AutoBound: flags&flagAutoBound != 0,
			Inode: half(80), UID: half(84), Cgroup: binary.NativeEndian.Uint64(key),
		},
		PID:    int(half(88)),
		Opened: word(0), Closed: word(8), Missed: word(16),
		First: clock.Instant(word(24)), Last: clock.Instant(word(32)),
		LastOpened: clock.Instant(word(40)), LastClosed: clock.Instant(word(64)),
		ClosedCookie: word(72),
		Rest:         family == 0,
	}
	count.SameProcess = count.Opened > 0 && several == 0
	if count.Opened > 0 {
		count.Name = names.get([nameSize]byte(value[96:112]))
	}
	return nil
}
