package integration

import (
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
)

// A server that forks late, whose parent ends then, as a daemon does, is another
// owner; a worker of it that dies changes nothing but the list of processes.
func TestHoldersThatComeAndGo(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	i := serve(t, serving{})
	// Its first process waits for the children that it is given.
	container := harness.Default.Start(t, harness.Spec{Name: harness.Name(t, "daemon"), Command: []string{"control"}})
	i.Marker(t, container, 1000)
	// Later than the second reading of who holds what has opened.
	parent := container.Exec(t, "listen", "--tcp", "0.0.0.0:80", "--fork-after", "2s", "--children", "2", "--orphan")
	opened := i.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 80))
	parent.Wait(t)
	children := listening(t, container, 1)
	if len(children[0].Processes) != 2 {
		t.Fatalf("want two children: %s", children[0])
	}
	i.WaitOpen(t, children)
	changes := harness.Match{Type: "changed", Container: container.Name}
	changed := i.WaitEvent(t, opened.ID, changes)
	if !strings.Contains(changed.Line, `"source":"proc"`) {
		t.Errorf("want the source proc: %s", changed.Line)
	}

	last := children[0].Processes[1]
	if err := syscall.Kill(children[0].Processes[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	left := children
	left[0].Processes = []model.Process{last}
	harness.Eventually(t, "the list has the child that is left", func() string {
		var answer portList
		i.get(t, "ports", nil, &answer)
		return harness.Difference(answer.listeners(), left)
	})
	if err := syscall.Kill(last.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	closed := i.WaitEvent(t, changed.ID, harness.Closed(container.Name, "tcp", "0.0.0.0", 80))
	if len(closed.Processes) != 1 || closed.Processes[0].PID != last.PID {
		t.Errorf("want %d as the last process: %s", last.PID, closed.Line)
	}
	i.Expect(t, 1, changes)
}

// A server that is replaced without a moment in which nobody listens
// (SO_REUSEPORT) is a group of which one leaves: no event, and who holds the port
// is reported correctly.
func TestHandover(t *testing.T) {
	watchEachSource(t, func(t *testing.T, _ string, watch *harness.Watch) {
		container := idle(t, "web")
		first := container.Exec(t, "listen", "--reuseport", "2", "--tcp", "0.0.0.0:80")
		watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 80))
		second := container.Exec(t, "listen", "--reuseport", "2", "--tcp", "0.0.0.0:80,0.0.0.0:81")
		watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 81))
		first.Stop(t)
		stays := listening(t, container, 2)[0].Processes
		watch.Marker(t, container, 1000)
		watch.Expect(t, 1, harness.Match{Port: 80})
		second.Stop(t)
		closed := watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", 80))
		if len(closed.Processes) != 1 || closed.Processes[0].PID != stays[0].PID {
			t.Errorf("want %d as the last process: %s", stays[0].PID, closed.Line)
		}
		watch.Expect(t, 2, harness.Match{Port: 80})
	})
}
