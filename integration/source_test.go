package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"portwatcher/integration/internal/harness"
)

// The sources, as --source forces them.
const (
	ebpf    = "ebpf"
	netlink = "netlink"
	proc    = "proc"
)

// requireEBPF ends the test where eBPF is not to be had.
var requireEBPF = func() func(t *testing.T) {
	var once sync.Once
	var missing string
	return func(t *testing.T) {
		t.Helper()
		once.Do(func() {
			if result := harness.Run(t, nil, "check", "--source", ebpf); result.Status != 0 {
				missing = result.Stdout + result.Stderr
			}
		})
		if missing != "" {
			harness.Unavailable(t, "needs eBPF: "+missing)
		}
	}
}()

// eachSource runs a test for each source.
func eachSource(t *testing.T, test func(t *testing.T, source string)) {
	harness.Require(t)
	t.Parallel()
	for _, source := range []string{ebpf, netlink, proc} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			if source == ebpf {
				requireEBPF(t)
			}
			test(t, source)
		})
	}
}

// watchEachSource runs a test for each source, with a watch that is forced to it.
func watchEachSource(t *testing.T, test func(t *testing.T, source string, watch *harness.Watch), arguments ...string) {
	eachSource(t, func(t *testing.T, source string) {
		test(t, source, harness.StartWatch(t, harness.WatchSpec{
			Arguments: append([]string{"--source", source}, arguments...),
		}))
	})
}

// watched starts a container of the workload that opens nothing, and waits
// until portwatcher sees what happens in it.
func watched(t *testing.T, watch *harness.Watch, name string, options ...string) *harness.Container {
	t.Helper()
	container := idle(t, name, options...)
	watch.Marker(t, container, 1000)
	return container
}

// every says how much of the truth a source must report.
type every int

const (
	seen  every = iota // each port, once
	some               // what a scan can see of them: none twice, none of them half
	exact              // each port, once, by its process, at its time
)

// reports holds what was reported of a container's short-lived ports against
// the truth. What happened before a [harness.Watch.Marker] has been reported.
func reports(t *testing.T, watch *harness.Watch, container *harness.Container, lives []harness.Life, want every) {
	t.Helper()
	watch.Marker(t, container, 1000)
	for _, life := range lives {
		opened := watch.Events(harness.Opened(container.Name, life.Protocol, life.Address, life.Port))
		closed := watch.Events(harness.Closed(container.Name, life.Protocol, life.Address, life.Port))
		if len(opened) != len(closed) || len(opened) > 1 || len(opened) == 0 && want != some {
			t.Errorf("port %d/%s: %d opened and %d closed", life.Port, life.Protocol, len(opened), len(closed))
			continue
		}
		if len(opened) == 0 {
			continue
		}
		if problem := disagrees(opened[0], closed[0], life, want); problem != "" {
			t.Errorf("%s: %s %s, %+v", problem, opened[0].Line, closed[0].Line, life)
		}
	}
	// Nothing else has a port.
	for _, event := range watch.Events(harness.Match{Container: container.Name}) {
		was := func(l harness.Life) bool {
			return l.Protocol == event.Protocol && l.Port == event.Port && l.Address == event.Address
		}
		if event.Type != "gap" && event.Port != 1000 && !slices.ContainsFunc(lives, was) {
			t.Errorf("no such port was open: %s", event.Line)
		}
	}
}

// disagrees says what in the events of one port is not the truth, or "".
func disagrees(opened, closed harness.Event, life harness.Life, want every) string {
	for _, event := range []harness.Event{opened, closed} {
		if problem := wrongProcess(event, life.PID, want == exact); problem != "" {
			return problem
		}
	}
	switch {
	case *opened.Transient != *closed.Transient:
		return "only one of the two is a transient"
	case closed.Time.Before(life.Closed.Before) || closed.Time.Before(opened.Time):
		return "closed too early"
	case want != exact:
		return ""
	case opened.Source != ebpf || closed.Source != ebpf:
		return "want source ebpf"
	case !life.Opened.Holds(opened.Time):
		return fmt.Sprintf("opened %v after the call", opened.Time.Sub(life.Opened.After))
	case !life.Closed.Holds(closed.Time):
		return fmt.Sprintf("closed %v after the call", closed.Time.Sub(life.Closed.After))
	}
	return ""
}

// wrongProcess says what in an event's process is not the truth, or "". What is
// read of a process that may be gone by then may be missing, but not wrong. A
// containerPID of 0 is not known.
func wrongProcess(event harness.Event, containerPID int, needed bool) string {
	if len(event.Processes) == 0 && !needed {
		return ""
	}
	if len(event.Processes) != 1 {
		return "want one process"
	}
	process := event.Processes[0]
	switch {
	case process.PID == 0 || process.Name != "workload":
		return "want a pid and the name workload"
	case process.ContainerPID != 0 && containerPID != 0 && process.ContainerPID != containerPID:
		return fmt.Sprintf("want container_pid %d", containerPID)
	case process.Executable != "" && process.Executable != harness.WorkloadPath:
		return "want the executable " + harness.WorkloadPath
	case process.UID != nil && *process.UID != 0:
		return "want uid 0"
	}
	return ""
}

// demand is how much each source must report of ports that live for a moment.
var demand = map[string]every{ebpf: exact, netlink: seen, proc: some}

