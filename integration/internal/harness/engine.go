package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Engine is a Docker engine, spoken to with the docker command.
type Engine struct {
	// Host is its address as in DOCKER_HOST; empty is the default one.
	Host string

	ending sync.Mutex // see endOne
}

// Default is the engine that the environment names.
var Default = &Engine{}

// Docker runs the docker command and returns its standard output without
// surrounding blanks. The error has what it wrote to standard error. What ends a
// container waits for its turn, and for the end; see [Engine.endOne].
func (e *Engine) Docker(arguments ...string) (string, error) {
	switch arguments[0] {
	case "kill", "stop", "restart", "rm":
		defer e.endOne()()
	}
	output, err := e.docker(arguments...)
	if err == nil && arguments[0] == "kill" {
		_, err = e.docker("wait", arguments[len(arguments)-1])
	}
	return output, err
}

func (e *Engine) docker(arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "docker", arguments...)
	command.Env = e.environment()
	output, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("docker %s: %w", strings.Join(arguments, " "), err)
	}
	return strings.TrimSpace(string(output)), nil
}

// MustDocker is [Engine.Docker] for a test that cannot go on without it.
func (e *Engine) MustDocker(t testing.TB, arguments ...string) string {
	t.Helper()
	output, err := e.Docker(arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func (e *Engine) environment() []string {
	if e.Host == "" {
		return os.Environ()
	}
	return append(os.Environ(), "DOCKER_HOST="+e.Host)
}

// Spec says which container to start.
type Spec struct {
	// Name is the container's name; [Name] makes one.
	Name string
	// Image is the image; empty is the workload's.
	Image string
	// Options are options of docker run.
	Options []string
	// Command is the container's command, after the image.
	Command []string
}

// Container is a container of a test.
type Container struct {
	ID, Name string
	// PID is the first process, in the host's pid namespace, when it was
	// started or last refreshed.
	PID    int
	engine *Engine
}

// Start starts a container, which is removed when the test ends.
func (e *Engine) Start(t testing.TB, spec Spec) *Container {
	t.Helper()
	t.Cleanup(func() {
		if err := e.Remove(spec.Name); err != nil {
			t.Error(err)
		}
	})
	container, err := e.run(spec)
	if err != nil {
		t.Fatal(err)
	}
	container.Refresh(t)
	return container
}

// StartMany starts count containers of one kind, some at a time, and leaves
// PID unknown. They are removed when the test ends, if they are still there.
func (e *Engine) StartMany(t testing.TB, count int, spec Spec) []*Container {
	t.Helper()
	const atOnce = 4
	containers := make([]*Container, count)
	names, failures := make([]string, count), make([]error, count)
	for i := range names {
		names[i] = spec.Name + "-" + strconv.Itoa(i)
	}
	t.Cleanup(func() {
		if err := e.Remove(names...); err != nil {
			t.Error(err)
		}
	})
	var starting sync.WaitGroup
	for worker := range atOnce {
		starting.Go(func() {
			for i := worker; i < count; i += atOnce {
				one := spec
				one.Name = names[i]
				containers[i], failures[i] = e.run(one)
			}
		})
	}
	starting.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	return containers
}

// run starts a container and leaves PID unknown.
func (e *Engine) run(spec Spec) (*Container, error) {
	image := spec.Image
	if image == "" {
		var err error
		if image, err = workloadImage(e); err != nil {
			return nil, err
		}
	}
	arguments := slices.Concat(
		[]string{"run", "--detach", "--name", spec.Name, "--label", Label, "--label", runLabel()},
		spec.Options, []string{image}, spec.Command)
	id, err := e.Docker(arguments...)
	if err != nil {
		return nil, err
	}
	return &Container{ID: id, Name: spec.Name, engine: e}, nil
}

// Network makes a network for the test and returns its name.
func (e *Engine) Network(t testing.TB, suffix string) string {
	t.Helper()
	name := Name(t, suffix)
	e.MustDocker(t, "network", "create", "--label", Label, "--label", runLabel(), name)
	t.Cleanup(func() {
		if _, err := e.Docker("network", "rm", name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// Do runs `docker <verb> [options] <container>`.
func (c *Container) Do(t testing.TB, verb string, options ...string) {
	t.Helper()
	c.engine.MustDocker(t, slices.Concat([]string{verb}, options, []string{c.ID})...)
}

// Refresh looks up name and pid again, as after a rename or a restart.
func (c *Container) Refresh(t testing.TB) {
	t.Helper()
	output := c.engine.MustDocker(t, "container", "inspect", "--format", "{{.State.Pid}} {{.Name}}", c.ID)
	var name string
	if _, err := fmt.Sscanf(output, "%d %s", &c.PID, &name); err != nil {
		t.Fatalf("docker inspect %s: %q: %v", c.Name, output, err)
	}
	c.Name = strings.TrimPrefix(name, "/")
}

// Published returns the host addresses that the engine forwards to a port of
// the container, "80/tcp", as an event shows them.
func (c *Container) Published(t testing.TB, port string) []string {
	t.Helper()
	output := c.engine.MustDocker(t, "container", "inspect", "--format", "{{json .NetworkSettings.Ports}}", c.ID)
	var ports map[string][]struct{ HostIP, HostPort string }
	if err := json.Unmarshal([]byte(output), &ports); err != nil {
		t.Fatalf("docker inspect %s: ports %q: %v", c.Name, output, err)
	}
	var published []string
	for _, host := range ports[port] {
		address, err := netip.ParseAddr(host.HostIP)
		if err != nil {
			t.Fatalf("docker inspect %s: %v", c.Name, err)
		}
		if address.Is6() {
			published = append(published, "["+host.HostIP+"]:"+host.HostPort)
		} else {
			published = append(published, host.HostIP+":"+host.HostPort)
		}
	}
	return published
}

// Logs returns what the container wrote to standard output and error.
func (c *Container) Logs(t testing.TB) string {
	t.Helper()
	command := exec.Command("docker", "logs", c.ID)
	command.Env = c.engine.environment()
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("docker logs %s: %v: %s", c.Name, err, output)
	}
	return string(output)
}

// WaitLogs waits until the container has written text this many times.
func (c *Container) WaitLogs(t testing.TB, count int, text string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("container %s writes %s %d times", c.Name, text, count), func() string {
		if logs := c.Logs(t); strings.Count(logs, text) < count {
			return "so far: " + logs
		}
		return ""
	})
}
