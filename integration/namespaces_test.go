package integration

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
)

// Containers with a namespace of their own, on the default network, on one of
// the user's, and on none.
func TestOwnNamespaces(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	network := harness.Default.Network(t, "network")
	bridge := start(t, "bridge", 2, nil, "--tcp", "0.0.0.0:80,127.0.0.1:81")
	none := start(t, "none", 2, []string{"--network", "none"}, "--tcp", "0.0.0.0:80,127.0.0.1:81")
	user := start(t, "user", 2, []string{"--network", network}, "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:80")
	open := [][]harness.Listener{listening(t, bridge, 2), listening(t, none, 2), listening(t, user, 2)}
	watch.WaitOpen(t, open...)

	// The engine serves DNS inside the user's network by sockets of its own
	// in the container's namespace: they are the engine's, not the container's.
	sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", user.PID))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(sockets), "0B00007F:") { // 127.0.0.11
		t.Fatalf("the engine has no DNS socket in the container's namespace: %s", sockets)
	}
	watch.Marker(t, user, 1000)
	watch.Expect(t, 0, harness.Match{Address: "127.0.0.11"})
	watch.WaitOpen(t, open...)
}

// Two containers in one namespace are distinguished, and the port that one
// publishes leads to the other too.
func TestSharedNamespace(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	owner := start(t, "owner", 2, []string{"--publish", "80", "--publish", "82"}, "--tcp", "0.0.0.0:80,0.0.0.0:81")
	mate := start(t, "mate", 3, []string{"--network", "container:" + owner.Name},
		"--tcp", "0.0.0.0:82,127.0.0.1:83", "--udp", "0.0.0.0:82")
	owners := listening(t, owner, 2)
	mates := harness.Publish(t, owner, listening(t, mate, 3))
	watch.WaitOpen(t, owners, mates)

	child := mate.Exec(t, "listen", "--tcp", "0.0.0.0:84")
	watch.WaitOpen(t, owners, harness.Publish(t, owner, listening(t, mate, 4)))
	child.Stop(t)
	watch.WaitOpen(t, owners, mates)

	mate.Do(t, "kill")
	watch.WaitOpen(t, owners)
	watch.Marker(t, owner, 1000)
	watch.Expect(t, 4+1, harness.Match{Type: "closed"})
}

// Containers in the host's namespace are distinguished from each other and from the host's
// own processes.
func TestHostNamespace(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	own, err := net.Listen("tcp", "127.0.0.1:0") // the host's
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	port := own.Addr().(*net.TCPAddr).Port

	watch := harness.StartWatch(t, harness.WatchSpec{})
	first := start(t, "first", 2, []string{"--network", "host"}, "--tcp", "127.0.0.1:0,127.0.0.2:0")
	// The same port as the host's, on another address.
	second := start(t, "second", 1, []string{"--network", "host"}, "--tcp", "127.0.0.3:"+itoa(port))
	open := [][]harness.Listener{listening(t, first, 2), listening(t, second, 1)}
	watch.WaitOpen(t, open...)
	watch.Marker(t, first, freePort(t))
	watch.WaitOpen(t, open...)
	watch.Expect(t, 0, harness.Match{Address: "127.0.0.1", Port: port})
	watch.Expect(t, 3+1, harness.Match{Type: "opened"})

	// In a container portwatcher has to find the host's namespace all the same.
	harness.StartWatch(t, harness.WatchSpec{InContainer: true}).WaitOpen(t, open...)
	first.Do(t, "kill")
	watch.WaitOpen(t, open[1])
}

// A wildcard in the host's namespace is reachable from outside without being
// published.
func TestHostExposure(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	container := start(t, "wild", 2, []string{"--network", "host"}, "--tcp", "0.0.0.0:0,127.0.0.1:0")
	open := listening(t, container, 2)
	for i := range open {
		if open[i].Address == "0.0.0.0" {
			open[i].Exposure = "host"
		}
	}
	watch.WaitOpen(t, open)
}

// freePort returns a port of the host's loopback that was free.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
