package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Fact is what the workload says of itself: one socket opened or closed.
type Fact struct {
	Action string    `json:"action"`
	Time   time.Time `json:"time"` // right before the call
	Port   int       `json:"port"`
	PID    int       `json:"pid"` // in its own pid namespace
}

// Exec is a workload command that was started in a running container, as with
// docker exec.
type Exec struct {
	container *Container
	command   *exec.Cmd
	lines     chan string
	facts     strings.Builder // all lines; whole when lines is closed
	stderr    *strings.Builder
	first     Fact
}

// Exec starts a workload command in the container and returns after its first
// fact, which says that its first port is open. It is stopped when the test ends.
func (c *Container) Exec(t testing.TB, arguments ...string) *Exec {
	t.Helper()
	run := &Exec{container: c, lines: make(chan string, 1000), stderr: &strings.Builder{}}
	run.command = exec.Command("docker", slices.Concat([]string{"exec", c.ID, WorkloadPath}, arguments)...)
	run.command.Env = c.engine.environment()
	run.command.Stderr = run.stderr
	stdout, err := run.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.command.Start(); err != nil {
		t.Fatalf("docker exec %s: %v", c.Name, err)
	}
	go func() {
		defer close(run.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			run.facts.WriteString(scanner.Text() + "\n")
			run.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() { run.kill() })
	select {
	case line := <-run.lines:
		if err := json.Unmarshal([]byte(line), &run.first); err != nil {
			t.Fatalf("workload %v in %s: %q: %v %s", arguments, c.Name, line, err, run.stderr)
		}
	case <-time.After(Patience):
		t.Fatalf("workload %v in %s: no fact within %v: %s", arguments, c.Name, Patience, run.stderr)
	}
	return run
}

// Port is the first port that the command opened.
func (e *Exec) Port() int { return e.first.Port }

// WaitFact waits for the next fact with this action ("opened", "closed", "held").
func (e *Exec) WaitFact(t testing.TB, action string) Fact {
	t.Helper()
	late := time.After(Patience)
	for {
		select {
		case line, open := <-e.lines:
			if !open {
				t.Fatalf("%v in %s has ended without the fact %q", e.command.Args, e.container.Name, action)
			}
			var fact Fact
			if err := json.Unmarshal([]byte(line), &fact); err != nil {
				t.Fatalf("%v in %s: %q: %v", e.command.Args, e.container.Name, line, err)
			}
			if fact.Action == action {
				return fact
			}
		case <-late:
			t.Fatalf("%v in %s: no fact %q within %v", e.command.Args, e.container.Name, action, Patience)
		}
	}
}

// WaitFacts waits for so many more facts with this action.
func (e *Exec) WaitFacts(t testing.TB, count int, action string) {
	t.Helper()
	for range count {
		e.WaitFact(t, action)
	}
}

// Stop ends the command with SIGTERM and waits for its end.
func (e *Exec) Stop(t testing.TB) {
	t.Helper()
	if err := e.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	e.Wait(t)
}

// StopLives ends the command with SIGTERM, waits for its end and returns the ports that
// it has opened and closed.
func (e *Exec) StopLives(t testing.TB) []Life {
	t.Helper()
	e.Stop(t)
	lives, _, err := ReadLives(e.facts.String())
	if err != nil {
		t.Fatal(err)
	}
	return lives
}

// Wait waits until the command has ended by itself.
func (e *Exec) Wait(t testing.TB) {
	t.Helper()
	ended := time.After(Patience)
	for {
		select {
		case _, open := <-e.lines:
			if open {
				continue
			}
			if err := e.command.Wait(); err != nil {
				t.Fatalf("%v in %s: %v: %s", e.command.Args, e.container.Name, err, e.stderr)
			}
			return
		case <-ended:
			t.Fatalf("%v in %s: has not ended within %v", e.command.Args, e.container.Name, Patience)
		}
	}
}

// kill ends the command if it is still there, whatever its state.
func (e *Exec) kill() {
	if e.command.ProcessState != nil {
		return
	}
	_ = e.signal(syscall.SIGKILL) // it may have gone with its container
	_ = e.command.Process.Kill()
	for range e.lines {
	}
	_ = e.command.Wait()
}

// signal finds the command's host pid by its pid in the container.
func (e *Exec) signal(signal syscall.Signal) error {
	pid, err := e.container.HostPID(e.first.PID)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, signal)
}

// HostPID returns the pid in the host's pid namespace of one of the
// container's processes.
func (c *Container) HostPID(containerPID int) (int, error) {
	cgroups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, err
	}
	for _, path := range cgroups {
		if !inCgroup(path, c.ID) {
			continue
		}
		if process, ok := readProcess(filepath.Dir(path)); ok && process.ContainerPID == containerPID {
			return process.PID, nil
		}
	}
	return 0, fmt.Errorf("no process of container %s has the pid %d in it", c.Name, containerPID)
}

// ParentPID returns the pid of the process that watches over the container's
// first process for the engine.
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

// Marker opens a port in the container and closes it again, each after
// portwatcher has reported the step before: two looks at the container have
// passed when it returns, so that whatever happened before it has been
// reported, if it ever will be.
func (w *Watch) Marker(t testing.TB, c *Container, port int) {
	t.Helper()
	before := w.lastID()
	run := c.Exec(t, "listen", "--mptcp=false", "--tcp", "127.0.0.1:"+strconv.Itoa(port))
	opened := w.WaitEvent(t, before, Opened(c.Name, "tcp", "127.0.0.1", port))
	run.Stop(t)
	w.WaitEvent(t, opened.ID, Closed(c.Name, "tcp", "127.0.0.1", port))
}
