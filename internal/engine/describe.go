package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"portwatcher/internal/model"
)

// Listed is a container of the engine, running or not.
type Listed struct {
	model.ContainerRef
	// State is the engine's word: created, running, paused, restarting, removing, exited or
	// dead. Status is its sentence, such as "Exited (137) 3 minutes ago".
	State, Status string
	// Ports are the published ports.
	Ports []model.PublishedPort
}

// Description is what the engine knows of one container beyond [model.Container].
type Description struct {
	Listed
	// Container is nil while it does not run.
	Container *model.Container
	// Requested are the ports that it was started with, whether or not they are published
	// now. Port 0 of the host means that the engine chooses one.
	Requested []model.PublishedPort
	Networks  []Network
}

// Network is a network of a container.
type Network struct {
	Name, Driver string
	// Internal means that the engine connects it to nothing outside.
	Internal bool
	// Addresses are those of the container.
	Addresses []netip.Addr
}

// All lists the containers, running or not, ordered by name. The error is a
// [*ConnectError] where the engine cannot be reached.
func (e *Engine) All(ctx context.Context) ([]Listed, error) {
	a, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	summaries, err := a.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	all := make([]Listed, 0, len(summaries))
	for _, s := range summaries {
		c := model.Container{ID: s.ID, Image: s.Image, Labels: s.Labels}
		if len(s.Names) > 0 {
			c.Name = strings.TrimPrefix(s.Names[0], "/")
		}
		all = append(all, Listed{ContainerRef: *c.Ref(), State: string(s.State), Status: s.Status, Ports: listedPorts(s.Ports)})
	}
	slices.SortFunc(all, func(a, b Listed) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// listedPorts returns the TCP and UDP ports of a list that host ports forward to. What cannot
// be parsed is left out: an inspection reports it.
func listedPorts(ports []container.Port) (published []model.PublishedPort) {
	for _, p := range ports {
		one := model.PublishedPort{Port: p.PrivatePort}
		address, err := netip.ParseAddr(p.IP)
		if err == nil && p.PublicPort != 0 && one.Protocol.UnmarshalText([]byte(p.Type)) == nil {
			one.Host = netip.AddrPortFrom(address, p.PublicPort)
			published = append(published, one)
		}
	}
	return published
}

// Describe inspects a container and its networks. Parts that cannot be read are
// left out, and the error names them.
func (e *Engine) Describe(ctx context.Context, listed Listed) (Description, error) {
	d := Description{Listed: listed}
	a, err := e.connect(ctx)
	if err != nil {
		return d, err
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	answer, err := a.ContainerInspect(ctx, listed.ID)
	if err != nil {
		return d, fmt.Errorf("inspect container %s: %w", listed.Name, err)
	}
	var failed []error
	d.Container, _, err = convert(answer)
	failed = append(failed, err)
	if answer.HostConfig != nil {
		d.Requested, err = requestedPorts(answer.HostConfig.PortBindings)
		failed = append(failed, err)
	}
	if answer.NetworkSettings != nil {
		for name, endpoint := range answer.NetworkSettings.Networks {
			one, err := describeNetwork(ctx, a, name, endpoint)
			failed = append(failed, err)
			d.Networks = append(d.Networks, one)
		}
	}
	slices.SortFunc(d.Networks, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return d, errors.Join(failed...)
}

func describeNetwork(ctx context.Context, a api, name string, endpoint *network.EndpointSettings) (Network, error) {
	n := Network{Name: name}
	found, err := addresses(map[string]*network.EndpointSettings{name: endpoint})
	n.Addresses = found
	inspected, inspectErr := a.NetworkInspect(ctx, name, network.InspectOptions{})
	if inspectErr != nil {
		return n, errors.Join(err, fmt.Errorf("inspect network %s: %w", name, inspectErr))
	}
	n.Driver, n.Internal = inspected.Driver, inspected.Internal
	return n, err
}
