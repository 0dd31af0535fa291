package integration

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// mayUnshare are the options of a container that may make network namespaces.
var mayUnshare = []string{"--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined"}

// A container listens in its own namespace, and on the same port in one that it has made.
func TestInnerNamespace(t *testing.T) {
	eachSource(t, func(t *testing.T, source string) {
		state := t.TempDir() + "/portwatcher.db"
		run := func(after *harness.Watch) *harness.Watch {
			return harness.StartWatch(t, harness.WatchSpec{State: state, After: after, Arguments: []string{"--source", source}})
		}
		watch := run(nil)
		container := watched(t, watch, "maker", mayUnshare...)
		outer := container.Exec(t, "listen", "--tcp", "0.0.0.0:80")
		at := harness.Opened(container.Name, "tcp", "0.0.0.0", 80)
		first := watch.WaitEvent(t, 0, at)
		inner := container.Exec(t, "own-namespace", "listen", "--tcp", "0.0.0.0:80")
		second := watch.WaitEvent(t, first.ID, at)
		heldBy(t, second.Processes, 0)
		if first.Namespace != "" || !strings.HasPrefix(second.Namespace, "net:[") || second.Exposure != model.Loopback || first.Exposure == model.Loopback {
			t.Errorf("want the second in a namespace with loopback alone, the first in the container's own:\n%s\n%s", first.Line, second.Line)
		}
		sameNamespaces(t, openPortsOf(t, container, source), "", second.Namespace)

		if _, status := watch.Stop(t, syscall.SIGTERM); status != 0 {
			t.Fatalf("exit status %d", status)
		}
		watch = run(watch)
		watch.Marker(t, container, 1000)
		watch.Expect(t, 0, harness.Match{Container: container.Name, Port: 80})

		closing := harness.Closed(container.Name, "tcp", "0.0.0.0", 80)
		outer.Stop(t)
		closed := watch.WaitEvent(t, 0, closing)
		inner.Stop(t)
		last := watch.WaitEvent(t, closed.ID, closing)
		if closed.Namespace != "" || last.Namespace != second.Namespace {
			t.Errorf("want the container's own closed first:\n%s\n%s", closed.Line, last.Line)
		}
		noLoss(t, watch)
	})
}

func sameNamespaces(t *testing.T, open []model.Open, want ...string) {
	t.Helper()
	var got []string
	for i := range open {
		got = append(got, open[i].Namespace)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("open in %q, want %q", got, want)
	}
}

// noLoss fails the test where a gap reports more than that portwatcher did not run.
func noLoss(t *testing.T, watch *harness.Watch) {
	t.Helper()
	for _, gap := range watch.Events(harness.Match{Type: model.Gap}) {
		if !strings.Contains(gap.Reason, "portwatcher was not running") {
			t.Errorf("a gap: %s", gap.Line)
		}
	}
}

// A namespace with an interface can be reached through it.
func TestInnerNamespaceWithInterface(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "maker", mayUnshare...)
		container.Exec(t, "own-namespace", "listen", "--tcp", "0.0.0.0:80")
		opened := watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 80))
		heldBy(t, opened.Processes, 0)
		link := exec.Command("ip", "link", "add", "name", "pwinner0", "netns", itoa(opened.Processes[0].PID), "type", "veth", "peer", "name", "pwinner1", "netns", itoa(container.PID))
		if output, err := link.CombinedOutput(); err != nil {
			harness.Unavailable(t, "needs ip and veth: "+string(output)+err.Error())
		}
		ports := openPortsOf(t, container, source)
		if len(ports) != 1 || ports[0].Exposure != model.Network || ports[0].Namespace != opened.Namespace {
			t.Errorf("ports %+v, want one that the network reaches, in %s", ports, opened.Namespace)
		}
	})
}

// Ports that open and close all the time in namespaces that live for a moment are the
// container's by eBPF, and blame no container by any source.
func TestInnerNamespaceOfAMoment(t *testing.T) {
	watchEachSource(t, func(t *testing.T, source string, watch *harness.Watch) {
		container := watched(t, watch, "maker", mayUnshare...)
		var facts []truth.Fact
		for range 3 {
			facts = append(facts, container.Facts(t, "own-namespace", "burst", "--count", "20", "--base-port", "20000", "--hold", "5ms", "--interval", "5ms")...)
		}
		if source == ebpf {
			for _, f := range facts {
				match := harness.Match{Type: model.Type(f.Action), Container: container.Name, Protocol: "tcp", Port: int(f.Port)}
				harness.Eventually(t, "all three are reported", func() string {
					if n := len(watch.Events(match)); n < 3 {
						return itoa(n) + " of three events " + string(match.Type) + " of port " + itoa(match.Port)
					}
					return ""
				})
			}
		}
		watch.Marker(t, container, 1000)
		noLoss(t, watch)
		for _, e := range watch.Events(harness.Match{Container: container.Name, Protocol: "tcp", Address: "127.0.0.1"}) {
			if e.Port >= 20000 && e.Namespace == "" {
				t.Errorf("want a namespace: %s", e.Line)
			}
		}
	})
}

// A storm in an inner namespace is accounted for by eBPF, from its first opening on.
func TestInnerNamespaceInStorm(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	watch := harness.StartWatch(t, harness.WatchSpec{Arguments: []string{"--source", ebpf}})
	container := watched(t, watch, "maker", mayUnshare...)
	const count = 30000
	container.Facts(t, "own-namespace", "storm", "--count", itoa(count))
	harness.Eventually(t, "all is accounted for", func() string {
		var opened, closed uint64
		for _, e := range watch.Events(harness.Match{Container: container.Name}) {
			switch {
			case e.Port == 1000:
			case e.Type == model.Opened:
				opened++
			case e.Type == model.Closed:
				closed++
			case e.Type == model.Bursts:
				opened, closed = opened+e.Burst.Opened, closed+e.Burst.Closed
			}
		}
		if opened != count || closed != count {
			return itoa(int(opened)) + " opened, " + itoa(int(closed)) + " closed"
		}
		return ""
	})
	noLoss(t, watch)
}

// With the rights that a user gives it, portwatcher finds the same: the processes are
// another user's.
func TestInnerNamespaceWithRights(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{InContainer: true, Arguments: []string{"--source", netlink}})
	container := watched(t, watch, "maker", mayUnshare...)
	container.Exec(t, "own-namespace", "listen", "--tcp", "0.0.0.0:80", "--uid", "1234", "--handover")
	inner := watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 80))
	if inner.Namespace == "" || len(inner.Processes) != 1 || inner.Processes[0].Executable != truth.WorkloadPath {
		t.Errorf("want the namespace and the process: %s", inner.Line)
	}
	container.Exec(t, "listen", "--tcp", "0.0.0.0:81", "--exit-main-thread")
	mainless := watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 81))
	heldBy(t, mainless.Processes, 0)
}
