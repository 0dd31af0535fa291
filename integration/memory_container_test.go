package integration

import (
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
)

// With no place that it can write to, portwatcher keeps the journal in memory,
// logs that once, and is ready.
func TestMemoryReadOnly(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	container := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	watch := harness.StartWatch(t, harness.WatchSpec{InContainer: true})
	watch.WaitOpen(t, listening(t, container, 1))
	watch.WaitLog(t, "level=warning", "journal is kept in memory", "--state")
	harness.Eventually(t, "it is ready", func() string {
		if _, err := harness.Default.Docker("exec", harness.SelfName(t), "/portwatcher", "healthcheck"); err != nil {
			return err.Error()
		}
		return ""
	})
	watch.Marker(t, container, 1000)
	if count := watch.Logs("kept in memory"); count != 1 {
		t.Errorf("logged %d times, want once", count)
	}
	watch.Expect(t, 0, harness.Match{Type: "gap"})
	// Another process cannot read it.
	_, err := harness.Default.Docker("exec", harness.SelfName(t), "/portwatcher", "events")
	if err == nil || !strings.Contains(err.Error(), "there is no journal") {
		t.Errorf("events: %v", err)
	}
}

// With the volume of the Compose file, the journal outlives portwatcher's own
// container: one that is made anew goes on where the old one ended.
func TestMemoryVolume(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	volume := harness.Default.Volume(t, "state")
	spec := harness.WatchSpec{InContainer: true, Options: []string{"--volume=" + volume + ":/var/lib/portwatcher"}}
	container := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	closes := container.Exec(t, "listen", "--tcp", "0.0.0.0:90")
	first := harness.StartWatch(t, spec)
	first.WaitOpen(t, listening(t, container, 2))
	if _, status := first.Stop(t, syscall.SIGTERM); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	closes.Stop(t)
	container.Exec(t, "listen", "--tcp", "0.0.0.0:91")

	spec.After = first
	second := harness.StartWatch(t, spec)
	second.WaitOpen(t, listening(t, container, 2))
	second.Marker(t, container, 1000)
	reportsAway(t, second, false)
	second.Expect(t, 0, harness.Match{Port: 80})
	for _, changed := range []harness.Match{
		harness.Closed(container.Name, "tcp", "0.0.0.0", 90), harness.Opened(container.Name, "tcp", "0.0.0.0", 91),
	} {
		if event := second.WaitEvent(t, 0, changed); event.Source != "restart" {
			t.Errorf("want the source restart: %s", event.Line)
		}
	}
	second.Expect(t, 1+1, harness.Match{Type: "opened"})
	second.Expect(t, 1+1, harness.Match{Type: "closed"})
	want := append(first.Lines(), second.Lines()...)
	harness.Eventually(t, "the journal has what both have printed", func() string {
		recorded, err := harness.Default.Docker("exec", harness.SelfName(t), "/portwatcher", "events", "--format", "json")
		if err != nil || recorded != strings.Join(want, "\n") {
			return recorded
		}
		return ""
	})
}
