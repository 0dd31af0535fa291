package model

import (
	"cmp"
	"net/netip"
	"slices"
)

// Exposure is who can reach an endpoint.
type Exposure string

const (
	// Loopback: only processes in the same network namespace.
	Loopback Exposure = "loopback"
	// Network: everything on the container's networks.
	Network Exposure = "network"
	// Lan: other machines, at an address of the container's own, without a published port
	// (macvlan, ipvlan, a device of the host that was moved into the namespace).
	Lan Exposure = "lan"
	// Published: a port of the host forwards to it.
	Published Exposure = "published"
	// Host: it listens in the host's own network namespace.
	Host Exposure = "host"
)

// byReach are the exposures, those with the widest reach first.
var byReach = []Exposure{Published, Host, Lan, Network, Loopback}

// CompareReach orders exposures: those with the widest reach first, and unknown ones last.
func CompareReach(a, b Exposure) int { return cmp.Compare(reachOf(a), reachOf(b)) }

func reachOf(e Exposure) int {
	if at := slices.Index(byReach, e); at >= 0 {
		return at
	}
	return len(byReach)
}

// outside and inside are the values of Listener.Outside, which nobody changes.
var outside, inside = true, false

// SetReach sets who can reach the endpoint, and Outside, which follows from that.
func (l *Listener) SetReach(e Exposure, published []string) {
	l.Exposure, l.Published = e, published
	switch {
	case e == "":
		l.Outside = nil
	case e == Lan, e == Host, e == Published && !OnlyLoopback(published):
		l.Outside = &outside
	default:
		l.Outside = &inside
	}
}

// OnlyLoopback reports whether all of some host addresses, as Listener.Published has them, are
// loopback addresses of the host.
func OnlyLoopback(published []string) bool {
	return len(published) > 0 && !slices.ContainsFunc(published, func(text string) bool {
		at, err := netip.ParseAddrPort(text)
		return err != nil || !at.Addr().Unmap().IsLoopback()
	})
}
