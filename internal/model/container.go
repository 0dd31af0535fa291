package model

import (
	"net/netip"
	"time"
)

// The Compose labels that name a container's project and service.
// Source: https://docs.docker.com/compose/how-tos/project-name/.
const (
	LabelProject = "com.docker.compose.project"
	LabelService = "com.docker.compose.service"
)

// Container is a running container as the engine describes it. A Container is
// immutable: a change makes a new one.
type Container struct {
	ID     string
	Name   string // without the leading slash
	Image  string // as given when the container was created
	Labels map[string]string
	// PID is the first process, in the host's pid namespace.
	PID int
	// NetworkMode as the engine gives it: "host", "none", "bridge", the name
	// of a network, or "container:<id>".
	NetworkMode string
	// Addresses are the container's own addresses on its networks.
	Addresses []netip.Addr
	// Ports are the published ports.
	Ports []PublishedPort
	// Exposed are the ports the image or the configuration declares (EXPOSE).
	Exposed []ExposedPort
	Paused  bool
	// StartedAt is when it was last started, in UTC; zero where it is not known.
	StartedAt time.Time
	// Namespace is its own network namespace, in which the engine started it; zero where it
	// is not known.
	Namespace Namespace
}

// PublishedPort is a port of the host that forwards to a container's port.
type PublishedPort struct {
	Protocol Protocol
	Port     uint16         // inside the container
	Host     netip.AddrPort // on the host
}

// ExposedPort is a port that a container declares.
type ExposedPort struct {
	Protocol Protocol
	Port     uint16
}

// Interface is a network interface of a namespace that is up and has an address.
type Interface struct {
	Name string
	// Kind is the driver's name (IFLA_INFO_KIND): veth, macvlan, …; empty for a device of the
	// host.
	Kind      string
	Addresses []netip.Addr // without zones, sorted
}

// HostID is the id of the container that [HostOwner] returns. No engine gives such an id.
const HostID = "host"

// HostName stands for the host where the name of a container is shown. No container can have
// this name.
const HostName = "(host)"

// HostOwner returns the owner of what listens in the host's network namespace and belongs to
// no container. It is a container as far as tracking goes: it has a share of its own of what
// is bounded. Its events name no container. pid is a process in that namespace.
func HostOwner(pid int, namespace Namespace) *Container {
	return &Container{ID: HostID, Name: HostName, PID: pid, NetworkMode: "host", Namespace: namespace}
}

// IsHost reports whether c is that of [HostOwner].
func (c *Container) IsHost() bool { return c.ID == HostID }

// Ref returns the container's name in an event; nil for that of [HostOwner].
func (c *Container) Ref() *ContainerRef {
	if c.IsHost() {
		return nil
	}
	return &ContainerRef{
		ID: c.ID, Name: c.Name, Image: c.Image,
		Project: c.Labels[LabelProject], Service: c.Labels[LabelService], Labels: c.Labels,
		StartedAt: c.StartedAt,
	}
}
