package integration

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/truth"
)

// burstSize and burstFlags: ports that open one after another for about six
// seconds, each for a second, which is ten scan intervals.
const burstSize = 60

var burstFlags = []string{"burst", "--count", fmt.Sprint(burstSize), "--base-port", "20000", "--interval", "100ms", "--hold", "1s"}

// The engine crashes and comes back while its containers live on: no port that
// opens or closes meanwhile is missed, and none is reported twice.
func TestEngineRestartContainersLive(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	engine := harness.StartPrivateEngine(t, true)
	watch := harness.StartWatch(t, harness.WatchSpec{DockerHost: engine.Host})
	netlink := harness.StartWatch(t, harness.WatchSpec{DockerHost: engine.Host, Arguments: []string{"--source", "netlink"}})
	stays := engineContainer(t, engine, "stays", "listen", "--tcp", "0.0.0.0:80")
	watch.WaitOpen(t, harness.Listening(t, stays))
	busy := engineContainer(t, engine, "busy", burstFlags...)
	watch.WaitEvent(t, 0, harness.Opened(busy.Name, "tcp", "0.0.0.0", 20010))
	engine.Kill(t)
	// Opened and seen while there is no engine.
	watch.WaitEvent(t, 0, harness.Opened(busy.Name, "tcp", "0.0.0.0", 20030))
	engine.Launch(t)
	// Docker's log may lack a line of the moment in which the engine was killed, but not the
	// last ones.
	busy.WaitLogs(t, 2, fmt.Sprintf(`"port":%d`, 20000+burstSize-1))
	for port := 20000; port < 20000+burstSize; port++ {
		watch.WaitEvent(t, 0, harness.Opened(busy.Name, "tcp", "0.0.0.0", port))
		watch.WaitEvent(t, 0, harness.Closed(busy.Name, "tcp", "0.0.0.0", port))
	}
	// Containers that start afterwards are reported, and nothing more of those that were
	// there.
	later := engineContainer(t, engine, "later", "listen", "--tcp", "0.0.0.0:81")
	watch.WaitOpen(t, harness.Listening(t, stays), harness.Listening(t, later))
	watch.Marker(t, stays, 1000)
	watch.Expect(t, burstSize+2+1, harness.Match{Type: "opened"})
	watch.Expect(t, burstSize+1, harness.Match{Type: "closed"})
	// Without eBPF nothing shows containers that lived while there was no engine.
	netlink.WaitEvent(t, 0, harness.Match{Type: "gap"})
}

// The engine crashes and ends its containers when it comes back: their ports
// close once, and those of the containers that it starts again open once.
func TestEngineRestartContainersEnd(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	engine := harness.StartPrivateEngine(t, false)
	watch := harness.StartWatch(t, harness.WatchSpec{DockerHost: engine.Host})
	again := harness.Spec{
		Name: harness.Name(t, "again"), Options: []string{"--network", "none", "--restart", "always"},
		Command: []string{"listen", "--tcp", "0.0.0.0:80"},
	}
	returns := engine.Start(t, again)
	ends := engineContainer(t, engine, "ends", "listen", "--tcp", "0.0.0.0:81")
	watch.WaitOpen(t, harness.Listening(t, returns), harness.Listening(t, ends))
	busy := engineContainer(t, engine, "busy", burstFlags...)
	watch.WaitEvent(t, 0, harness.Opened(busy.Name, "tcp", "0.0.0.0", 20010))
	engine.Kill(t)
	watch.WaitEvent(t, 0, harness.Opened(busy.Name, "tcp", "0.0.0.0", 20020))
	engine.Launch(t)

	watch.WaitEvent(t, 0, harness.Closed(ends.Name, "tcp", "0.0.0.0", 81))
	closed := watch.WaitEvent(t, 0, harness.Closed(returns.Name, "tcp", "0.0.0.0", 80))
	watch.WaitEvent(t, closed.ID, harness.Opened(returns.Name, "tcp", "0.0.0.0", 80))
	returns.Refresh(t)
	watch.WaitOpen(t, harness.Listening(t, returns))
	watch.Marker(t, returns, 1000)
	watch.WaitOpen(t, harness.Listening(t, returns))
	watch.Expect(t, 2+1, harness.Match{Container: returns.Name, Type: "opened"})
	watch.Expect(t, 1+1, harness.Match{Container: returns.Name, Type: "closed"})
	watch.Expect(t, 2, harness.Match{Container: ends.Name})
	// Each port of the burst that opened closed, and all that lasted were
	// reported.
	opened := watch.Events(harness.Match{Container: busy.Name, Type: "opened"})
	watch.Expect(t, len(opened), harness.Match{Container: busy.Name, Type: "closed"})
	for _, port := range longHeld(t, busy) {
		watch.Expect(t, 1, harness.Opened(busy.Name, "tcp", "0.0.0.0", port))
	}
}

