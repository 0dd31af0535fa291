package explain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"portwatcher/internal/attribute"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/sockdiag"
)

// byHostPort finds the container that a port of the host belongs to, and sets Inside.
func (g *gathering) byHostPort(ctx context.Context) (*engine.Listed, error) {
	for i := range g.all {
		for _, p := range g.all[i].Ports {
			if p.Protocol == g.Protocol && p.Host.Port() == g.Port {
				g.Inside = p.Port
				return &g.all[i], nil
			}
		}
	}
	open, _, err := g.sources.Open(ctx, onHost)
	for _, o := range open {
		if o.Protocol != g.Protocol || o.Port != g.Port || o.Container == nil {
			continue
		}
		i := slices.IndexFunc(g.all, func(l engine.Listed) bool { return l.ID == o.Container.ID })
		if i >= 0 {
			return &g.all[i], nil
		}
	}
	return nil, err
}

func onHost(c *model.Container) bool { return c.NetworkMode == "host" }

// askHost finds who listens on the ports of the host that are concerned.
func (g *gathering) askHost(ctx context.Context) error {
	conn, err := sockdiag.Dial(g.host.FD(), sockdiag.Options{})
	if err != nil {
		return err
	}
	sockets, err := conn.Dump(nil)
	if err := errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("list the host's sockets: %w", err)
	}
	var inodes []uint32
	sockets = slices.DeleteFunc(sockets, func(s model.Socket) bool { return s.Protocol != g.Protocol || !g.onHostPort(s.Port) })
	for i := range sockets {
		inodes = append(inodes, sockets[i].Inode)
	}
	holders, err := attribute.NewFinder(g.sources.ProcRoot).Find(inodes)
	if err != nil {
		return err
	}
	for i := range sockets {
		g.HostListeners = append(g.HostListeners, HostListener{sockets[i].Address, holders.ByInode[sockets[i].Inode]})
	}
	g.Publisher = g.publisher()
	if g.Subject != nil || !g.tries() {
		return nil
	}
	var to []netip.AddrPort
	addresses, err := g.hostAddresses()
	if err != nil {
		return err
	}
	for _, l := range g.HostListeners {
		to = append(to, netip.AddrPortFrom(wildcard(l.Address, addresses), g.Port))
	}
	g.Published, err = g.try(ctx, g.host, to, g.hostPlace())
	return err
}

func (g *gathering) hostPlace() place { return place{"the host", g.host} }

// onHostPort reports whether a port of the host is concerned.
func (g *gathering) onHostPort(port uint16) bool {
	if g.Question.Container == "" {
		return port == g.Port
	}
	if g.Subject == nil {
		return false
	}
	ports := g.ports(g.Subject.Requested)
	if g.Subject.Container != nil {
		ports = append(ports, g.ports(g.Subject.Container.Ports)...)
	}
	return slices.ContainsFunc(ports, func(p model.PublishedPort) bool { return p.Host.Port() == port })
}

// publisher returns the name of another container that publishes a port of the host that is
// concerned; empty where there is none.
func (g *gathering) publisher() string {
	for _, c := range g.containers {
		if g.Subject == nil || c.ID == g.Subject.ID {
			continue
		}
		for _, p := range c.Ports {
			if p.Protocol == g.Protocol && g.onHostPort(p.Host.Port()) {
				return c.Name
			}
		}
	}
	return ""
}

// hostAddresses returns the addresses of the host, without those of loopback and of links.
func (g *gathering) hostAddresses() (found []netip.Addr, err error) {
	var all []net.Addr
	err = g.host.Do(func() (err error) { all, err = net.InterfaceAddrs(); return err })
	for _, one := range all {
		prefix, err := netip.ParsePrefix(one.String())
		if err != nil || prefix.Addr().IsLoopback() || prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		found = append(found, prefix.Addr().Unmap())
	}
	return found, err
}
