package integration

import (
	"encoding/json"
	"sync"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// The sources, as --source forces them.
const (
	ebpf    = "ebpf"
	netlink = "netlink"
	proc    = "proc"
)

// requireEBPF ends the test where there is no eBPF.
var requireEBPF = func() func(t *testing.T) {
	var checked sync.Once
	var missing string
	return func(t *testing.T) {
		t.Helper()
		checked.Do(func() {
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

// reports compares what was reported of a container's short-lived ports with the facts.
// What happened before a [harness.Watch.Marker] has been reported.
func reports(t *testing.T, watch *harness.Watch, container *harness.Container, facts []truth.Fact, precision truth.Precision) {
	t.Helper()
	watch.Marker(t, container, 1000)
	compare(t, watch.Events(harness.Match{Container: container.Name}), container, facts, precision)
}

// compare compares events with what the workload did in a container. Port 1000 is the
// marker's.
func compare(t *testing.T, events []truth.Event, container *harness.Container, facts []truth.Fact, precision truth.Precision) {
	t.Helper()
	c := truth.Case{Container: container.ID, Facts: facts, Precision: precision,
		Ignore: func(at model.Endpoint) bool { return at.Port == 1000 || at.Port == 1001 }}
	for _, problem := range c.Compare(events).Problems {
		t.Errorf("container %s: %s", container.Name, problem)
	}
}

// Twenty ports, each held 50 ms, one each 10 ms.
func TestShortTCP(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "burst")
		reports(t, watch, container, shortPorts(t, container, "tcp", 20000), truth.PrecisionOf(source))
	})
}

// The same with UDP. Among the ports that the kernel gives to clients, a
// destroy notification does not show whether it was bound on purpose.
func TestShortUDP(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "burst")
		reports(t, watch, container, shortPorts(t, container, "udp", 20000), truth.PrecisionOf(source))
		ephemeral := watched(t, watch, "ephemeral")
		precision := truth.PrecisionOf(source)
		if source == netlink {
			precision = truth.Sampled
		}
		reports(t, watch, ephemeral, shortPorts(t, ephemeral, "udp", 40000), precision)
	})
}

func shortPorts(t *testing.T, container *harness.Container, protocol string, base int) []truth.Fact {
	t.Helper()
	facts := container.Facts(t, "burst", "--protocol", protocol, "--count", "20", "--base-port", itoa(base),
		"--hold", "50ms", "--interval", "10ms")
	if len(facts) != 2*20 {
		t.Fatalf("the workload opened and closed %d times, want 20 each", len(facts))
	}
	return facts
}

// A port that the kernel chose, closed at once, as Java's JMX does. With UDP it
// is a client's.
func TestKernelChosenPort(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "jmx")
		var facts []truth.Fact
		for range 3 {
			container.Facts(t, "transient", "--protocol", "udp", "--port", "0")
			facts = append(facts, container.Facts(t, "transient", "--port", "0")...)
		}
		reports(t, watch, container, facts, truth.PrecisionOf(source))
	})
}

// A socket that listens without bind has the port that the kernel chose.
func TestListenWithoutBind(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "unbound")
		for _, mptcp := range []string{"--mptcp=true", "--mptcp=false"} {
			run := container.Exec(t, "listen", "--listen-without-bind", mptcp, "--tcp", "0.0.0.0:0")
			watch.WaitOpen(t, listening(t, container, 1))
			run.Stop(t)
			watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", run.Port()))
		}
		// The same for a moment.
		moment := watched(t, watch, "moment")
		facts := moment.Facts(t, "listen", "--listen-without-bind", "--mptcp=false", "--tcp", "0.0.0.0:0", "--for", "1ns")
		reports(t, watch, moment, facts, truth.PrecisionOf(source))
	})
}

// The first that a container does is to open and close a port, before the engine can have
// announced it.
func TestFirstAct(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		clock := watched(t, watch, "clock")
		precision := truth.Sampled
		if source == ebpf {
			precision = truth.Exact
		}
		// Another port, in an hour, keeps it alive.
		stays := harness.Default.Start(t, harness.Spec{Name: harness.Name(t, "stays"),
			Command: []string{"burst", "--count", "2", "--hold", "1ms", "--interval", "1h"}})
		stays.WaitLogs(t, 1, `"action":"closed"`)
		reports(t, watch, stays, factsOf(t, stays), precision)

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
			compare(t, watch.Events(harness.Match{Container: goes.Name}), goes, factsOf(t, goes), precision)
		}
	})
}

// factsOf reads the facts that a container's first process wrote.
func factsOf(t *testing.T, container *harness.Container) []truth.Fact {
	t.Helper()
	facts, err := truth.ReadFacts(container.Logs(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(facts) == 0 {
		t.Fatalf("container %s has opened and closed nothing", container.Name)
	}
	return facts
}

// What is open now is the same, wherever it is read.
func TestPortsBySource(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	container := start(t, "web", 4, append([]string{"--publish", "80"}, ipv6...),
		"--tcp", "0.0.0.0:80,[::1]:81", "--udp", "0.0.0.0:53,[::]:54")
	open := listening(t, container, 4)
	for _, source := range []string{"auto", ebpf, netlink, proc} {
		result := harness.Run(t, []string{"MONITOR_CONTAINERS=" + container.Name}, "ports", "--format", "json", "--source", source)
		var ports []model.Open
		if err := json.Unmarshal([]byte(result.Stdout), &ports); err != nil || result.Status != 0 {
			t.Fatalf("--source %s: exit status %d, %v: %s%s", source, result.Status, err, result.Stdout, result.Stderr)
		}
		var listeners []harness.Listener
		for _, port := range ports {
			listeners = append(listeners, harness.ListenerOf(&port.Listener))
			if (port.Source == proc) != (source == proc) {
				t.Errorf("--source %s: source %s", source, port.Source)
			}
		}
		if difference := harness.Difference(listeners, open); difference != "" {
			t.Errorf("--source %s: %s", source, difference)
		}
	}
}
