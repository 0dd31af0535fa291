package controller

import (
	"net/netip"
	"slices"

	"portwatcher/internal/port"
)

// reach is who can speak to an endpoint.
type reach struct {
	exposure  port.Exposure
	published []string // host addresses, as "address:port"
}

// listening is what an endpoint's reach depends on, beside the containers of
// its namespace.
type listening struct {
	protocol port.Protocol
	address  netip.Addr
	port     uint16
	ipv6Only bool
	host     bool // in the host's namespace
}

// reachOf says who can speak to an endpoint in the namespace of these
// containers. A port is published for the namespace, whichever of its
// containers was started with it.
func reachOf(l listening, containers []*port.Container) reach {
	if l.address.IsLoopback() {
		return reach{exposure: port.Loopback}
	}
	if l.host {
		return reach{exposure: port.Host}
	}
	var onNetwork, hasIPv6, engines bool
	for _, c := range containers {
		for _, a := range c.Addresses {
			onNetwork = true
			hasIPv6 = hasIPv6 || a.Is6()
			engines = engines || a == l.address
		}
	}
	if !l.address.IsUnspecified() && !engines {
		// Nothing is forwarded to an address that the engine does not know.
		return reach{exposure: networkOrLoopback(onNetwork)}
	}
	// The engine forwards to the container's IPv4 address, except from IPv6 to a
	// container that has an IPv6 address. To which of several networks is not
	// known here: any of their addresses counts.
	published := publishedAt(l.protocol, l.port, containers, func(host netip.AddrPort) bool {
		if host.Addr().Is6() && hasIPv6 {
			return l.address.Is6()
		}
		return l.address.Is4() || l.address.IsUnspecified() && !l.ipv6Only
	})
	if len(published) > 0 {
		return reach{exposure: port.Published, published: published}
	}
	return reach{exposure: networkOrLoopback(onNetwork)}
}

// networkOrLoopback tells a namespace on a network from one that has nothing
// but its loopback interface (network_mode: none).
func networkOrLoopback(onNetwork bool) port.Exposure {
	if onNetwork {
		return port.Network
	}
	return port.Loopback
}

// publishedAt lists the host addresses that forward to a port and that arrives
// lets pass, IPv4 first.
func publishedAt(protocol port.Protocol, number uint16, containers []*port.Container, arrives func(netip.AddrPort) bool) []string {
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
