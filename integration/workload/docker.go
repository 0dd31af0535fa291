package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// A dockerCommand is the Docker command, through which the containers of a
// verification are asked.
type dockerCommand string

// output runs the command and returns its standard output.
func (d dockerCommand) output(ctx context.Context, what string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, string(d), args...)
	var stderr bytes.Buffer // of docker logs this is the container's: of use only if the command fails
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", what, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// events reads what portwatcher recorded, of all containers, by rising id.
func (d dockerCommand) events(ctx context.Context, watcher string, since time.Time) ([]*model.Event, error) {
	out, err := d.output(ctx, "read the journal of "+watcher,
		"exec", watcher, "/portwatcher", "events", "--format", "json", "--since", since.UTC().Format(time.RFC3339Nano))
	if err != nil {
		return nil, err
	}
	var events []*model.Event
	for line := range bytes.Lines(out) {
		e := &model.Event{}
		if err := json.Unmarshal(line, e); err != nil {
			return nil, fmt.Errorf("read the event %q of %s: %w", line, watcher, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// log reads what portwatcher printed of a container.
func (d dockerCommand) log(ctx context.Context, watcher, container string, since time.Time) ([]report, error) {
	out, err := d.output(ctx, "read the log of "+watcher, "logs", "--since", since.UTC().Format(time.RFC3339Nano), watcher)
	if err != nil {
		return nil, err
	}
	return parseLog(bytes.NewReader(out), container)
}

// ownPorts are those that the processes with which the container began tell of,
// since a minute before: what they do by themselves may be reported late.
func (d dockerCommand) ownPorts(ctx context.Context, container string, since time.Time) (map[number]bool, error) {
	out, err := d.output(ctx, "read the log of "+container,
		"logs", "--since", since.Add(-time.Minute).UTC().Format(time.RFC3339Nano), container)
	if err != nil {
		return nil, err
	}
	facts, err := parseFacts(out)
	if err != nil {
		return nil, err
	}
	ports := map[number]bool{}
	for _, f := range facts {
		ports[number{f.Protocol, f.Port}] = true
	}
	return ports, nil
}

// started is when the container was started.
func (d dockerCommand) started(ctx context.Context, container string) (time.Time, error) {
	out, err := d.output(ctx, "inspect "+container, "inspect", "--type", "container", "--format", "{{.State.StartedAt}}", container)
	if err != nil {
		return time.Time{}, err
	}
	at, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(out)))
	if err != nil {
		return time.Time{}, fmt.Errorf("inspect %s: %w", container, err)
	}
	return at, nil
}

// networking is what an inspection tells of a container's networks.
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

// exposure returns who can reach the container's ports.
func (d dockerCommand) exposure(ctx context.Context, container string) (func(report) model.Exposure, error) {
	out, err := d.output(ctx, "inspect "+container, "inspect", "--type", "container", "--format", "{{json .}}", container)
	if err != nil {
		return nil, err
	}
	n := &networking{}
	if err := json.Unmarshal(out, n); err != nil {
		return nil, fmt.Errorf("inspect %s: %w", container, err)
	}
	return n.exposure, nil
}

// exposure is empty where the container's own inspection does not tell: in a
// namespace that it shares, and on a specific address.
func (n *networking) exposure(r report) model.Exposure {
	address, err := netip.ParseAddr(r.address)
	shared := strings.HasPrefix(n.HostConfig.NetworkMode, "container:")
	switch {
	case err != nil:
		return ""
	case address.IsLoopback():
		return model.Loopback
	case n.HostConfig.NetworkMode == "host":
		return model.Host
	case shared || !address.IsUnspecified():
		return ""
	case len(n.NetworkSettings.Ports[fmt.Sprintf("%d/%s", r.port, r.protocol)]) > 0:
		return model.Published
	}
	for _, network := range n.NetworkSettings.Networks {
		if network.IPAddress != "" || network.GlobalIPv6Address != "" {
			return model.Network
		}
	}
	return model.Loopback
}

// workload runs this program in the container, and returns its facts at its end.
// The first goes to started at once, unless that is nil.
func (d dockerCommand) workload(ctx context.Context, container string, command []string, started chan<- fact) ([]fact, error) {
	cmd := exec.CommandContext(ctx, string(d), append([]string{"exec", container, workloadPath}, command...)...)
	out := &firstLine{line: started}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("run workload %v in %s: %w", command, container, err), out.failure)
	}
	return parseFacts(out.all.Bytes())
}

// A firstLine keeps what is written to it, and hands the first fact on.
type firstLine struct {
	all     bytes.Buffer
	line    chan<- fact // has room for one; nil: nobody wants it
	failure error
}

func (w *firstLine) Write(p []byte) (int, error) {
	n, err := w.all.Write(p)
	end := bytes.IndexByte(w.all.Bytes(), '\n')
	if w.line == nil || end < 0 {
		return n, err
	}
	facts, parseErr := parseFacts(w.all.Bytes()[:end+1])
	if parseErr != nil {
		w.failure = parseErr
		return n, parseErr
	}
	w.line <- facts[0]
	w.line = nil
	return n, err
}

func parseFacts(lines []byte) ([]fact, error) {
	var facts []fact
	for line := range bytes.Lines(lines) {
		var f fact
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, fmt.Errorf("read the workload's line %q: %w", line, err)
		}
		facts = append(facts, f)
	}
	return facts, nil
}
