// Package model holds the words of portwatcher as Go types: container,
// network namespace, socket, endpoint, process, exposure and event.
//
// It does no I/O and imports nothing of the project, so that every package can
// use it. The JSON form of [Event] and [Open] is a contract with users: fields
// are added, never renamed.
package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Protocol is the transport protocol of a socket.
type Protocol uint8

// The values are the IANA protocol numbers, as the kernel uses them.
// Source: https://www.iana.org/assignments/protocol-numbers.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns the lower-case name, as in events.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "protocol-" + strconv.Itoa(int(p))
}

// MarshalText implements [encoding.TextMarshaler].
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Protocol) UnmarshalText(text []byte) error {
	for _, known := range []Protocol{TCP, UDP} {
		if string(text) == known.String() {
			*p = known
			return nil
		}
	}
	return fmt.Errorf("protocol %q: allowed are tcp, udp", text)
}

// Namespace identifies a network namespace on one host, for as long as
// something keeps it alive: device and inode of /proc/<pid>/ns/net.
type Namespace struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// UnseenDevice is the device of namespaces that only eBPF has reported. Inode is then the
// namespace's cookie; the kernel uses no such device.
const UnseenDevice = ^uint64(0)

// String returns the form that /proc shows, "net:[4026531840]", or "net:[cookie 4711]" for
// a namespace that only eBPF has reported.
func (n Namespace) String() string {
	number := strconv.FormatUint(n.Inode, 10)
	if n.Device == UnseenDevice {
		number = "cookie " + number
	}
	return "net:[" + number + "]"
}

// Socket is one kernel socket that can be spoken to: TCP in LISTEN, or UDP
// bound and unconnected.
type Socket struct {
	// Cookie is the kernel's 64-bit identity of the socket within its
	// namespace: the same in a dump, in a destroy message and in eBPF.
	Cookie   uint64
	Protocol Protocol
	// Address is the local address. An IPv4-mapped IPv6 address is unmapped.
	Address netip.Addr
	Port    uint16
	// IPv6Only means that a socket on the IPv6 wildcard takes no IPv4 traffic.
	IPv6Only bool
	// AutoBound means that the kernel chose the port (autobind, or bind to 0).
	AutoBound bool
	// Inode is the number of the socket's inode as in /proc/<pid>/fd, or 0
	// where the source does not know it.
	Inode uint32
	// UID is the user id of the socket's owner in the initial user namespace.
	UID uint32
	// Cgroup is the id of the socket's cgroup in the v2 hierarchy (the inode
	// of the cgroup's folder), or 0 where the source does not know it.
	Cgroup uint64
}

// MadeUpCookie marks the cookie of a socket that was found by a source without
// cookies: it is this number and the inode's. The kernel's own cookies count up from 1
// and, rarely, down from 1<<64 - 1 (gen_cookie_next in include/linux/cookie.h): neither
// gets there.
const MadeUpCookie = 1 << 63

// HasMadeUpCookie reports whether the cookie is made from the inode.
func (s *Socket) HasMadeUpCookie() bool { return s.Cookie>>32 == MadeUpCookie>>32 }

// Endpoint is where something listens: it is open while at least one of its
// sockets is (SO_REUSEPORT, forks, MPTCP and dual stack make several).
type Endpoint struct {
	// Container is the full id of the container; empty in events of the host's own ports.
	Container string
	// Namespace is empty in the container's own network namespace, otherwise
	// [Namespace.String] of one that the container has made itself.
	Namespace string
	Protocol  Protocol
	Address   netip.Addr
	Port      uint16
}

// Compare orders endpoints by container, port, protocol, address and namespace.
func (e Endpoint) Compare(other Endpoint) int {
	return cmp.Or(
		cmp.Compare(e.Container, other.Container),
		cmp.Compare(e.Port, other.Port),
		cmp.Compare(e.Protocol, other.Protocol),
		e.Address.Compare(other.Address),
		cmp.Compare(e.Namespace, other.Namespace),
	)
}

