package engine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"portwatcher/internal/model"
)

// convert translates an inspected container. It returns nil for one that is not
// running. Parts that cannot be parsed are left out of the container, and the error
// names them.
// Source: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerInspect.
func convert(from container.InspectResponse) (c *model.Container, started time.Time, err error) {
	if from.ContainerJSONBase == nil || from.State == nil || !from.State.Running || from.State.Pid == 0 {
		return nil, time.Time{}, nil
	}
	c = &model.Container{
		ID:     from.ID,
		Name:   strings.TrimPrefix(from.Name, "/"),
		PID:    from.State.Pid,
		Paused: from.State.Paused,
	}
	// Without a start time a die event of any time counts.
	started, startedErr := time.Parse(time.RFC3339Nano, from.State.StartedAt)
	if startedErr != nil {
		startedErr = fmt.Errorf("start time: %w", startedErr)
	}
	c.StartedAt = started.UTC()
	if from.HostConfig != nil {
		c.NetworkMode = string(from.HostConfig.NetworkMode)
		if from.HostConfig.NetworkMode.IsDefault() {
			c.NetworkMode = network.NetworkBridge
		}
	}
	var exposedErr, addressErr, publishedErr error
	if from.Config != nil {
		c.Image, c.Labels = from.Config.Image, from.Config.Labels
		c.Exposed, exposedErr = exposedPorts(from.Config.ExposedPorts)
	}
	if from.NetworkSettings != nil {
		c.Addresses, addressErr = addresses(from.NetworkSettings.Networks)
		c.Ports, publishedErr = publishedPorts(from.NetworkSettings.Ports)
	}
	if err := errors.Join(startedErr, exposedErr, addressErr, publishedErr); err != nil {
		return c, started, fmt.Errorf("container %s: cannot be parsed: %w", c.Name, err)
	}
	return c, started, nil
}

// like reports whether a list describes a container as known. The image never changes; its
// name in a list does.
func like(known *model.Container, s *container.Summary) bool {
	ports := nat.PortMap{}
	for _, p := range s.Ports {
		if p.PublicPort != 0 {
			name := nat.Port(fmt.Sprintf("%d/%s", p.PrivatePort, p.Type))
			ports[name] = append(ports[name], nat.PortBinding{HostIP: p.IP, HostPort: strconv.Itoa(int(p.PublicPort))})
		}
	}
	var networks map[string]*network.EndpointSettings
	if s.NetworkSettings != nil {
		networks = s.NetworkSettings.Networks
	}
	// What cannot be parsed was reported when the container was inspected.
	published, _ := publishedPorts(ports)
	reached, _ := addresses(networks)
	return slices.Contains(s.Names, "/"+known.Name) && (s.State == container.StatePaused) == known.Paused &&
		maps.Equal(s.Labels, known.Labels) && slices.Equal(published, known.Ports) && slices.Equal(reached, known.Addresses)
}

// addresses returns the IPv4 and IPv6 addresses on all networks, sorted.
func addresses(networks map[string]*network.EndpointSettings) ([]netip.Addr, error) {
	var found []netip.Addr
	var failed []error
	for name, endpoint := range networks {
		if endpoint == nil {
			continue
		}
		for _, text := range []string{endpoint.IPAddress, endpoint.GlobalIPv6Address} {
			if text == "" {
				continue
			}
			address, err := netip.ParseAddr(text)
			if err != nil {
				failed = append(failed, fmt.Errorf("address on network %s: %w", name, err))
				continue
			}
			found = append(found, address.Unmap())
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return slices.Compact(found), errors.Join(failed...)
}

// publishedPorts returns the TCP and UDP ports that host ports forward to, sorted.
func publishedPorts(ports nat.PortMap) ([]model.PublishedPort, error) {
	found, err := requestedPorts(ports)
	return slices.DeleteFunc(found, func(p model.PublishedPort) bool { return p.Host.Port() == 0 }), err
}

// requestedPorts returns the TCP and UDP ports with their bindings, sorted. A binding to the
// empty address is one to the IPv4 wildcard; one to port 0 is not bound yet.
func requestedPorts(ports nat.PortMap) ([]model.PublishedPort, error) {
	var found []model.PublishedPort
	var failed []error
	for name, bindings := range ports {
		inside, err := parsePorts(name)
		if err != nil {
			failed = append(failed, err)
		}
		if len(inside) != 1 {
			continue
		}
		for _, binding := range bindings {
			host, err := bindingAddress(binding)
			if err != nil {
				failed = append(failed, fmt.Errorf("published port %s: %w", name, err))
				continue
			}
			found = append(found, model.PublishedPort{Protocol: inside[0].Protocol, Port: inside[0].Port, Host: host})
		}
	}
	slices.SortFunc(found, func(a, b model.PublishedPort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), a.Host.Compare(b.Host))
	})
	return slices.Compact(found), errors.Join(failed...)
}

// bindingAddress returns the host's side of a published port; port 0 means
// that none is bound yet.
func bindingAddress(binding nat.PortBinding) (netip.AddrPort, error) {
	address := netip.IPv4Unspecified()
	var err error
	if binding.HostIP != "" {
		address, err = netip.ParseAddr(binding.HostIP)
	}
	number, portErr := nat.ParsePort(binding.HostPort)
	return netip.AddrPortFrom(address, uint16(number)), errors.Join(err, portErr)
}

// exposedPorts returns the declared TCP and UDP ports, sorted.
func exposedPorts(ports nat.PortSet) ([]model.ExposedPort, error) {
	var found []model.ExposedPort
	var failed []error
	for name := range ports {
		some, err := parsePorts(name)
		if err != nil {
			failed = append(failed, err)
		}
		found = append(found, some...)
	}
	slices.SortFunc(found, func(a, b model.ExposedPort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return slices.Compact(found), errors.Join(failed...)
}

// parsePorts parses "80/tcp", "80" (TCP) and "8000-8010/udp". SCTP gives no ports.
func parsePorts(text nat.Port) ([]model.ExposedPort, error) {
	name := strings.ToLower(text.Proto())
	if name == "sctp" {
		return nil, nil
	}
	var protocol model.Protocol
	first, last, err := text.Range()
	if err == nil {
		err = protocol.UnmarshalText([]byte(name))
	}
	if err == nil && first == 0 {
		err = errors.New("want 1 to 65535")
	}
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", text, err)
	}
	ports := make([]model.ExposedPort, 0, last-first+1)
	for number := first; number <= last; number++ {
		ports = append(ports, model.ExposedPort{Protocol: protocol, Port: uint16(number)})
	}
	return ports, nil
}
