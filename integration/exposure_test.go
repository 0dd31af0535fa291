package integration

import (
	"testing"

	"portwatcher/integration/internal/harness"
)

// Who can reach a port follows from the address and what is published.
func TestExposure(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	container := idle(t, "web", "--publish", "80", "--publish", "127.0.0.1::81",
		"--publish", "82", "--publish", "82/udp", "--publish", "83")
	address := harness.Default.MustDocker(t, "container", "inspect",
		"--format", "{{.NetworkSettings.IPAddress}}", container.ID)
	container.Exec(t, "listen",
		"--tcp", "0.0.0.0:80", // published on every address of the host
		"--tcp", "0.0.0.0:81", // published on the host's loopback
		"--tcp", address+":82", // published, bound to the container's own address
		"--tcp", "127.0.0.1:83", // published, but only to be reached from inside
		"--tcp", "0.0.0.0:84,127.0.0.1:85", // not published
		"--udp", "0.0.0.0:82", // published
		"--udp", "0.0.0.0:80", // published for TCP only
	).WaitFacts(t, 7, "opened")
	open := listening(t, container, 8)
	want := map[string]string{
		"tcp 80": "published", "tcp 81": "published", "tcp 82": "published", "tcp 83": "loopback",
		"tcp 84": "network", "tcp 85": "loopback", "udp 82": "published", "udp 80": "network",
	}
	for _, listener := range open { // a check of the kernel's side
		if key := listener.Protocol + " " + itoa(listener.Port); listener.Exposure != want[key] {
			t.Fatalf("%s: want %s", listener, want[key])
		}
	}
	watch.WaitOpen(t, open)

	// A published port that leads nowhere is logged once, whatever opens later.
	watch.WaitLog(t, container.Name, "Port 83/tcp")
	again := container.Exec(t, "listen", "--tcp", "127.0.0.2:83")
	watch.WaitOpen(t, listening(t, container, 9))
	again.Stop(t)
	watch.Marker(t, container, 1000)
	if count := watch.Logs(container.Name, "Port 83/tcp"); count != 1 {
		t.Errorf("%d log lines about the published port 83, want 1", count)
	}
}