// Source is what observed an event.
type Source string

const (
	// SourceEBPF: an eBPF program, at the very moment.
	SourceEBPF Source = "ebpf"
	// SourceSockDiag: a dump by sock_diag, up to a scan interval later.
	SourceSockDiag Source = "sock_diag"
	// SourceDestroy: the kernel's notification that a socket was destroyed.
	SourceDestroy Source = "destroy"
	// SourceProc: /proc, up to a scan interval later.
	SourceProc Source = "proc"
	// SourceEngine: the container died, or its networks or published ports changed.
	SourceEngine Source = "engine"
	// SourceRTNetlink: the kernel's report that interfaces or addresses of a network namespace
	// changed.
	SourceRTNetlink Source = "rtnetlink"
	// SourceRestart: the difference to the state before portwatcher stopped.
	SourceRestart Source = "restart"
)

// Type is the kind of an event.
type Type string

const (
	// Opened: an endpoint has its first socket.
	Opened Type = "opened"
	// Closed: an endpoint has lost its last socket.
	Closed Type = "closed"
	// Changed: another process holds the endpoint, or others can reach it; see Event.Change.
	Changed Type = "changed"
	// Bursts: openings and closings of one container that were counted instead of
	// reported one by one; see [Burst].
	Bursts Type = "burst"
	// Gap: something was, or may have been, missed; see Event.Reason and Event.Lost.
	Gap Type = "gap"
	// Drifted: a drift began or ended without an opening, closing or change of its endpoint;
	// see Event.Drift and Event.Ended.
	Drifted Type = "drift"
)

// Change is what a changed event reports.
type Change string

const (
	// ChangeProcess: another process holds the endpoint.
	ChangeProcess Change = "process"
	// ChangeExposure: exposure or published addresses differ; the event has the previous ones.
	ChangeExposure Change = "exposure"
	// ChangeForward: another container, or none, publishes this port of the host.
	ChangeForward Change = "forward"
)

// ContainerRef names a container in an event.
type ContainerRef struct {
	// ID is empty where a drift event is about a target that was not seen running; Name is
	// then the target.
	ID    string `json:"id,omitempty"`
	Name  string `json:"name"`
	Image string `json:"image,omitempty"`
	// Project and Service come from the Compose labels.
	Project string `json:"project,omitempty"`
	Service string `json:"service,omitempty"`
	// Labels are the container's. A [Selection] uses them; they are no part of the JSON
	// form, and nil where they are not known.
	Labels map[string]string `json:"-"`
	// StartedAt is when the container was last started, in UTC. It is no part of the JSON form,
	// and zero where it is not known.
	StartedAt time.Time `json:"-"`
}

// Same reports whether two references name the same container alike.
func (c *ContainerRef) Same(other *ContainerRef) bool {
	return c.ID == other.ID && c.Name == other.Name && c.Image == other.Image && c.Project == other.Project && c.Service == other.Service
}

// Listener is the part that events and lists of open endpoints have in common.
type Listener struct {
	Host      string        `json:"host,omitempty"`
	Container *ContainerRef `json:"container,omitempty"`
	// Namespace is that of [Endpoint].
	Namespace string     `json:"namespace,omitempty"`
	Protocol  Protocol   `json:"protocol,omitzero"`
	Address   netip.Addr `json:"address,omitzero"`
	// IPv6Only means that a listener on the IPv6 wildcard takes no IPv4 traffic
	// (IPV6_V6ONLY, ipv6(7)). False where it takes both, where the source does not
	// report it (proc), and on every other address.
	IPv6Only  bool      `json:"ipv6_only,omitempty"`
	Port      uint16    `json:"port,omitempty"`
	Processes []Process `json:"processes,omitempty"`
	Exposure  Exposure  `json:"exposure,omitempty"`
	// Published lists the host addresses that forward here, as "address:port".
	Published []string `json:"published,omitempty"`
	// Outside means that another machine can reach it, as far as addresses and networks show;
	// nil where the exposure is not known. [Listener.SetReach] sets it.
	Outside *bool `json:"outside,omitempty"`
	// Forward belongs to a port of the host that a container publishes; else nil. Immutable.
	Forward *Forward `json:"forward,omitempty"`
	Source  Source   `json:"source,omitempty"`
}

