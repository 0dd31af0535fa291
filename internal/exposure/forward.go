package exposure

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"portwatcher/internal/model"
)

// engineProcesses hold ports of the host for containers: those of Docker Engine, with and
// without root, and those of Podman. Sources: the folder cmd/docker-proxy of moby/moby,
// rootlesskit(1), conmon(8), pasta(1).
var engineProcesses = []string{"docker-proxy", "dockerd", "rootlesskit", "rootlessport", "slirp4netns", "pasta", "conmon"}

// HeldByEngine reports whether a process of the engine holds an endpoint.
func HeldByEngine(holders []model.Process) bool {
	return slices.ContainsFunc(holders, func(p model.Process) bool {
		return slices.Contains(engineProcesses, cmp.Or(p.Program(), p.Name))
	})
}

// ForwardOf returns the container that publishes a port of the host on which holders listen;
// nil where none does, or where the holders are not known. Of several containers it is the
// first by name.
func ForwardOf(l Listening, holders []model.Process, containers iter.Seq[*model.Container]) *model.Forward {
	if len(holders) == 0 {
		return nil
	}
	var found *model.Container
	var inside uint16
	for c := range containers {
		for _, p := range c.Ports {
			if p.Protocol == l.Protocol && p.Host.Port() == l.Port && l.meets(p.Host.Addr()) && (found == nil || c.Name < found.Name) {
				found, inside = c, p.Port
			}
		}
	}
	if found == nil {
		return nil
	}
	return &model.Forward{Container: *found.Ref(), Port: inside, Engine: HeldByEngine(holders)}
}

// meets reports whether some traffic to a published address of the host would arrive at the
// endpoint, too.
func (l *Listening) meets(published netip.Addr) bool {
	published = published.Unmap()
	switch own := l.Address.WithZone(""); {
	case published.IsUnspecified() && own.IsUnspecified():
		return published.Is4() == own.Is4() || published.Is4() && !l.IPv6Only
	case published.IsUnspecified():
		return published.Is4() == own.Is4()
	default:
		return l.accepts(published)
	}
}
