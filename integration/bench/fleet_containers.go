package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/sockdiag"
)

const (
	// fleetLife ends the containers by themselves where this program could not
	// remove them, as after SIGKILL.
	fleetLife = 30 * time.Minute
	// fleetWorkers start containers at the same time.
	fleetWorkers = 4
	// fleetPatience bounds the wait for the ports of all containers.
	fleetPatience = time.Minute
	fleetPort     = 9000
)

// A fleet is a number of containers with the same ports, and their image.
type fleet struct {
	theme             string
	run               string // names this run
	containers, ports int
	network           string
	ids               []string
}

func newFleet(theme string, containers, ports int, network string) *fleet {
	return &fleet{
		theme: theme, run: fmt.Sprintf("%s-%d-%d", theme, os.Getpid(), time.Now().Unix()),
		containers: containers, ports: ports, network: network,
	}
}

// label marks what this run makes on the engine.
func (f *fleet) label() string { return "bench.portwatcher.run=" + f.run }

func (f *fleet) image() string { return "portwatcher-bench:" + f.run }

// endpoints is how many ports the fleet has in all.
func (f *fleet) endpoints() int { return f.containers * f.ports }

// noEngine returns why there is no engine to measure with.
func noEngine(ctx context.Context) string {
	if _, err := docker(ctx, nil, "version", "--format", "{{.Server.Version}}"); err != nil {
		return "no Docker engine answers: " + err.Error()
	}
	if os.Geteuid() != 0 {
		return "the namespaces of containers are open to root only"
	}
	return ""
}

// docker runs the docker command and returns its standard output. The command
// finishes what it has begun, also where an interrupt from the terminal ends
// this program, so that what it makes is known.
func docker(ctx context.Context, input []byte, arguments ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	command := exec.Command("docker", arguments...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Stdin = bytes.NewReader(input)
	output, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return "", fmt.Errorf("docker %s: %w", arguments[0], err)
	}
	return strings.TrimSpace(string(output)), nil
}

// engineEvents counts what the engine told in a span of time.
func engineEvents(ctx context.Context, begin, end time.Time) (int, error) {
	output, err := docker(ctx, nil, "events", "--since", begin.Format(time.RFC3339Nano), "--until", end.Format(time.RFC3339Nano), "--format", "{{.Action}}")
	return len(strings.Fields(output)), err
}

// start makes the image from static binaries, starts the containers, and waits
// until their ports are open. The first binary is the workload.
func (f *fleet) start(ctx context.Context, binaries ...string) error {
	archive, err := imageArchive(binaries)
	if err != nil {
		return err
	}
	if _, err := docker(ctx, archive, "import", "--change", `ENTRYPOINT ["/workload"]`,
		"--change", "LABEL "+f.label(), "-", f.image()); err != nil {
		return err
	}
	progress("%s: starting containers (%d, of %d ports, network %s)", f.theme, f.containers, f.ports, f.network)
	f.ids = make([]string, f.containers)
	err = each(f.containers, func(i int) (err error) {
		f.ids[i], err = docker(ctx, nil, append([]string{
			"run", "--detach", "--rm", "--label", f.label(), "--name", fmt.Sprintf("portwatcher-bench-%s-%d", f.run, i),
			"--network", f.network, f.image(), "listen", "--for", fleetLife.String(),
		}, f.portFlags()...)...)
		return err
	})
	if err != nil {
		return err
	}
	return f.waitOpen(ctx)
}

// portFlags are the workload's: every fifth port is UDP.
func (f *fleet) portFlags() []string {
	var flags []string
	for i := range f.ports {
		protocol := "--tcp"
		if i%5 == 4 {
			protocol = "--udp"
		}
		flags = append(flags, protocol, "0.0.0.0:"+strconv.Itoa(fleetPort+i))
	}
	return flags
}

// imageArchive is a file system with the binaries in its root.
func imageArchive(binaries []string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, path := range binaries {
		binary, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Name: filepath.Base(path), Mode: 0o755, Size: int64(len(binary))}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(binary); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// waitOpen waits until the kernel has all ports of all containers.
func (f *fleet) waitOpen(ctx context.Context) error {
	pids, err := f.processes(ctx)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(fleetPatience)
	for _, pid := range pids {
		for {
			found, err := countOpen(pid)
			if err != nil {
				return err
			}
			if found >= f.ports {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("after %v a container has %d of %d ports open", fleetPatience, found, f.ports)
			}
			if err := wait(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// processes returns the first process of each container.
func (f *fleet) processes(ctx context.Context) ([]int, error) {
	output, err := docker(ctx, nil, append([]string{"inspect", "--format", "{{.State.Pid}}"}, f.ids...)...)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(output) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("docker inspect: pid: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// countOpen counts the ports in the network namespace of a process.
func countOpen(pid int) (int, error) {
	namespace, err := netns.Open("/proc", pid)
	if err != nil {
		return 0, err
	}
	conn, err := sockdiag.Dial(namespace.FD(), sockdiag.Options{})
	if err := errors.Join(err, namespace.Close()); err != nil {
		return 0, err
	}
	sockets, err := conn.Dump(nil)
	ports := map[model.Endpoint]bool{}
	for _, s := range sockets {
		ports[model.Endpoint{Protocol: s.Protocol, Address: s.Address, Port: s.Port}] = true
	}
	return len(ports), errors.Join(err, conn.Close())
}

// remove removes the containers, also those that were being started when an
// error came, and the image. It does its work whatever has happened before.
func (f *fleet) remove() error {
	ctx := context.Background()
	progress("%s: removing the containers", f.theme)
	list, err := docker(ctx, nil, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label="+f.label())
	if err != nil {
		return fmt.Errorf("remove the containers with the label %s: %w", f.label(), err)
	}
	ids := strings.Fields(list)
	// One at a time: containers that leave their networks at the same moment bring
	// Docker Engine 20.10 to a deadlock.
	for _, id := range ids {
		_, removeErr := docker(ctx, nil, "rm", "--force", id)
		if removeErr != nil && !strings.Contains(removeErr.Error(), "already in progress") { // else it ended by itself, and --rm removes it
			err = errors.Join(err, removeErr)
		}
	}
	images, listErr := docker(ctx, nil, "images", "--quiet", "--filter", "label="+f.label())
	if err = errors.Join(err, listErr); images != "" {
		_, removeErr := docker(ctx, nil, "rmi", "--force", f.image())
		err = errors.Join(err, removeErr)
	}
	return err
}

// each calls do for 0 to n-1, several at a time, and begins no more after an
// error.
func each(n int, do func(i int) error) error {
	var workers sync.WaitGroup
	var next atomic.Int64
	var failed atomic.Bool
	failures := make([]error, fleetWorkers)
	for worker := range fleetWorkers {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !failed.Load(); i = int(next.Add(1)) - 1 {
				if failures[worker] = do(i); failures[worker] != nil {
					failed.Store(true)
					return
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(failures...)
}