// Twenty ports, each held 50 ms, one each 10 ms.
func TestShortTCP(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "burst")
		reports(t, watch, container, shortPorts(t, container, "tcp", 20000), demand[source])
	})
}

// The same with UDP. Among the ports that the kernel gives to clients, a
// destroy notification cannot tell one that was bound on purpose.
func TestShortUDP(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "burst")
		reports(t, watch, container, shortPorts(t, container, "udp", 20000), demand[source])
		ephemeral := watched(t, watch, "ephemeral")
		want := demand[source]
		if source == netlink {
			want = some
		}
		reports(t, watch, ephemeral, shortPorts(t, ephemeral, "udp", 40000), want)
	})
}

func shortPorts(t *testing.T, container *harness.Container, protocol string, base int) []harness.Life {
	t.Helper()
	lives := container.Lives(t, "burst", "--protocol", protocol, "--count", "20", "--base-port", itoa(base),
		"--hold", "50ms", "--interval", "10ms")
	if len(lives) != 20 {
		t.Fatalf("the workload opened and closed %d ports, want 20", len(lives))
	}
	return lives
}

// A port that the kernel chose, closed at once, as Java's JMX does. With UDP it
// is a client's.
func TestKernelChosenPort(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "jmx")
		var lives []harness.Life
		for range 3 {
			container.Lives(t, "transient", "--protocol", "udp", "--port", "0")
			lives = append(lives, container.Lives(t, "transient", "--port", "0")...)
		}
		reports(t, watch, container, lives, demand[source])
	})
}

// A socket that listens without bind has the port that the kernel chose.
func TestListenWithoutBind(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "unbound")
		for _, mptcp := range []string{"--mptcp=true", "--mptcp=false"} {
			run := container.Exec(t, "listen", "--listen-without-bind", mptcp, "--tcp", "0.0.0.0:0")
			watch.WaitOpen(t, truth(t, container, 1))
			run.Stop(t)
			watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", run.Port()))
		}
		// The same for a moment.
		moment := watched(t, watch, "moment")
		lives := moment.Lives(t, "listen", "--listen-without-bind", "--mptcp=false", "--tcp", "0.0.0.0:0", "--for", "1ns")
		reports(t, watch, moment, lives, demand[source])
	})
}

// The first that a container does is to open and close a port, before the
// engine can have told of it.
func TestFirstAct(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		clock := watched(t, watch, "clock")
		want := some
		if source == ebpf {
			want = exact
		}
		// Another port, in an hour, keeps it alive.
		stays := harness.Default.Start(t, harness.Spec{Name: harness.Name(t, "stays"),
			Command: []string{"burst", "--count", "2", "--hold", "1ms", "--interval", "1h"}})
		stays.WaitLogs(t, 1, `"action":"closed"`)
		reports(t, watch, stays, livesOf(t, stays), want)

		for name, options := range map[string][]string{
			"tcp": nil, "udp": {"--network", "none"},
		} {
			goes := harness.Default.StartMany(t, 1, harness.Spec{Name: harness.Name(t, "goes-"+name), Options: options,
				Command: []string{"transient", "--protocol", name, "--port", "20000"}})[0]
			goes.WaitLogs(t, 1, `"action":"closed"`)
			if source == ebpf {
				watch.WaitEvent(t, 0, harness.Closed(goes.Name, name, "0.0.0.0", 20000))
			}
			watch.Marker(t, clock, 1000)
			opened := watch.Events(harness.Opened(goes.Name, name, "0.0.0.0", 20000))
			closed := watch.Events(harness.Closed(goes.Name, name, "0.0.0.0", 20000))
			if len(opened) != len(closed) || len(opened) > 1 {
				t.Fatalf("%d opened and %d closed, want one at most", len(opened), len(closed))
			}
			if len(opened) == 0 {
				continue
			}
			if problem := disagrees(opened[0], closed[0], livesOf(t, goes)[0], want); problem != "" {
				t.Errorf("%s: %s %s", problem, opened[0].Line, closed[0].Line)
			}
		}
	})
}

// livesOf reads the facts that a container's first process wrote.
func livesOf(t *testing.T, container *harness.Container) []harness.Life {
	t.Helper()
	lives, _, err := harness.ReadLives(container.Logs(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(lives) == 0 {
		t.Fatalf("container %s has opened and closed nothing", container.Name)
	}
	return lives
}

// What is open now is the same, wherever it is read.
func TestPortsBySource(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	container := start(t, "web", 4, append([]string{"--publish", "80"}, ipv6...),
		"--tcp", "0.0.0.0:80,[::1]:81", "--udp", "0.0.0.0:53,[::]:54")
	open := truth(t, container, 4)
	for _, source := range []string{"auto", ebpf, netlink, proc} {
		result := harness.Run(t, []string{"MONITOR_CONTAINERS=" + container.Name}, "ports", "--format", "json", "--source", source)
		var events []harness.Event
		if err := json.Unmarshal([]byte(result.Stdout), &events); err != nil || result.Status != 0 {
			t.Fatalf("--source %s: exit status %d, %v: %s%s", source, result.Status, err, result.Stdout, result.Stderr)
		}
		var listeners []harness.Listener
		for _, event := range events {
			listeners = append(listeners, event.Listener())
			if (event.Source == proc) != (source == proc) {
				t.Errorf("--source %s: source %s", source, event.Source)
			}
		}
		if difference := harness.Difference(listeners, open); difference != "" {
			t.Errorf("--source %s: %s", source, difference)
		}
	}
}
