// Package probe reports, through eBPF, each moment at which a socket of any network
// namespace on the host opens or closes, with the process that opened it.
//
// It watches TCP sockets that enter and leave LISTEN and UDP sockets that are
// bound by a call to bind. It does not assign sockets to containers, does not report
// what was open before it started, and reads no packets.
//
// Hooks, all but the first two a stable interface of the kernel:
//
//	fexit/inet_csk_listen_start  TCP opens
//	fentry/inet_csk_listen_stop  TCP closes
//	tp_btf/inet_sock_set_state   both, where the kernel refuses those two
//	cgroup/bind4, bind6          whether a UDP socket asked for port 0
//	cgroup/post_bind4, 6         UDP opens
//	cgroup/connect4, 6           a bound UDP socket connects: it closes
//	cgroup/sock_release          UDP closes
//
// The cgroup programs are attached by links to the root of the cgroup v2 hierarchy:
// they run for every process, and the kernel removes them when this process ends.
//
// # Every opening and closing is accounted for
//
// Each goes to exactly one of these, and [Stats] has the sum of each:
//
//   - the ring buffer, which [Probe.Read] reads: an [Event];
//   - a map in the kernel with an entry for each endpoint of a cgroup, or where
//     that is full an entry for the rest of the cgroup, which [Probe.Counts]
//     takes: exact numbers, with the process and the time of the last;
//   - where that is full too, or the kernel has no memory for a socket's state,
//     Stats.Lost: a number.
//
// Within its budget, 512 records a second, a cgroup may fill the whole ring; beyond,
// half of it with openings and seven eighths with the closings that follow them. So a
// storm leaves room for other cgroups, however long nobody reads. A burst limit (see
// [Probe.Configure]) makes openings counted earlier.
//
// A closing goes where its opening went, which the kernel remembers with the
// socket: a counted opening has its closing counted, in the same entry. The
// closing of an event is an event; where the ring has no room even for that, it is
// counted as missed. A socket that listens or is bound again is a new opening. A UDP
// socket that binds to port 0 is left out with its closing, unless [Options] or
// Configure include UDP clients.
//
// Taking the counts loses none and returns none twice: an empty map replaces the
// filled one, and the kernel returns from that only when no program uses the old one.
//
// Guarantees:
//
//   - Events of one socket come in the order they happened, and an open comes
//     before its close: the ring buffer is one queue for all processors.
//   - A cookie is the one that a TCP or UDP sock_diag dump shows. An MPTCP
//     listener is two kernel sockets; only its TCP one is reported, which is the
//     one in dumps, and not the one that SO_COOKIE gives to its process.
//   - Closes of sockets that were open before [Open] are reported too, except
//     UDP sockets whose port the kernel chose: nothing distinguishes those from clients.
//   - A TCP socket that listens without bind has Port 0 when it opens, where the
//     tracepoint is used. Its close has the port.
//   - A UDP client that the kernel gives a port on its first datagram, or on
//     connect, is not reported. One that binds to port 0 is, as AutoBound, if UDP
//     clients are included.
//
// Limits:
//
//   - A UDP socket is reported closed when it calls connect, although the call
//     may fail; a connect to AF_UNSPEC makes it a server again, without an event.
//     A dump finds both; see [Event.Connected].
//   - A UDP bind that another program of the same hook then denies, and where the
//     tracepoint is used a listen that fails in the kernel after it changed the
//     state, seem to open and close at once.
//   - A UDP socket of the kernel itself (WireGuard, VXLAN) is opened but never
//     closed: sock_release does not run for it.
//
// The kernel must be Linux 5.14 or later, with BTF. The tests pass on Linux 6.1,
// 6.12 and 6.18 (see qemu.sh). Versions from the kernel's history:
//
//	5.7   links to cgroups; bpf_get_netns_cookie
//	5.8   ring buffer; CLOCK_BOOTTIME in programs; iter/task_file (eaaacd23910f);
//	      reading kernel memory in cgroup hooks ("bpf: Extend
//	      bpf_base_func_proto helpers with probe_* and *current_task*")
//	5.9   cgroup/sock_release (f5836749c9c0)
//	5.10  maps in a map that differ in size (134fede4eecf)
//	5.11  no limit of locked memory for eBPF; socket storage in tracing programs
//	      (8e4597c627fb)
//	5.12  socket cookies in tracing programs (c5dbb89fc2ac)
//	5.14  SO_NETNS_COOKIE (e8b9eab99232)
//	5.15  the socket's own cgroup (8520e224f547): before, Socket.Cgroup is 0 and
//	      only TaskCgroup is known
package probe

