package integration

import (
	"path/filepath"
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
			watch.WaitOpen(t, listening(t, container, 1))
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
	watch := harness.StartWatch(t, harness.WatchSpec{DockerHost: "unix:///nonexistent/docker.sock"})
	watch.WaitLog(t, "/nonexistent/docker.sock")
	if took, status := watch.Stop(t, syscall.SIGTERM); took > time.Second || status != 0 {
		t.Errorf("without an engine: stopped after %v with exit status %d, want 1s and 0", took, status)
	}
}

// The second signal ends portwatcher at once, whatever it waits for: here for a journal
// that another program has locked, for 10 s.
func TestStopTwice(t *testing.T) {
	harness.Require(t)
	container := idle(t, "web")
	state := filepath.Join(t.TempDir(), "portwatcher.db")
	watch := harness.StartWatch(t, harness.WatchSpec{State: state})
	watch.Marker(t, container, 1000)
	harness.LockJournal(t, state)
	watch.Marker(t, container, 1001) // which is not in the journal
	took, status := watch.StopTwice(t, syscall.SIGINT, syscall.SIGTERM)
	// Two signals that are pending at once come in any order.
	if took > 5*time.Second || status != 128+int(syscall.SIGTERM) && status != 128+int(syscall.SIGINT) {
		t.Errorf("ended %v after the second signal with exit status %d, want at once, and 143 or 130", took, status)
	}
}
