package integration

import (
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
)

// ipv6 switches IPv6 on in a container's namespace, where the default network
// leaves it off.
var ipv6 = []string{"--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--sysctl", "net.ipv6.conf.default.disable_ipv6=0"}

// Every kind of address, each endpoint once, also at the ends of the range.
func TestAddresses(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	endpoints := "0.0.0.0:1,0.0.0.0:65535,127.0.0.1:80,127.0.0.2:80,[::]:81,[::1]:82,[::ffff:127.0.0.1]:84"
	all := start(t, "all", 14, ipv6, "--tcp", endpoints, "--udp", endpoints, "--mptcp=false")
	// One port, one socket for each family.
	split := start(t, "split", 4, ipv6, "--v6only", "--tcp", "[::]:90,0.0.0.0:90", "--udp", "[::]:90,0.0.0.0:90")
	open := [][]harness.Listener{listening(t, all, 14), listening(t, split, 4)}
	watch.WaitOpen(t, open...)
	watch.Marker(t, all, 1000)
	watch.Expect(t, 18+1, harness.Match{Type: "opened"})
	watch.Expect(t, 18+1+1, harness.Match{})
	harness.StartWatch(t, harness.WatchSpec{InContainer: true}).WaitOpen(t, open...)
}

// What a Go server opens is two sockets to the kernel (MPTCP) and one port to
// everybody else.
func TestGoServer(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	server := harness.Default.Start(t, harness.Spec{
		Name: harness.Name(t, "http"), Options: []string{"--publish", "8080"}, Command: []string{"http"},
	})
	server.WaitLogs(t, 1, `"action":"opened"`)
	open := listening(t, server, 1)
	watch.WaitOpen(t, open)
	watch.Marker(t, server, 1000)
	watch.Expect(t, 1, harness.Match{Port: 8080})
	server.Do(t, "stop")
	watch.WaitEvent(t, 0, harness.Closed(server.Name, "tcp", open[0].Address, 8080))
	watch.Expect(t, 2, harness.Match{Port: 8080})
}

// A port that the kernel chose is a port with TCP, and a client with UDP.
func TestUDPClients(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	servers := harness.StartWatch(t, harness.WatchSpec{})
	all := harness.StartWatch(t, harness.WatchSpec{Arguments: []string{"--udp-clients"}})
	bound := start(t, "bound", 3, nil, "--tcp", "0.0.0.0:0", "--udp", "0.0.0.0:0,0.0.0.0:5353")
	sender := harness.Default.Start(t, harness.Spec{
		Name: harness.Name(t, "sender"), Command: []string{"udp-client", "--count", "1", "--hold", "10m"},
	})
	harness.Eventually(t, "the client has sent", func() string {
		if len(harness.Listening(t, sender)) == 0 {
			return "no socket yet"
		}
		return ""
	})
	open := listening(t, bound, 3)
	all.WaitOpen(t, open, listening(t, sender, 1))

	var notClients []harness.Listener
	for _, listener := range open {
		if listener.Protocol == "tcp" || listener.Port == 5353 {
			notClients = append(notClients, listener)
		}
	}
	servers.WaitOpen(t, notClients)
	for _, container := range []*harness.Container{bound, sender} {
		servers.Marker(t, container, 1000)
	}
	servers.WaitOpen(t, notClients)
	servers.Expect(t, 2+2, harness.Match{Type: "opened"})
}

// Children that inherit a socket hold it too, and keep it open when the
// parent closes it; one of another user is no exception.
func TestInheritedSockets(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	early := harness.StartWatch(t, harness.WatchSpec{})
	shared := start(t, "shared", 2, nil, "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:80", "--children", "3", "--uid", "1234")
	given := start(t, "given", 1, nil, "--tcp", "0.0.0.0:81", "--children", "2", "--handover")
	other := start(t, "other", 1, []string{"--user", "4321:4321"}, "--tcp", "0.0.0.0:8080")
	shared.WaitLogs(t, 6, `"action":"held"`)
	given.WaitLogs(t, 2, `"action":"held"`)
	harness.Eventually(t, "the parent closes its copy", func() string {
		lines := harness.Lines(harness.Listening(t, given))
		if len(lines) != 1 || strings.Contains(lines[0], " container_pid 1 ") {
			return strings.Join(lines, "\n")
		}
		return ""
	})
	open := [][]harness.Listener{listening(t, shared, 2), listening(t, given, 1), listening(t, other, 1)}
	for _, listener := range open[0] {
		if len(listener.Processes) != 4 {
			t.Fatalf("want the parent and 3 children: %s", listener)
		}
	}
	harness.StartWatch(t, harness.WatchSpec{}).WaitOpen(t, open...)
	harness.StartWatch(t, harness.WatchSpec{InContainer: true}).WaitOpen(t, open...)
	early.Marker(t, given, 1000)
	early.Expect(t, 4+1, harness.Match{Type: "opened"})
	early.Expect(t, 1, harness.Match{Type: "closed"})
}
