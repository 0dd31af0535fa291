package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"portwatcher/internal/engine"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
)

// ports are the publications of the port, by which another machine may reach it.
func (f *Facts) ports(all []model.PublishedPort) (found []model.PublishedPort) {
	for _, p := range all {
		if p.Protocol == f.Protocol && p.Port == f.Inside {
			found = append(found, p)
		}
	}
	return found
}

// published checks that a port of the host forwards to the port.
func (c *chain) published() bool {
	if c.onHost() {
		return true
	}
	s := c.Subject
	if bound := c.ports(s.Container.Ports); len(bound) > 0 {
		return c.ok("it is published at %s%s", hosts(bound), c.rivals())
	}
	if requested := c.ports(s.Requested); len(requested) > 0 {
		text := fmt.Sprintf("it was to be published at %s, and the engine has not bound that port", hosts(requested))
		if len(c.HostListeners) > 0 {
			text += ": it is held by " + c.holder()
		}
		return c.broken(NotBound, fmt.Sprintf("docker restart %s, or start it anew; the engine's log has the reason.", s.Name), "%s", text)
	}
	compose := fmt.Sprintf("Publish it: -p %d:%d with docker run, or ports: [\"%d:%d\"] in Compose; containers on the same network reach it without that (--from shows it).", c.Inside, c.Inside, c.Inside, c.Inside)
	internal := len(s.Networks) > 0 && !slices.ContainsFunc(s.Networks, func(n engine.Network) bool { return !n.Internal })
	if internal {
		return c.broken(InternalNetwork, "Add a network that is not internal, and publish the port there.",
			"it is not published, and all its networks are internal: %s", names(s.Networks))
	}
	if slices.ContainsFunc(c.here(), func(o model.Open) bool { return o.Exposure == model.Lan }) {
		c.ok("the container is on a network of the host's own (macvlan, ipvlan or a device of its own): other machines reach its own address")
		return c.reached()
	}
	if other := s.Container.Ports; len(other) > 0 {
		return c.broken(OtherMapping, fmt.Sprintf("Publish %d too, or let the program listen on %d.", c.Inside, other[0].Port),
			"%s is not published; the container publishes %s", c.portText(c.Inside), mappings(other))
	}
	return c.broken(NotPublished, compose, "it is not published: only containers on the same network, and this host, reach it")
}

// rivals names the processes of the host that listen on the published port, too, for the end of
// a link's text.
func (c *chain) rivals() string {
	own := slices.DeleteFunc(slices.Clone(c.HostListeners), func(l HostListener) bool {
		return len(l.Processes) == 0 || exposure.HeldByEngine(l.Processes)
	})
	if len(own) == 0 {
		return ""
	}
	return "; a process of the host listens there, too, which connections of this host may reach: " + listenersText(own)
}

// beyondHost checks that the host's side is not its loopback alone.
func (c *chain) beyondHost() bool {
	if c.onHost() {
		return true
	}
	bound := c.ports(c.Subject.Container.Ports)
	if slices.ContainsFunc(bound, func(p model.PublishedPort) bool { return !p.Host.Addr().IsLoopback() }) {
		return true
	}
	return c.broken(HostLoopbackOnly, fmt.Sprintf("Publish it at all addresses of the host where other machines are to reach it: -p %d:%d.", bound[0].Host.Port(), c.Inside),
		"the published address is the host's loopback: this host alone reaches it")
}

// forwards checks the tries from the host to the published addresses.
func (c *chain) forwards() bool {
	if c.Protocol == model.UDP && !c.ProbeUDP {
		return c.ok("UDP is judged by what listens and what is published: nothing was sent")
	}
	if len(c.Published) == 0 {
		return true
	}
	// The engine's forwarder accepts before it connects to the container: the container's own
	// address comes first.
	if !c.connected(c.FromHost, "from the host") {
		return false
	}
	bad := failed(c.Published)
	switch {
	case bad == nil || len(bad.Blocked) > 0:
		return c.connected(c.Published, "from the host")
	case bad.Result == Refused && len(c.HostListeners) == 0:
		return c.broken(NotForwarded, fmt.Sprintf("docker restart %s; where the rules of the firewall were flushed, restart the engine, which makes them anew.", c.Subject.Name),
			"%s from the host to %s: refused: the engine does not forward this port now", c.verb(), bad.To)
	case bad.Result == Dropped:
		return c.broken(ForwardsElsewhere, "The engine's forwarder finds nobody behind it: look at the container's addresses, and at the firewall between the host and the container.",
			"%s from the host to %s: %s", c.verb(), bad.To, bad.Result)
	}
	return c.broken(Filtered, "A firewall on the host drops or rejects: look at its rules (iptables -nvL, nft list ruleset; chains DOCKER, DOCKER-USER and FORWARD).",
		"%s from the host to %s: %s%s", c.verb(), bad.To, bad.Result, policies(bad))
}

func hosts(ports []model.PublishedPort) string {
	return joined(ports, func(p model.PublishedPort) string { return p.Host.String() })
}

func mappings(ports []model.PublishedPort) string {
	return joined(ports, func(p model.PublishedPort) string { return fmt.Sprintf("%s for %d/%s", p.Host, p.Port, p.Protocol) })
}

func names(networks []engine.Network) string {
	return joined(networks, func(n engine.Network) string { return n.Name })
}

// wildcard is the address that a try uses for a wildcard, one of the host's where there is one.
func wildcard(a netip.Addr, host []netip.Addr) netip.Addr {
	if !a.IsUnspecified() {
		return a
	}
	for _, h := range host {
		if h.Is4() == a.Is4() {
			return h
		}
	}
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}
