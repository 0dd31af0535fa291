// Package exposure computes who can reach an endpoint, from the engine's description
// of the containers of its namespace. It is pure: no I/O and no state.
package exposure

import (
	"net/netip"
	"slices"

	"portwatcher/internal/model"
)

// Listening is the part of an endpoint on which its exposure depends.
type Listening struct {
	Protocol model.Protocol
	Address  netip.Addr
	Port     uint16
	// IPv6Only means that a socket on the IPv6 wildcard takes no IPv4 traffic.
	IPv6Only bool
	// Host means that the namespace is the host's.
	Host bool
}

// Reach is who can reach an endpoint.
type Reach struct {
	// Exposure is empty where the networks of the namespace are not known.
	Exposure model.Exposure
	// Published are the host addresses that forward to it, as "address:port", IPv4 first.
	Published []string
}

// Of returns who can reach an endpoint in the namespace of these containers. A port
// is published for the namespace, whichever of its containers was started with it.
func Of(l Listening, containers []*model.Container) Reach {
	if l.Address.IsLoopback() {
		return Reach{Exposure: model.Loopback}
	}
	if l.Host {
		return Reach{Exposure: model.Host}
	}
	var onNetwork, hasIPv6, engines bool
	for _, c := range containers {
		for _, a := range c.Addresses {
			onNetwork = true
			hasIPv6 = hasIPv6 || a.Is6()
			engines = engines || a == l.Address
		}
	}
	if !l.Address.IsUnspecified() && !engines {
		// The engine forwards nothing to an address that it has not assigned.
		return Reach{Exposure: networkOrLoopback(onNetwork)}
	}
	// The engine forwards to the container's IPv4 address, except from IPv6 to a
	// container that has an IPv6 address. To which of several networks it forwards is
	// not known here: any of their addresses counts.
	published := Published(l.Protocol, l.Port, containers, func(host netip.AddrPort) bool {
		if host.Addr().Is6() && hasIPv6 {
			return l.Address.Is6()
		}
		return l.Address.Is4() || l.Address.IsUnspecified() && !l.IPv6Only
	})
	if len(published) > 0 {
		return Reach{Exposure: model.Published, Published: published}
	}
	return Reach{Exposure: networkOrLoopback(onNetwork)}
}

// Unseen returns who can reach an endpoint in a namespace that is not known.
func Unseen(address netip.Addr) Reach {
	if address.IsLoopback() {
		return Reach{Exposure: model.Loopback}
	}
	return Reach{}
}

// Inner returns who can reach an endpoint in a namespace that a container made itself, to
// which the engine forwards nothing. Linked means that it has another interface than its
// loopback.
func Inner(address netip.Addr, linked bool) Reach {
	return Reach{Exposure: networkOrLoopback(linked && !address.IsLoopback())}
}

// networkOrLoopback distinguishes a namespace on a network from one that has only
// its loopback interface (network_mode: none).
func networkOrLoopback(onNetwork bool) model.Exposure {
	if onNetwork {
		return model.Network
	}
	return model.Loopback
}

// Published lists the host addresses that forward to a port and for which arrives
// returns true, IPv4 first.
func Published(protocol model.Protocol, number uint16, containers []*model.Container, arrives func(netip.AddrPort) bool) []string {
	var hosts []netip.AddrPort
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.Protocol == protocol && p.Port == number && p.Host.Port() != 0 && arrives(p.Host) {
				hosts = append(hosts, p.Host)
			}
		}
	}
	slices.SortFunc(hosts, netip.AddrPort.Compare)
	var published []string
	for _, host := range slices.Compact(hosts) {
		published = append(published, host.String())
	}
	return published
}
