package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/docker"
)

// Engine is a Docker engine, with what tests do on it.
type Engine struct{ *docker.Engine }

// Default is the engine that the environment names.
var Default = &Engine{&docker.Engine{}}

// commandTime bounds one docker command.
const commandTime = 2 * time.Minute

// Docker is [docker.Engine.Run] within commandTime.
func (e *Engine) Docker(arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	return e.Run(ctx, arguments...)
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

// PrivateEngine is a Docker engine of the test's own, which it may kill. It has no bridge:
// its containers have the network "none".
type PrivateEngine struct {
	*Engine
	private *docker.Private
}

// StartPrivateEngine starts an engine, whose containers live on without it or not. It is
// stopped and its files are removed when the test ends.
func StartPrivateEngine(t testing.TB, liveRestore bool) *PrivateEngine {
	t.Helper()
	private, err := docker.StartPrivate(t.Context(), liveRestore)
	if errors.Is(err, docker.ErrNoDaemon) {
		Unavailable(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of dockerd:\n%s", private.Log())
		}
		if err := private.Discard(); err != nil {
			t.Error(err)
		}
	})
	return &PrivateEngine{&Engine{&private.Engine}, private}
}

// Kill kills the daemon with SIGKILL, as a crash does.
func (e *PrivateEngine) Kill(t testing.TB) {
	t.Helper()
	if err := e.private.End(syscall.SIGKILL); err != nil {
		t.Fatalf("kill dockerd: %v", err)
	}
}

// Launch starts the daemon again and waits until it answers.
func (e *PrivateEngine) Launch(t testing.TB) {
	t.Helper()
	if err := errors.Join(e.private.Launch(), e.private.WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// Spec is which container to start.
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
	// PID is the first process, in the host's pid namespace, when it was started or last
	// refreshed.
	PID    int
	engine *Engine
}

// Start starts a container, which is removed when the test ends.
func (e *Engine) Start(t testing.TB, spec Spec) *Container {
	t.Helper()
	e.removeLater(t, spec.Name)
	container, err := e.start(spec)
	if err != nil {
		t.Fatal(err)
	}
	container.Refresh(t)
	return container
}

// removeLater removes containers when the test ends, if they are there.
func (e *Engine) removeLater(t testing.TB, names ...string) {
	t.Cleanup(func() {
		if err := e.Remove(names...); err != nil {
			t.Error(err)
		}
	})
}

// StartMany starts count containers of one kind, some at a time, and leaves PID unknown.
// They are removed when the test ends, if they are there.
func (e *Engine) StartMany(t testing.TB, count int, spec Spec) []*Container {
	t.Helper()
	const atOnce = 4
	containers := make([]*Container, count)
	names, failures := make([]string, count), make([]error, count)
	for i := range names {
		names[i] = spec.Name + "-" + strconv.Itoa(i)
	}
	e.removeLater(t, names...)
	var starting sync.WaitGroup
	for worker := range atOnce {
		starting.Go(func() {
			for i := worker; i < count; i += atOnce {
				one := spec
				one.Name = names[i]
				containers[i], failures[i] = e.start(one)
			}
		})
	}
	starting.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	return containers
}

// start starts a container and leaves PID unknown.
func (e *Engine) start(spec Spec) (*Container, error) {
	image := spec.Image
	if image == "" {
		var err error
		if image, err = workloadImage(e); err != nil {
			return nil, err
		}
	}
	id, err := e.Docker(slices.Concat([]string{"run", "--detach", "--name", spec.Name}, labels, spec.Options, []string{image}, spec.Command)...)
	if err != nil {
		return nil, err
	}
	return &Container{ID: id, Name: spec.Name, engine: e}, nil
}

// Network makes a network for the test and returns its name.
func (e *Engine) Network(t testing.TB, suffix string) string { return e.create(t, "network", suffix) }

// Volume makes a named volume for the test and returns its name.
func (e *Engine) Volume(t testing.TB, suffix string) string { return e.create(t, "volume", suffix) }

func (e *Engine) create(t testing.TB, kind, suffix string) string {
	t.Helper()
	name := Name(t, suffix)
	e.MustDocker(t, slices.Concat([]string{kind, "create"}, labels, []string{name})...)
	t.Cleanup(func() {
		if _, err := e.Docker(kind, "rm", name); err != nil {
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

// Refresh reads name and pid again, as after a rename or a restart.
func (c *Container) Refresh(t testing.TB) {
	t.Helper()
	output := c.engine.MustDocker(t, "container", "inspect", "--format", "{{.State.Pid}} {{.Name}}", c.ID)
	var name string
	if _, err := fmt.Sscanf(output, "%d %s", &c.PID, &name); err != nil {
		t.Fatalf("docker inspect %s: %q: %v", c.Name, output, err)
	}
	c.Name = strings.TrimPrefix(name, "/")
}

// Published returns the host addresses that the engine forwards to a port of the
// container, "80/tcp", as an event shows them.
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
	output, err := c.engine.Command(context.Background(), "logs", c.ID).CombinedOutput()
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

// hostPID returns the pid in the host's pid namespace of one of the container's processes.
func (c *Container) hostPID(containerPID int) (int, error) {
	folders, err := docker.Processes(c.ID)
	if err != nil {
		return 0, err
	}
	for _, folder := range folders {
		if process, ok := readProcess(folder); ok && process.ContainerPID == containerPID {
			return process.PID, nil
		}
	}
	return 0, fmt.Errorf("no process of container %s has the pid %d in it", c.Name, containerPID)
}

// ParentPID returns the pid of the process that supervises the container's first process
// for the engine.
func (c *Container) ParentPID(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	var parent int
	_, line, _ := strings.Cut(string(status), "\nPPid:")
	if _, err := fmt.Sscan(line, &parent); err != nil || parent <= 1 {
		t.Fatalf("container %s: no parent process in %q: %v", c.Name, status, err)
	}
	return parent
}