import (
	"errors"
	"fmt"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// defaultRingBytes is the size of the ring buffer. A record takes 104 bytes.
const defaultRingBytes = 8 << 20

// defaultBudget is how many records of one cgroup in a second may fill the ring
// buffer: more than 100 openings and 100 closings a second of one container.
const defaultBudget = 512

// Kind is what happened to a socket.
type Kind uint8

const (
	// Opened: it can be spoken to from now on.
	Opened Kind = iota + 1
	// Closed: it cannot any more.
	Closed
)

// Event is an open or a close. It holds nothing of the reader's memory.
type Event struct {
	Kind Kind
	// Time is the kernel's (bpf_ktime_get_boot_ns).
	Time clock.Instant
	// Socket as it is at that moment. AutoBound of TCP means that it did not ask
	// for its port by number. Cgroup is the socket's, as in a dump: the cgroup of
	// the process that created it, also where a child or another process listens on
	// it. Of a close with Connected only Cookie, Protocol, Address, Port and
	// AutoBound are known.
	Socket model.Socket
	// NetnsCookie identifies the network namespace, see [NetnsCookie].
	NetnsCookie uint64

	// PID, Name and TaskCgroup are zero in closes, which may run in another process's
	// context.

	// PID is the process that called listen or bind, in the initial pid
	// namespace: a thread's group, not the thread.
	PID int
	// Name is that process's name, as in /proc/<pid>/comm.
	Name string
	// TaskCgroup is the id of that process's cgroup in the v2 hierarchy. It
	// differs from Socket.Cgroup where a socket was created by one cgroup and is
	// opened by another (socket activation), or the process has been moved.
	TaskCgroup uint64

	// Connected, of a close, means that a UDP socket is about to connect and becomes a
	// client.
	Connected bool
}

// Options configure [Open]. The zero value is valid.
type Options struct {
	// CgroupRoot is where the host's cgroup v2 hierarchy is; see [procfs.CgroupRoot].
	CgroupRoot string
	// BurstLimit and UDPClients are as in [Probe.Configure].
	BurstLimit int
	UDPClients bool

	// For tests; 0 means the defaults. ringBytes is rounded up to a power of two and at
	// least one page.
	ringBytes, budget int
}

// Stats are numbers of openings and closings since [Open], which only rise. Their sum is
// all that happened.
type Stats struct {
	// Opened and Closed were written to the ring buffer, for [Probe.Read].
	Opened, Closed uint64
	// CountedOpened and CountedClosed are in the numbers of [Probe.Counts].
	CountedOpened, CountedClosed uint64
	// Missed are the closings that found no room in the ring buffer. They are in
	// the numbers of [Probe.Counts].
	Missed uint64
	// Lost are openings and closings that found no room in the counts either, or
	// sockets for which the kernel had no memory.
	Lost uint64
}

// UnsupportedError reports that this host lacks something that the probe needs.
type UnsupportedError struct {
	Feature string // such as "cgroup/post_bind4"
	Remedy  string // what to do
	Err     error  // the kernel's error
}

// Error implements error.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("eBPF: %s is not available: %v (%s)", e.Feature, e.Err, e.Remedy)
}

// Unwrap returns the cause.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// ErrFlushed is the end of a flush: see [Probe.Flush].
var ErrFlushed = errors.New("eBPF: flushed")

// MalformedError reports a record that is not what the programs write.
type MalformedError struct {
	What string
}

// Error implements error.
func (e *MalformedError) Error() string { return "eBPF: malformed record: " + e.What }

func malformed(format string, args ...any) error {
	return &MalformedError{What: fmt.Sprintf(format, args...)}
}
