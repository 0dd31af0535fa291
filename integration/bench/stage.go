package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"portwatcher/integration/internal/docker"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/testutil/truth"
)

// The sources of portwatcher that are compared, as --source takes them.
const (
	sourceEBPF    = "ebpf"
	sourceNetlink = "netlink"
)

var sources = []string{sourceEBPF, sourceNetlink}

const (
	// fleetLife ends the containers by themselves where this program could not remove them,
	// as after SIGKILL.
	fleetLife = 30 * time.Minute
	// fleetWorkers start containers at the same time.
	fleetWorkers = 4
	// fleetPatience bounds the wait for the ports of all containers.
	fleetPatience = time.Minute
	fleetPort     = 9000
	stormPort     = 29311
)

// A stage is what a theme needs of a real engine: a number of containers with the same
// ports, and the portwatcher that is to watch them.
type stage struct {
	engine            docker.Engine
	theme             string
	run               string // names this run
	containers, ports int
	network           string
	ids               []string
	portwatcher       string // the path of the binary
}

func newStage(theme string, containers, ports int, network string) *stage {
	return &stage{theme: theme, run: fmt.Sprintf("%s-%d-%d", theme, os.Getpid(), time.Now().Unix()), containers: containers, ports: ports, network: network}
}

// onStage calls measure with running containers, and removes them. A theme that has no
// engine is recorded as missing.
func onStage(ctx context.Context, s *settings, r *report, st *stage, measure func(*stage) error) (err error) {
	if reason := st.noEngine(ctx); reason != "" {
		r.missing(st.theme, reason)
		return nil
	}
	folder, err := os.MkdirTemp("", "portwatcher-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	var workload string
	if st.portwatcher, workload, err = buildBinaries(s.portwatcher, folder); err != nil {
		return err
	}
	defer func() {
		progress("%s: removing the containers", st.theme)
		err = errors.Join(err, st.engine.RemoveLabelled(context.Background(), st.label()))
	}()
	if err := st.start(ctx, workload); err != nil {
		return err
	}
	return measure(st)
}

// buildBinaries builds into folder. A given portwatcher is not built.
func buildBinaries(given, folder string) (portwatcher, workload string, err error) {
	progress("go build")
	portwatcher, workload = given, filepath.Join(folder, filepath.Base(truth.WorkloadPath))
	if given == "" {
		portwatcher = filepath.Join(folder, "portwatcher")
		err = docker.Build("portwatcher", "./cmd/portwatcher", portwatcher)
	}
	return portwatcher, workload, errors.Join(err, docker.Build("portwatcher", "./integration/workload", workload))
}

// noEngine returns why there is no engine to measure with.
func (s *stage) noEngine(ctx context.Context) string {
	if _, err := s.docker(ctx, "version", "--format", "{{.Server.Version}}"); err != nil {
		return "no Docker engine answers: " + err.Error()
	}
	if os.Geteuid() != 0 {
		return "the namespaces of containers are open to root only"
	}
	return ""
}

// docker runs the docker command, which finishes what it has begun also where an interrupt
// ends this program, so that what it makes is known.
func (s *stage) docker(ctx context.Context, arguments ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return s.engine.Run(context.WithoutCancel(ctx), arguments...)
}

// exec runs the workload in a container and returns its facts.
func (s *stage) exec(ctx context.Context, container string, workload ...string) ([]truth.Fact, error) {
	output, err := s.docker(ctx, append([]string{"exec", container, truth.WorkloadPath}, workload...)...)
	facts, factsErr := truth.ReadFacts(output)
	return facts, errors.Join(err, factsErr)
}

// label marks what this run makes on the engine.
func (s *stage) label() string { return "bench.portwatcher.run=" + s.run }

// endpoints is how many ports there are in all.
func (s *stage) endpoints() int { return s.containers * s.ports }

// start makes the image, starts the containers, and waits until their ports are open.
func (s *stage) start(ctx context.Context, workload string) error {
	image := "portwatcher-bench:" + s.run
	if err := s.engine.Import(ctx, image, []string{workload}, `ENTRYPOINT ["`+truth.WorkloadPath+`"]`, "LABEL "+s.label()); err != nil {
		return err
	}
	progress("%s: starting containers (%d, of %d ports, network %s)", s.theme, s.containers, s.ports, s.network)
	var ports []string
	for i := range s.ports {
		ports = append(ports, map[bool]string{true: "--udp", false: "--tcp"}[i%5 == 4], "0.0.0.0:"+strconv.Itoa(fleetPort+i))
	}
	s.ids = make([]string, s.containers)
	err := each(s.containers, func(i int) (err error) {
		s.ids[i], err = s.docker(ctx, slices.Concat([]string{
			"run", "--detach", "--rm", "--label", s.label(), "--name", fmt.Sprintf("portwatcher-bench-%s-%d", s.run, i),
			"--network", s.network, image, "listen", "--for", fleetLife.String(),
		}, ports)...)
		return err
	})
	if err != nil {
		return err
	}
	return s.waitOpen(ctx)
}

// waitOpen waits until the kernel has all ports of all containers.
func (s *stage) waitOpen(ctx context.Context) error {
	pids, err := s.processes(ctx)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := until(ctx, fleetPatience, func() error {
			found, err := countOpen(pid)
			if err == nil && found < s.ports {
				err = fmt.Errorf("a container has %d of %d ports open", found, s.ports)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// processes returns the first process of each container.
func (s *stage) processes(ctx context.Context) (pids []int, err error) {
	output, err := s.docker(ctx, append([]string{"inspect", "--format", "{{.State.Pid}}"}, s.ids...)...)
	if err != nil {
		return nil, err
	}
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

// each calls do for 0 to n-1, several at a time, and begins no more after an error.
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
