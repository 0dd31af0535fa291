// Package probe tells, through eBPF, the moment a socket of any network
// namespace on the host can be spoken to and the moment it no longer can, with
// the process that opened it.
//
// It watches TCP sockets that enter and leave LISTEN and UDP sockets that are
// bound by a call to bind. It knows neither containers nor what was open before
// it started, and it does not look at packets.
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
// The cgroup programs hang on links to the root of the cgroup v2 hierarchy, so
// that they reach every process and vanish with this one.
//
// # Every opening and closing is accounted for
//
// Each goes to exactly one of these, and [Stats] has the sum of each:
//
//   - the ring buffer, which [Probe.Read] reads: an [Event];
//   - a map in the kernel with an entry for each endpoint of a cgroup, or where
//     that is full an entry for the rest of the cgroup, which [Probe.Counts]
//     takes: numbers, exact, with the process and the time of the last;
//   - where that is full too, or the kernel has no memory for a socket's state,
//     Stats.Lost: a number.
//
// It goes to the ring where its cgroup may fill it. Within its budget, 512 records
// a second, a cgroup may fill all of it; beyond, half with openings and seven
// eighths with the closings that follow them. So a storm leaves room for its
// neighbours, however long nobody reads. A burst limit (see [Probe.Configure]) has
// openings counted earlier.
//
// A closing goes where its opening went, which the kernel remembers with the
// socket: a counted opening has its closing counted, in the same entry. The
// closing of an event is an event; where the ring has no room even for that, it is
// counted as missed. A socket that listens again, or is bound again, is decided
// anew. A UDP socket that binds to port 0 is left out with its closing, unless
// [Options] or Configure ask for UDP clients.
//
// The hand-over of the counts loses nothing and doubles nothing: an empty map
// takes the place of the filled one, and the kernel returns from that once no
// program uses the old one.
//
// What the events promise:
//
//   - Events of one socket come in the order they happened, and an open comes
//     before its close: the ring buffer is one queue for all processors.
//   - A cookie is the one that a TCP or UDP sock_diag dump shows. An MPTCP
//     listener is two kernel sockets; only its TCP one is reported, which is the
//     one in dumps, and not the one that SO_COOKIE gives to its process.
//   - Closes of sockets that were open before [Open] are reported too, but for
//     UDP sockets whose port the kernel chose: those cannot be told from clients.
//   - A TCP socket that listens without bind has Port 0 when it opens, where the
//     tracepoint is used. Its close has the port.
//   - A UDP client that the kernel gives a port on its first datagram, or on
//     connect, is not reported. One that binds to port 0 is, as AutoBound, if UDP
//     clients are asked for.
//
// What they cannot tell:
//
//   - A UDP socket is reported closed when it calls connect, although the call
//     may still fail; a connect to AF_UNSPEC makes it a server again, unseen.
//     A dump settles both; see [Event.Connected].
//   - A UDP bind that another program of the same hook then denies, and where the
//     tracepoint is used a listen that fails in the kernel after it changed the
//     state, look like a socket open for an instant.
//   - A UDP socket of the kernel itself (WireGuard, VXLAN) is opened but never
//     closed here: sock_release leaves those out.
//
// The kernel must be Linux 5.14 or later, with BTF. The tests pass on Linux 6.1,
// 6.12 and 6.18 (see qemu.sh); what needs which version is from the kernel's
// history:
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

// DefaultRingBytes is the ring buffer's size where Options leave it 0. A record
// takes 104 bytes.
const DefaultRingBytes = 8 << 20

// defaultBudget is how many records of one cgroup in a second may fill the ring
// buffer. A container with 100 openings and 100 closings a second stays below it.
const defaultBudget = 512

// Kind says what happened to a socket.
type Kind uint8

const (
	// Opened: it can be spoken to.
	Opened Kind = iota + 1
	// Closed: it no longer can.
	Closed
)

// String returns "opened" or "closed".
func (k Kind) String() string {
	switch k {
	case Opened:
		return "opened"
	case Closed:
		return "closed"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Event is an open or a close. It holds nothing of the reader's memory: a copy
// stays good.
type Event struct {
	Kind Kind
	// Time is when it happened, by the kernel's own stamp (bpf_ktime_get_boot_ns).
	Time clock.Instant
	// Socket as it is at that moment. AutoBound of TCP means that it did not ask
	// for its port by number. Cgroup is the socket's, as in a dump: the cgroup of
	// the process that created it, also where a child or another process that
	// was handed the socket listens on it. Of a close with Connected set only
	// Cookie, Protocol, Address, Port and AutoBound are known.
	Socket model.Socket
	// NetnsCookie identifies the network namespace, see [NetnsCookie].
	NetnsCookie uint64

	// The rest is of opens only, and zero in closes: those may run in another
	// process's context.

	// PID is the process that called listen or bind, in the initial pid
	// namespace: a thread's group, not the thread.
	PID int
	// Name is that process's name, as in /proc/<pid>/comm.
	Name string
	// TaskCgroup is the id of that process's cgroup in the v2 hierarchy. It
	// differs from Socket.Cgroup where a socket was created by one cgroup and is
	// opened by another (socket activation), or the process has been moved.
	TaskCgroup uint64

	// Connected, of a close, says that a UDP socket is about to connect: it
	// lives on as a client.
	Connected bool
}

// Options configure [Open]. The zero value is good.
type Options struct {
	// CgroupRoot is the root of the host's cgroup v2 hierarchy or, on a hybrid
	// host, the folder that holds it as "unified". Empty means /sys/fs/cgroup.
	CgroupRoot string
	// RingBytes is the size of the ring buffer, rounded up to a power of two and
	// at least one page; 0 means DefaultRingBytes.
	RingBytes int
	// BurstLimit and UDPClients are as in [Probe.Configure].
	BurstLimit int
	UDPClients bool

	budget int // for tests; 0 means defaultBudget
}

// Stats are what became of the openings and closings since [Open]. They only
// rise. What happened is the sum of them all.
type Stats struct {
	// Opened and Closed were written to the ring buffer, for [Probe.Read].
	Opened, Closed uint64
	// CountedOpened and CountedClosed are in the numbers of [Probe.Counts].
	CountedOpened, CountedClosed uint64
	// Missed are the closings that found no room in the ring buffer. They are in
	// the numbers of [Probe.Counts].
	Missed uint64
	// Lost are openings and closings that found no room in the counts either, or
	// sockets for which the kernel had no memory. Nothing is known of them.
	Lost uint64
}

// UnsupportedError says that something the probe needs is not to be had here.
type UnsupportedError struct {
	Feature string // such as "cgroup/post_bind4"
	Remedy  string // what to do about it
	Err     error  // what the kernel said
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("eBPF: %s is not available: %v (%s)", e.Feature, e.Err, e.Remedy)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// ErrFlushed answers a flush: see [Probe.Flush].
var ErrFlushed = errors.New("eBPF: flushed")

// MalformedError says that a record is not what the programs write.
type MalformedError struct {
	What string
}

func (e *MalformedError) Error() string { return "eBPF: malformed record: " + e.What }

func malformed(format string, args ...any) error {
	return &MalformedError{What: fmt.Sprintf(format, args...)}
}
