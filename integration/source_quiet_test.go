package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/truth"
)

// One of a group of sockets on one port leaves: that is no event.
func TestGroupLeaves(t *testing.T) {
	watchEachSource(t, func(t *testing.T, _ string, watch *harness.Watch) {
		container := watched(t, watch, "group")
		group := container.Exec(t, "listen", "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:81",
			"--reuseport", "8", "--leave-after", "1500ms")
		group.WaitFacts(t, 2*8-1, "opened") // the first of them started it
		open := listening(t, container, 2)
		watch.WaitOpen(t, open)
		group.WaitFacts(t, 2, "closed")
		watch.WaitOpen(t, open)
		watch.Marker(t, container, 1000)
		watch.Expect(t, 1, harness.Match{Port: 80})
		watch.Expect(t, 1, harness.Match{Port: 81})
		group.Stop(t)
		watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", 80))
		watch.WaitEvent(t, 0, harness.Closed(container.Name, "udp", "0.0.0.0", 81))
		watch.Marker(t, container, 1000)
		watch.Expect(t, 2, harness.Match{Port: 80})
		watch.Expect(t, 2, harness.Match{Port: 81})
	})
}

// A port that another process opens again within the close grace has changed
// its owner, and nothing else happened.
func TestReopenedWithinGrace(t *testing.T) {
	watchEachSource(t, func(t *testing.T, _ string, watch *harness.Watch) {
		container := idle(t, "web")
		endpoints := []string{"listen", "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:81"}
		first := container.Exec(t, endpoints...)
		first.WaitFacts(t, 1, "opened")
		watch.WaitOpen(t, listening(t, container, 2))
		first.Stop(t)
		second := container.Exec(t, endpoints...)
		second.WaitFacts(t, 1, "opened")
		open := listening(t, container, 2)
		watch.WaitOpen(t, open)
		// After another scan nothing more is reported of it.
		container.Exec(t, "listen", "--tcp", "0.0.0.0:82")
		watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 82))
		for _, listener := range open {
			match := harness.Match{Protocol: listener.Protocol, Port: listener.Port}
			watch.Expect(t, 2, match)
			match.Type = "changed"
			watch.Expect(t, 1, match)
		}
	}, "--close-grace", "1m")
}

// What resembles a port and is none: refused connects, UDP clients, and the
// connections of a busy server. Ports that open and close beside them are seen.
func TestNoFalseEvents(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "busy")
		var mutex sync.Mutex
		var facts []truth.Fact
		var running sync.WaitGroup
		for _, workload := range []struct {
			least     int // operations; it runs until it has made them
			arguments []string
		}{
			{30_000, []string{"accept-loop", "--rate", "10000", "--for", "3s"}},
			{20000, []string{"connect-refused", "--count", "20000"}},
			{1500, []string{"udp-client", "--count", "1500", "--interval", "1ms"}},
			{5000, []string{"udp-client", "--count", "5000"}},
			{0, []string{"burst", "--count", "60", "--base-port", "20000", "--hold", "20ms", "--interval", "30ms"}},
			{0, []string{"burst", "--count", "60", "--base-port", "20000", "--hold", "20ms", "--interval", "30ms", "--protocol", "udp"}},
		} {
			running.Go(func() {
				arguments := workload.arguments
				for run, done := 0, -1; done < workload.least; run++ {
					if arguments[0] == "accept-loop" { // each at a port of its own
						arguments = append(slices.Clone(workload.arguments), "--port", itoa(19000+run))
					}
					its, err := container.RunFacts(arguments...)
					more := 0
					for _, fact := range its {
						more += int(fact.Count)
					}
					if err != nil || more == 0 && workload.least > 0 {
						t.Errorf("%v: %d operations, error %v", arguments, more, err)
						return
					}
					done = max(done, 0) + more
					mutex.Lock()
					facts = append(facts, its...)
					mutex.Unlock()
				}
			})
		}
		running.Wait()
		if ports := len(truth.Changes(facts)) / 2; ports < 1+60+60 { // more where the server ran again
			t.Fatalf("the workload opened and closed %d ports, want %d", ports, 1+60+60)
		}
		precision := truth.PrecisionOf(source)
		gaps := watch.Events(harness.Match{Type: "gap"})
		if source == netlink && len(gaps) > 0 && strings.Contains(gaps[0].Reason, "connections a second") {
			// So many connections make notifications too dear: scans take their place.
			precision, gaps = truth.Sampled, gaps[1:]
		}
		reports(t, watch, container, facts, precision)
		for _, gap := range gaps {
			t.Errorf("a gap where nothing was missed: %s", gap.Line)
		}
	})
}

// The engine's own resolver listens in the namespace of each container that is
// on a network of the user's. It is no port of the container, from its first
// moment on, and when it goes.
func TestEmbeddedDNS(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		network := harness.Default.Network(t, "net")
		var open [][]harness.Listener
		for i := range 2 {
			container := start(t, fmt.Sprint("web", i), 1, []string{"--network", network}, "--tcp", "0.0.0.0:80")
			if !resolves(t, container) {
				t.Fatalf("nothing listens on 127.0.0.11 in %s", container.Name)
			}
			open = append(open, listening(t, container, 1))
			watch.WaitOpen(t, open...)
			watch.Marker(t, container, 1000)
			if i == 0 {
				container.Do(t, "restart", "--time", "1")
				container.Refresh(t)
				container.WaitLogs(t, 2, `"action":"opened"`)
				open[0] = listening(t, container, 1)
				watch.WaitOpen(t, open...)
				watch.Marker(t, container, 1000)
			} else {
				container.Do(t, "kill")
				watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", 80))
			}
		}
		watch.Expect(t, 0, harness.Match{Address: "127.0.0.11"})
		watch.Expect(t, 0, harness.Match{Protocol: "udp"})
		watch.Expect(t, 3+3, harness.Match{Type: "opened"})
	})
}

// resolves reports whether the engine's resolver listens in a container's namespace.
func resolves(t *testing.T, container *harness.Container) bool {
	t.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", container.PID))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(table), " 0B00007F:")
}