// portwatcher that starts without an engine finds it when it comes.
func TestEngineComesLater(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	engine := harness.StartPrivateEngine(t, true)
	web := engineContainer(t, engine, "web", "listen", "--tcp", "0.0.0.0:80")
	engine.Kill(t)
	watch := harness.StartWatch(t, harness.WatchSpec{DockerHost: engine.Host})
	watch.WaitLog(t, strings.TrimPrefix(engine.Host, "unix://"))
	engine.Launch(t)
	watch.WaitOpen(t, harness.Listening(t, web))
	watch.Expect(t, 1, harness.Match{})
}

// A container whose process is gone, and that the engine lists all the same, does not show
// that the pid namespace is another: portwatcher waits for what comes next.
func TestDyingContainer(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	engine := harness.StartPrivateEngine(t, true)
	dying := engineContainer(t, engine, "dying", "listen", "--tcp", "0.0.0.0:80")
	// The engine learns of the end from the container's parent process, which
	// cannot report it while it is stopped.
	parent := dying.ParentPID(t)
	if err := syscall.Kill(parent, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := sync.OnceFunc(func() { _ = syscall.Kill(parent, syscall.SIGCONT) })
	t.Cleanup(goOn)
	if err := syscall.Kill(dying.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	result := harness.Run(t, []string{"DOCKER_HOST=" + engine.Host}, "ports", "--format", "json")
	if result.Status != 0 || strings.TrimSpace(result.Stdout) != "[]" {
		t.Errorf("ports: exit status %d, want 0 and no port: %s%s", result.Status, result.Stdout, result.Stderr)
	}
	watch := harness.StartWatch(t, harness.WatchSpec{DockerHost: engine.Host})
	later := engineContainer(t, engine, "later", "listen", "--tcp", "0.0.0.0:81")
	watch.WaitOpen(t, harness.Listening(t, later))
	goOn()
	watch.Marker(t, later, 1000)
	watch.Expect(t, 0, harness.Match{Container: dying.Name})
}

func engineContainer(t *testing.T, engine *harness.PrivateEngine, name string, command ...string) *harness.Container {
	t.Helper()
	container := engine.Start(t, harness.Spec{
		Name: harness.Name(t, name), Options: []string{"--network", "none"}, Command: command,
	})
	container.WaitLogs(t, 1, `"action":"opened"`)
	return container
}

// longHeld are the ports that a container of the workload has held for several scan
// intervals.
func longHeld(t *testing.T, container *harness.Container) []int {
	t.Helper()
	since := make(map[uint16]time.Time)
	var ports []int
	for _, fact := range factsOf(t, container) {
		switch {
		case fact.Action == truth.Opened:
			since[fact.Port] = fact.Time
		case fact.Action == truth.Closed && fact.Time.Sub(since[fact.Port]) >= 5*harness.ScanInterval:
			ports = append(ports, int(fact.Port))
		}
	}
	if len(ports) == 0 {
		t.Fatalf("container %s has held no port so long: %s", container.Name, container.Logs(t))
	}
	return ports
}
