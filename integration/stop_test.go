package integration

import (
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// TestStop holds the design's promise, a stop within a second, and so does
// not run beside other tests.
func TestStop(t *testing.T) {
	harness.Require(t)
	container := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	for name, test := range map[string]struct {
		signal      syscall.Signal
		inContainer bool
	}{
		"SIGTERM":                 {syscall.SIGTERM, false},
		"SIGINT":                  {syscall.SIGINT, false},
		"SIGTERM, in a container": {syscall.SIGTERM, true},
	} {
		t.Run(name, func(t *testing.T) {
			watch := harness.StartWatch(t, harness.WatchSpec{Monitor: container.Name, InContainer: test.inContainer})
			watch.WaitOpen(t, truth(t, container, 1))
			took, status := watch.Stop(t, test.signal)
			allowed := time.Second
			if test.inContainer {
				allowed += time.Second // the engine's own time to end and remove a container
			}
			if took > allowed || status != 0 {
				t.Errorf("stopped after %v with exit status %d, want %v and 0", took, status, allowed)
			}
		})
	}
	// It stops as fast while it waits for an engine.
	watch := harness.StartWatch(t, harness.WatchSpec{Engine: &harness.Engine{Host: "unix:///nonexistent/docker.sock"}})
	watch.WaitLog(t, "/nonexistent/docker.sock")
	if took, status := watch.Stop(t, syscall.SIGTERM); took > time.Second || status != 0 {
		t.Errorf("without an engine: stopped after %v with exit status %d, want 1s and 0", took, status)
	}
}