// Event is an endpoint that opened, closed or changed, a burst, a gap in what was
// observed, or a drift. It is immutable: the sinks share it.
type Event struct {
	// ID rises by one for each event.
	ID uint64 `json:"id"`
	// Time is when it happened, as exactly as the source observed it, in UTC.
	Time time.Time `json:"time"`
	Type Type      `json:"type"`
	Listener
	// Transient means that the endpoint opened and closed between two snapshots.
	Transient bool `json:"transient"`
	// OpenedAt and OpenSeconds belong to closed events.
	OpenedAt    time.Time `json:"opened_at,omitzero"`
	OpenSeconds *float64  `json:"open_seconds,omitempty"`
	// Change belongs to changed events, PreviousExposure and PreviousPublished to those with
	// ChangeExposure, PreviousForward to those with ChangeForward.
	Change            Change   `json:"change,omitempty"`
	PreviousExposure  Exposure `json:"previous_exposure,omitempty"`
	PreviousPublished []string `json:"previous_published,omitempty"`
	PreviousForward   *Forward `json:"previous_forward,omitempty"`
	// Drift is the drift of the endpoint after an opened or changed event, and the one that
	// ends with a closed event; empty where there is none. A drift event always has it: the
	// drift that begins, or ends, with the event.
	Drift Drift `json:"drift,omitempty"`
	// Ended means that the drift of a drift event ends. Such an event has the endpoint if it
	// is open; else (missing, uncovered) what the drift is about.
	Ended bool `json:"ended,omitempty"`
	// Expected is what the expectation allows, for people, as in [OpenDrift]; empty where
	// there is no drift, or nothing is expected.
	Expected string `json:"expected,omitempty"`
	// Reason belongs to gap events and to drift events (why it begins or ends now), Lost to
	// gap events: the number of openings and closings that the gap stands for; 0 where it is
	// not known.
	Reason string `json:"reason,omitempty"`
	Lost   uint64 `json:"lost,omitempty"`
	// Burst belongs to burst events, and is nil in others. The JSON form has its fields
	// beside the others.
	*Burst
}

// MaxBurstPorts bounds Burst.Ports.
const MaxBurstPorts = 64

// Burst stands for openings and closings of one container that were counted. The
// counts are of sockets: each of a SO_REUSEPORT group counts. Protocol, Address,
// Port and Processes of the event are set as far as all of them have the same.
//
// A burst changes nothing of what is open: where an endpoint is open after it and
// was not before, or the other way round, that opening or closing is an event of
// its own, and not counted here.
type Burst struct {
	Opened uint64 `json:"opened"`
	Closed uint64 `json:"closed"`
	// First and Last are the times of the first and the last of them, in UTC.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Ports are the distinct ports, in rising order, MaxBurstPorts of them at most.
	// PortCount is their number; where the kernel had no room to distinguish the ports,
	// the least that it can be.
	Ports     []uint16 `json:"ports,omitempty"`
	PortCount int      `json:"port_count"`
}

// Open is an endpoint that is open now, as `portwatcher ports` lists it.
type Open struct {
	// Time is when it was last seen open, in UTC.
	Time time.Time `json:"time"`
	Listener
	// OpenedAt is when it opened, or was first seen, in UTC.
	OpenedAt time.Time `json:"opened_at"`
	// Drift is how it differs from what is expected; empty where it does not. DriftSince is
	// when that drift began, in UTC; it may be earlier than OpenedAt ([DriftKey]).
	Drift      Drift     `json:"drift,omitempty"`
	DriftSince time.Time `json:"drift_since,omitzero"`
}
