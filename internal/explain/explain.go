// Package explain finds out why a port cannot be reached: it follows the way from the
// process to the outside, and stops at the first link that is broken.
//
// [Gather] asks the engine and the kernel, and connects; [Explain] draws the conclusion
// from the facts, and is pure.
package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"portwatcher/internal/engine"
	"portwatcher/internal/firewall"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// Question is the port to explain. Without Container it is a port of the host.
type Question struct {
	// Container is in the grammar of [model.ParseSelection].
	Container string
	Port      uint16
	Protocol  model.Protocol
	// From is the container that wants to reach the port, in the same grammar; empty is
	// another machine.
	From string
	// ProbeUDP sends an empty datagram to a UDP port by each way. Else UDP is judged by what
	// listens.
	ProbeUDP bool
}

// String returns the question as the command line takes it.
func (q Question) String() string {
	port := fmt.Sprintf("%d/%s", q.Port, q.Protocol)
	if q.Container == "" {
		return port
	}
	return q.Container + ":" + port
}

// Facts are what was found. What is nil or empty was not found, or not looked for.
type Facts struct {
	Question
	// Subject is the container; nil where none fits. Near are the names of others.
	Subject *engine.Description
	Near    []string
	// Owner is the container whose network namespace the subject shares; empty where it has
	// its own. The subject's networks and ports are the owner's then, which are none where
	// the owner has ended.
	Owner string
	// Inside is the port in the container. It differs from that of the question where
	// this is one of the host.
	Inside uint16
	// Open is what is open in the container's network namespace, of any container there.
	Open []model.Open
	// Last is the latest opening or closing of the port; nil where the journal has none.
	Last *model.Event
	// Queued is the number of connections that wait in the accept queue.
	Queued uint64
	// Own are tries from the container's own namespace, FromHost from the host's to the
	// container's addresses, FromOther from the container From, and Published from the
	// host's to the published addresses.
	Own, FromHost, FromOther, Published []Try
	// Other is the container From.
	Other *engine.Description
	// HostListeners are the listeners of the host's namespace on the ports of the host that
	// are concerned, and Publisher is the container that publishes one of these ports, if it
	// is another.
	HostListeners []HostListener
	Publisher     string
}

// HostListener is a listener of the host's namespace.
type HostListener struct {
	Address   netip.Addr
	Processes []model.Process
}

// Result is how a try to connect ended.
type Result string

const (
	// Accepted: the connection was established, and stays.
	Accepted Result = "accepted"
	// Refused: nothing listens there, or a firewall rejects.
	Refused Result = "refused"
	// NoAnswer: no packet came back.
	NoAnswer Result = "no answer"
	// NoRoute: the namespace has no route to the address.
	NoRoute Result = "no route"
	// Dropped: the connection was established, and ended at once.
	Dropped Result = "accepted and closed at once"
	// Silent, of UDP: neither an answer nor a rejection came back.
	Silent Result = "no answer and no rejection"
)

// Try is an attempt to connect, or to send a datagram.
type Try struct {
	To     netip.AddrPort
	Result Result
	// Blocked are rules of firewalls whose counter rose meanwhile, and Policies those that may
	// have dropped the packets where there is no such rule. Both are empty where the try
	// succeeded, or the rules cannot be read.
	Blocked  []Blocked
	Policies []string
}

// Blocked is a rule of a firewall in a network namespace.
type Blocked struct {
	firewall.Rule
	// Where is the namespace: "the host", "container web".
	Where string
}

// Diagnosis names the first broken link, for programs.
type Diagnosis string

// The diagnoses, in the order of the chain.
const (
	Reachable         Diagnosis = "reachable"
	NoContainer       Diagnosis = "no container"
	NotRunning        Diagnosis = "not running"
	HostPortTaken     Diagnosis = "host port taken"
	Paused            Diagnosis = "paused"
	NotListening      Diagnosis = "not listening"
	OtherPort         Diagnosis = "other port"
	OtherProtocol     Diagnosis = "other protocol"
	LoopbackOnly      Diagnosis = "loopback only"
	QueueFull         Diagnosis = "accept queue full"
	NotAnswering      Diagnosis = "not answering"
	ClosesAtOnce      Diagnosis = "closes at once"
	NoNetwork         Diagnosis = "no network"
	NoCommonNetwork   Diagnosis = "no common network"
	OtherAddress      Diagnosis = "other address"
	Filtered          Diagnosis = "filtered"
	NotPublished      Diagnosis = "not published"
	InternalNetwork   Diagnosis = "internal network"
	NotBound          Diagnosis = "not bound"
	OtherMapping      Diagnosis = "other mapping"
	HostLoopbackOnly  Diagnosis = "host loopback only"
	NotForwarded      Diagnosis = "not forwarded"
	NobodyOnHost      Diagnosis = "nobody on the host"
	ForwardsElsewhere Diagnosis = "forwards elsewhere"
)

// Explanation is the way to a port, up to the first broken link.
type Explanation struct {
	Target    string              `json:"target"`
	From      string              `json:"from,omitempty"`
	Container *model.ContainerRef `json:"container,omitempty"`
	Diagnosis Diagnosis           `json:"diagnosis"`
	Reachable bool                `json:"reachable"`
	// Links are those that were checked; the last one is broken unless the port can be
	// reached.
	Links []Link `json:"links"`
	// Remedy is a sentence; empty where nothing is to be done.
	Remedy string `json:"remedy,omitempty"`
}

// Link is one link of the way.
type Link struct {
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// String returns the explanation for people: a line for each link, and the remedy. A process
// chooses its own name: what could steer a terminal is replaced.
func (e *Explanation) String() string {
	var b strings.Builder
	from := "from other machines"
	if e.From != "" {
		from = "from " + e.From
	}
	fmt.Fprintf(&b, "%s, %s\n", output.Printable(e.Target), output.Printable(from))
	for _, link := range e.Links {
		mark := "✗"
		if link.OK {
			mark = "✓"
		}
		fmt.Fprintf(&b, "  %s %s\n", mark, output.Printable(link.Text))
	}
	if e.Remedy != "" {
		fmt.Fprintf(&b, "  → %s\n", output.Printable(e.Remedy))
	}
	return b.String()
}
