// Package exposure computes who can reach an endpoint, from the interfaces of its
// namespace and the engine's description of the containers there. It is pure: no I/O and
// no state.
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
	// Forward is, for a port of the host, the container that publishes it; else nil.
	Forward *model.Forward
}

// Equal reports whether two reaches are the same.
func (r Reach) Equal(other Reach) bool {
	return r.SameExposure(other) && r.Forward.Equal(other.Forward)
}

// SameExposure is Equal without the forward.
func (r Reach) SameExposure(other Reach) bool {
	return r.Exposure == other.Exposure && slices.Equal(r.Published, other.Published)
}

// Namespace is what the exposure of everything in a network namespace depends on.
type Namespace struct {
	// Containers are those in it.
	Containers []*model.Container
	// Interfaces are all that are up and have an address, except loopback. Nil means that
	// they are not known: the engine's description takes their place.
	Interfaces []model.Interface
}

// Of returns who can reach an endpoint. A port is published for its namespace, whichever of
// the containers there was started with it, as long as one of the addresses that the engine
// assigned to them is there.
func Of(l Listening, in Namespace) Reach {
	if l.Address.IsLoopback() {
		return Reach{Exposure: model.Loopback}
	}
	if l.Host {
		return Reach{Exposure: model.Host}
	}
	reach := Reach{Exposure: in.unpublished(&l), Published: in.published(&l)}
	// Published for the host alone is less than an address that other machines reach.
	if len(reach.Published) > 0 && (reach.Exposure != model.Lan || !model.OnlyLoopback(reach.Published)) {
		reach.Exposure = model.Published
	}
	return reach
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
// loopback; its interfaces are not known yet.
func Inner(address netip.Addr, linked bool) Reach {
	if linked && !address.IsLoopback() {
		return Reach{Exposure: model.Network}
	}
	return Reach{Exposure: model.Loopback}
}

// accepts reports whether traffic to an address of the namespace arrives at the endpoint.
func (l *Listening) accepts(at netip.Addr) bool {
	if !l.Address.IsUnspecified() {
		return l.Address.WithZone("") == at
	}
	return l.Address.Is4() == at.Is4() || at.Is4() && !l.IPv6Only
}

// lanKinds are the interfaces that are on a network of the host's own: a device without a
// kind was moved into the namespace.
var lanKinds = []string{"", "macvlan", "macvtap", "ipvlan", "ipvtap", "vlan"}

// unpublished returns who can reach an endpoint without a published port.
func (n *Namespace) unpublished(l *Listening) model.Exposure {
	if n.Interfaces == nil {
		if slices.ContainsFunc(n.Containers, func(c *model.Container) bool { return len(c.Addresses) > 0 }) {
			return model.Network
		}
		return model.Loopback // network_mode: none
	}
	exposure, here := model.Loopback, false
	for i := range n.Interfaces {
		device := &n.Interfaces[i]
		if device.Kind == "dummy" { // it leads nowhere
			continue
		}
		for _, at := range device.Addresses {
			switch {
			case l.accepts(at) && slices.Contains(lanKinds, device.Kind):
				return model.Lan
			case l.accepts(at):
				exposure = model.Network
			}
			here = here || at.Is4() == l.Address.Is4()
		}
	}
	if here && !l.Address.IsUnspecified() {
		// An address of lo or of a dummy: whoever has a route to it reaches it through the
		// other interfaces.
		return model.Network
	}
	return exposure
}

// published lists the host addresses that forward to an endpoint. The engine forwards to
// the container's IPv4 address, except from IPv6 to a container that has an IPv6 address,
// and to one that has no other. To which of several networks it forwards is not known here:
// any of their addresses counts.
func (n *Namespace) published(l *Listening) []string {
	var has4, has6, own bool
	for _, c := range n.Containers {
		for _, a := range c.Addresses {
			if !n.has(a) {
				continue
			}
			has4, has6, own = has4 || a.Is4(), has6 || a.Is6(), own || a == l.Address
		}
	}
	if n.Interfaces == nil {
		has4 = has4 || !has6
	}
	if !own && !l.Address.IsUnspecified() || !has4 && !has6 {
		return nil // the engine forwards nothing to an address that it has not assigned
	}
	return Published(l.Protocol, l.Port, n.Containers, func(host netip.AddrPort) bool {
		if host.Addr().Is6() && has6 || !has4 {
			return l.Address.Is6()
		}
		return l.Address.Is4() || l.Address.IsUnspecified() && !l.IPv6Only
	})
}

// has reports whether an interface has an address, as far as is known.
func (n *Namespace) has(at netip.Addr) bool {
	return n.Interfaces == nil ||
		slices.ContainsFunc(n.Interfaces, func(i model.Interface) bool { return slices.Contains(i.Addresses, at) })
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
