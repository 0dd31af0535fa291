package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// serviceContainer returns the name of the running container of a service of the project;
// the first one where the service was scaled.
func (d *demo) serviceContainer(ctx context.Context, service string) (string, error) {
	names, err := d.engine.Run(ctx, "ps", "--format", "{{.Names}}", "--filter", "label=com.docker.compose.project="+d.settings.project,
		"--filter", "label=com.docker.compose.service="+service)
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(names, "\n")
	if name == "" {
		return "", fmt.Errorf("the container %s is not running: start it with make run (project %s)", service, d.settings.project)
	}
	return name, nil
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }

// events reads what portwatcher recorded, of all containers, by rising id.
func (d *demo) events(ctx context.Context, since time.Time) (events []truth.Event, err error) {
	output, err := d.engine.Run(ctx, "exec", d.watcher, "/portwatcher", "events", "--format", "json", "--since", stamp(since))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(output) {
		event, err := truth.Parse(line, time.Now())
		if err != nil {
			return nil, fmt.Errorf("read the event %q of %s: %w", line, d.watcher, err)
		}
		events = append(events, event)
	}
	return events, nil
}

// log reads what portwatcher printed of the demo container.
func (d *demo) log(ctx context.Context, since time.Time) ([]logLine, error) {
	output, err := d.engine.Run(ctx, "logs", "--since", stamp(since), d.watcher)
	if err != nil {
		return nil, err
	}
	return parseLog(output, d.container)
}

// numbered is a port without an address.
type numbered struct {
	protocol model.Protocol
	port     uint16
}

// ownPorts are those that the demo container opens and closes by itself, since a minute
// before: what it does may be reported late.
func (d *demo) ownPorts(ctx context.Context, since time.Time) (map[numbered]bool, error) {
	output, err := d.engine.Run(ctx, "logs", "--since", stamp(since.Add(-time.Minute)), d.container)
	if err != nil {
		return nil, err
	}
	facts, err := truth.ReadFacts(output)
	if err != nil {
		return nil, err
	}
	ports := map[numbered]bool{}
	for _, f := range facts {
		ports[numbered{f.Protocol, f.Port}] = true
	}
	return ports, nil
}

// started is when portwatcher's container was started.
func (d *demo) started(ctx context.Context) (time.Time, error) {
	output, err := d.engine.Run(ctx, "container", "inspect", "--format", "{{.State.StartedAt}}", d.watcher)
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339Nano, output)
}

// networking is what an inspection shows of a container's networks.
// Source: https://docs.docker.com/reference/api/engine/.
type networking struct {
	HostConfig struct {
		NetworkMode string
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress, GlobalIPv6Address string }
		Ports    map[string][]struct{ HostPort string }
	}
}

// networking inspects the demo container.
func (d *demo) networking(ctx context.Context) (*networking, error) {
	output, err := d.engine.Run(ctx, "container", "inspect", "--format", "{{json .}}", d.container)
	if err != nil {
		return nil, err
	}
	n := &networking{}
	if err := json.Unmarshal([]byte(output), n); err != nil {
		return nil, fmt.Errorf("inspect %s: %w", d.container, err)
	}
	return n, nil
}

// exposure is empty where the container's own inspection does not show it: in a namespace
// that it shares, and on a specific address.
func (n *networking) exposure(at model.Endpoint) model.Exposure {
	switch {
	case at.Address.IsLoopback():
		return model.Loopback
	case n.HostConfig.NetworkMode == "host":
		return model.Host
	case strings.HasPrefix(n.HostConfig.NetworkMode, "container:") || !at.Address.IsUnspecified():
		return ""
	case len(n.NetworkSettings.Ports[fmt.Sprintf("%d/%s", at.Port, at.Protocol)]) > 0:
		return model.Published
	}
	for _, network := range n.NetworkSettings.Networks {
		if network.IPAddress != "" || network.GlobalIPv6Address != "" {
			return model.Network
		}
	}
	return model.Loopback
}
