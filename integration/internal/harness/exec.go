package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/testutil/truth"
)

// Exec is a workload command that was started in a running container, as with docker exec.
type Exec struct {
	container *Container
	command   *exec.Cmd
	lines     chan string
	output    strings.Builder // all lines; whole when lines is closed
	stderr    *strings.Builder
	first     truth.Fact
}

// workload is the command that runs the workload in the container.
func (c *Container) workload(arguments []string) (*exec.Cmd, *strings.Builder) {
	command := c.engine.Command(context.Background(), slices.Concat([]string{"exec", c.ID, truth.WorkloadPath}, arguments)...)
	stderr := &strings.Builder{}
	command.Stderr = stderr
	return command, stderr
}

// Exec starts a workload command in the container and returns after its first fact, which
// is that its first port is open. It is stopped when the test ends.
func (c *Container) Exec(t testing.TB, arguments ...string) *Exec {
	t.Helper()
	run := &Exec{container: c, lines: make(chan string, 1000)}
	run.command, run.stderr = c.workload(arguments)
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
			run.output.WriteString(scanner.Text() + "\n")
			run.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() { run.kill() })
	run.first = run.next(t)
	return run
}

// next waits for the next fact.
func (e *Exec) next(t testing.TB) (fact truth.Fact) {
	t.Helper()
	select {
	case line, open := <-e.lines:
		if !open {
			t.Fatalf("%v in %s has ended without the fact: %s", e.command.Args, e.container.Name, e.stderr)
		}
		if err := json.Unmarshal([]byte(line), &fact); err != nil {
			t.Fatalf("%v in %s: %q: %v", e.command.Args, e.container.Name, line, err)
		}
	case <-time.After(Patience):
		t.Fatalf("%v in %s: no fact within %v", e.command.Args, e.container.Name, Patience)
	}
	return fact
}

// Port is the first port that the command opened.
func (e *Exec) Port() int { return int(e.first.Port) }

// WaitFacts waits for so many more facts with this action.
func (e *Exec) WaitFacts(t testing.TB, count int, action truth.Action) {
	t.Helper()
	for count > 0 {
		if e.next(t).Action == action {
			count--
		}
	}
}

// Stop ends the command with SIGTERM, waits for its end, and returns all of its facts.
func (e *Exec) Stop(t testing.TB) []truth.Fact {
	t.Helper()
	if err := e.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	e.Wait(t)
	facts, err := truth.ReadFacts(e.output.String())
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// Wait waits until the command has ended by itself.
func (e *Exec) Wait(t testing.TB) {
	t.Helper()
	late := time.After(Patience)
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
		case <-late:
			t.Fatalf("%v in %s: has not ended within %v", e.command.Args, e.container.Name, Patience)
		}
	}
}

// kill ends the command if it runs.
func (e *Exec) kill() {
	if e.command.ProcessState != nil {
		return
	}
	_ = e.signal(syscall.SIGKILL) // it may have gone with its container
	_ = e.command.Process.Kill()
	for range e.lines {
	}
	_ = e.command.Wait() // it reports the kill
}

// signal finds the command's host pid by its pid in the container.
func (e *Exec) signal(signal syscall.Signal) error {
	pid, err := e.container.hostPID(e.first.PID)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, signal)
}

// RunFacts runs a workload command in the container to its end. Beside an error it returns
// the facts before it. It is safe to call from any goroutine.
func (c *Container) RunFacts(arguments ...string) ([]truth.Fact, error) {
	command, stderr := c.workload(arguments)
	output, err := command.Output()
	if err != nil {
		err = fmt.Errorf("workload %q in %s: %w: %s", arguments, c.Name, err, stderr)
	}
	facts, factsErr := truth.ReadFacts(string(output))
	return facts, errors.Join(err, factsErr)
}

// Facts is [Container.RunFacts] for a test that cannot go on without a fact.
func (c *Container) Facts(t testing.TB, arguments ...string) []truth.Fact {
	t.Helper()
	facts, err := c.RunFacts(arguments...)
	if err != nil {
		t.Fatal(err)
	}
	if len(facts) == 0 {
		t.Fatalf("the workload %q has opened and closed nothing", arguments)
	}
	return facts
}
