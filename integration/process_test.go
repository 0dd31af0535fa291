package integration

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// heldBy fails the test unless one process of the workload holds what was reported: pid is
// its host pid, or 0 for any.
func heldBy(t *testing.T, processes []model.Process, pid int) {
	t.Helper()
	if len(processes) != 1 {
		t.Errorf("processes %+v, want one", processes)
		return
	}
	p := processes[0]
	if pid != 0 && p.PID != pid || p.Executable != truth.WorkloadPath || p.UID == nil || *p.UID != 0 || p.ContainerPID == 0 {
		t.Errorf("process %+v; want pid %d, %s, user 0 and a pid in the container", p, pid, truth.WorkloadPath)
	}
}

// openPortsOf is what a portwatcher that begins now finds open in a container.
func openPortsOf(t *testing.T, container *harness.Container, source string) []model.Open {
	t.Helper()
	result := harness.Run(t, []string{"MONITOR_CONTAINERS=" + container.Name}, "ports", "--format", "json", "--source", source)
	var ports []model.Open
	if err := json.Unmarshal([]byte(result.Stdout), &ports); err != nil || result.Status != 0 {
		t.Fatalf("exit status %d, %v: %s%s", result.Status, err, result.Stdout, result.Stderr)
	}
	return ports
}

// The main thread of a container's first process has exited, and others serve; so has that
// of a child. portwatcher was there before, begins later, and begins again.
func TestMainThreadHasExited(t *testing.T) {
	eachSource(t, func(t *testing.T, source string) {
		state := t.TempDir() + "/portwatcher.db"
		run := func(after *harness.Watch) *harness.Watch {
			return harness.StartWatch(t, harness.WatchSpec{State: state, After: after, Arguments: []string{"--source", source}})
		}
		parent := idle(t, "parent")
		watch := run(nil)
		watch.Marker(t, parent, 1000)
		first := start(t, "first", 1, nil, "--tcp", "0.0.0.0:80", "--exit-main-thread")
		process, err := os.FindProcess(first.PID)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = process.Kill() }) // the engine refuses to: it is a zombie
		opened := watch.WaitEvent(t, 0, harness.Opened(first.Name, "tcp", "0.0.0.0", 80))
		heldBy(t, opened.Processes, first.PID)
		child := parent.Exec(t, "listen", "--tcp", "0.0.0.0:81", "--exit-main-thread")
		opened = watch.WaitEvent(t, 0, harness.Opened(parent.Name, "tcp", "0.0.0.0", 81))
		heldBy(t, opened.Processes, 0)

		for container, port := range map[*harness.Container]uint16{first: 80, parent: 81} {
			ports := openPortsOf(t, container, source)
			if len(ports) != 1 || ports[0].Port != port {
				t.Errorf("%s: ports %+v, want %d", container.Name, ports, port)
				continue
			}
			heldBy(t, ports[0].Processes, 0)
		}

		if _, status := watch.Stop(t, syscall.SIGTERM); status != 0 {
			t.Fatalf("exit status %d", status)
		}
		watch = run(watch)
		watch.Marker(t, parent, 1000)
		watch.Expect(t, 0, harness.Match{Container: first.Name})
		child.Stop(t)
		watch.WaitEvent(t, 0, harness.Closed(parent.Name, "tcp", "0.0.0.0", 81))
		if err := process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		closed := watch.WaitEvent(t, 0, harness.Closed(first.Name, "tcp", "0.0.0.0", 80))
		heldBy(t, closed.Processes, first.PID)
	})
}

// A name may hold a backslash or a line's end: it is the same in events and lists, with the
// rest that is known of the process.
func TestProcessNames(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "names")
		for i, name := range []string{`a\b`, "x\ny"} {
			port := 80 + i
			run := container.Exec(t, "listen", "--name", name, "--tcp", "0.0.0.0:"+itoa(port))
			opened := watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", port))
			heldBy(t, opened.Processes, 0)
			ports := openPortsOf(t, container, source)
			if len(ports) != 1 {
				t.Fatalf("ports %+v, want one", ports)
			}
			heldBy(t, ports[0].Processes, 0)
			for _, processes := range [][]model.Process{opened.Processes, ports[0].Processes} {
				if len(processes) == 1 && processes[0].Name != name {
					t.Errorf("name %q, want %q", processes[0].Name, name)
				}
			}
			run.Stop(t)
		}
	})
}

// Two services with one name differ by their executable, and by their arguments where these
// are asked for.
func TestProcessArguments(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "services")
		for port := range 2 {
			at := "0.0.0.0:" + itoa(80+port)
			container.Exec(t, "listen", "--name", "MainThread", "--password", "hunter2", "--tcp", at)
			opened := watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 80+port))
			want := "listen --name MainThread --password *** --tcp " + at
			if len(opened.Processes) != 1 || opened.Processes[0].Arguments != want {
				t.Errorf("want the arguments %q: %s", want, opened.Line)
			}
		}
		for _, p := range openPortsOf(t, container, source) {
			if len(p.Processes) != 1 || p.Processes[0].Arguments != "" {
				t.Errorf("want no arguments by default: %+v", p.Processes)
			}
		}
		table := harness.Run(t, []string{"MONITOR_CONTAINERS=" + container.Name}, "ports", "--source", source).Stdout
		if strings.Count(table, " MainThread (workload)") != 2 {
			t.Errorf("want two processes named MainThread of the workload:\n%s", table)
		}
	}, "--process-arguments")
}
