package integration

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// `ports --at` lists what was open then, and reports when portwatcher was not running.
func TestMemoryPortsAt(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state := t.TempDir() + "/portwatcher.db"
	container := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	long := time.Now()
	first := harness.StartWatch(t, harness.WatchSpec{State: state})
	type moment struct {
		at      time.Time
		open    []harness.Listener
		running bool
	}
	var moments []moment
	note := func(running bool, ports int) {
		moments = append(moments, moment{time.Now(), listening(t, container, ports), running})
	}
	opens := func(watch *harness.Watch, port int) *harness.Exec {
		run := container.Exec(t, "listen", "--mptcp=false", "--tcp", "0.0.0.0:"+itoa(port))
		watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", port))
		return run
	}
	first.WaitOpen(t, listening(t, container, 1))
	note(true, 1)
	one := opens(first, 81)
	note(true, 2)
	opens(first, 82)
	note(true, 3)
	one.Stop(t)
	first.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", 81))
	note(true, 2)
	first.Stop(t, syscall.SIGTERM)
	note(false, 2)
	second := harness.StartWatch(t, harness.WatchSpec{State: state, After: first})
	opens(second, 83)
	note(true, 3)
	harness.WaitJournal(t, state, listening(t, container, 3))

	for i, m := range moments {
		open, messages := harness.PortsAt(t, state, harness.Stamp(m.at))
		if difference := harness.Difference(open, m.open); difference != "" {
			t.Errorf("moment %d: %s", i, difference)
		}
		if away := strings.Contains(messages, "was not running"); away == m.running || m.running && messages != "" {
			t.Errorf("moment %d: portwatcher was running: %v, but it prints %q", i, m.running, messages)
		}
	}
	for at, text := range map[string]string{
		harness.Stamp(long): "the journal does not cover", harness.Stamp(time.Now().Add(time.Hour)): "future",
	} {
		result := harness.Run(t, []string{"PORTWATCHER_STATE=" + state}, "ports", "--at", at)
		if problem := harness.OneLine(result.Stderr, text); problem != "" || result.Status != 1 || result.Stdout != "" {
			t.Errorf("at %s: exit status %d, want 1; %s", at, result.Status, problem)
		}
	}
	// It needs no engine.
	result := harness.Run(t, []string{"PORTWATCHER_STATE=" + state, "DOCKER_HOST=unix:///nonexistent"}, "ports", "--at", "now")
	if result.Status != 0 || !strings.Contains(result.Stdout, container.Name) {
		t.Errorf("without an engine: exit status %d: %s", result.Status, result.Stderr)
	}
}
