package engine

import (
	"cmp"
	"errors"
	"fmt"
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

// convert translates an inspected container. It returns nil for one that is
// not running. What cannot be understood is left out, and named by the error;
// the container is good all the same.
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
	// Without it a die event is believed whatever its time, so an engine that
	// leaves it out does no harm.
	started, startedErr := time.Parse(time.RFC3339Nano, from.State.StartedAt)
	if startedErr != nil {
		startedErr = fmt.Errorf("start time: %w", startedErr)
	}
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
		return c, started, fmt.Errorf("container %s: not understood: %w", c.Name, err)
	}
	return c, started, nil
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

// publishedPorts returns the TCP and UDP ports that host ports forward to,
// sorted. A binding to the empty address is one to the IPv4 wildcard.
func publishedPorts(ports nat.PortMap) ([]model.PublishedPort, error) {
	var found []model.PublishedPort
	var failed []error
	for name, bindings := range ports {
		inside, err := parsePorts(string(name))
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
			if host.Port() != 0 {
				found = append(found, model.PublishedPort{Protocol: inside[0].Protocol, Port: inside[0].Port, Host: host})
			}
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
	if binding.HostIP != "" {
		var err error
		if address, err = netip.ParseAddr(binding.HostIP); err != nil {
			return netip.AddrPort{}, err
		}
	}
	if binding.HostPort == "" {
		return netip.AddrPortFrom(address, 0), nil
	}
	number, err := strconv.ParseUint(binding.HostPort, 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(address, uint16(number)), nil
}

// exposedPorts returns the declared TCP and UDP ports, sorted.
func exposedPorts(ports nat.PortSet) ([]model.ExposedPort, error) {
	var found []model.ExposedPort
	var failed []error
	for name := range ports {
		some, err := parsePorts(string(name))
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

// parsePorts understands "80/tcp", "80" (TCP) and "8000-8010/udp". Other
// protocols, which is SCTP, give none.
func parsePorts(text string) ([]model.ExposedPort, error) {
	numbers, name, found := strings.Cut(text, "/")
	if !found {
		name = "tcp"
	}
	if strings.EqualFold(name, "sctp") {
		return nil, nil
	}
	var protocol model.Protocol
	if err := protocol.UnmarshalText([]byte(strings.ToLower(name))); err != nil {
		return nil, fmt.Errorf("port %q: %w", text, err)
	}
	low, high, isRange := strings.Cut(numbers, "-")
	if !isRange {
		high = low
	}
	first, err := strconv.ParseUint(low, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", text, err)
	}
	last, err := strconv.ParseUint(high, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", text, err)
	}
	if first == 0 || last < first {
		return nil, fmt.Errorf("port %q: want 1 to 65535, the lower first", text)
	}
	ports := make([]model.ExposedPort, 0, last-first+1)
	for number := first; number <= last; number++ {
		ports = append(ports, model.ExposedPort{Protocol: protocol, Port: uint16(number)})
	}
	return ports, nil
}
