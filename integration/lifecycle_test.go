package integration

import (
	"fmt"
	"testing"

	"portwatcher/integration/internal/harness"
)

// However a container ends, its ports close, once.
func TestContainerEnds(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	for name, end := range map[string]func(*harness.Container){
		"stop":   func(c *harness.Container) { c.Do(t, "stop") },
		"kill":   func(c *harness.Container) { c.Do(t, "kill") },
		"remove": func(c *harness.Container) { c.Do(t, "rm", "--force") },
	} {
		container := start(t, name, 2, nil, "--tcp", "0.0.0.0:80", "--udp", "127.0.0.1:81")
		watch.WaitOpen(t, listening(t, container, 2))
		end(container)
		closed := watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", 80))
		watch.WaitEvent(t, 0, harness.Closed(container.Name, "udp", "127.0.0.1", 81))
		watch.WaitOpen(t)
		if len(closed.Processes) != 1 || closed.Processes[0].PID != container.PID {
			t.Errorf("closed without its last known process %d: %s", container.PID, closed.Line)
		}
		if span := closed.Time.Sub(closed.OpenedAt).Seconds(); *closed.OpenSeconds < 0 || *closed.OpenSeconds > span+1 {
			t.Errorf("open_seconds is not the time since opened_at: %s", closed.Line)
		}
		watch.Expect(t, 4, harness.Match{Container: container.Name})
	}
}

// A container that starts again has new processes and a new namespace.
func TestRestart(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	container := start(t, "web", 1, []string{"--publish", "80"}, "--tcp", "0.0.0.0:80")
	watch.WaitOpen(t, listening(t, container, 1))
	before := container.PID
	for restart := range 3 {
		container.Do(t, "restart", "--time", "1")
		container.Refresh(t)
		container.WaitLogs(t, restart+2, `"action":"opened"`)
		watch.WaitOpen(t, listening(t, container, 1))
	}
	if container.PID == before {
		t.Fatal("the container's first process is the same after a restart")
	}
	watch.Expect(t, 4, harness.Match{Type: "opened"})
	watch.Expect(t, 3, harness.Match{Type: "closed"})
}

// Events after a rename have the new name; the rename itself is none.
func TestRename(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	container := start(t, "before", 1, nil, "--tcp", "0.0.0.0:80")
	watch.WaitOpen(t, listening(t, container, 1))
	harness.Default.MustDocker(t, "rename", container.Name, harness.Name(t, "after"))
	container.Refresh(t)
	watch.Marker(t, container, 1000)
	container.Do(t, "kill")
	watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", 80))
	watch.Expect(t, 4, harness.Match{})
	container.Do(t, "rm")
}

// Compose starts a container under a temporary name. The journal has all of its history under
// the name that it gets, also while nothing has happened under that.
func TestRenamedHistory(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state := t.TempDir() + "/portwatcher.db"
	temporary := start(t, "249662c60a09_web", 1, nil, "--tcp", "0.0.0.0:80")
	recording := harness.StartRecordingIn(t, state, harness.Pattern(t))
	harness.WaitJournal(t, state, listening(t, temporary, 1))
	name := harness.Name(t, "web-1")
	harness.Default.MustDocker(t, "rename", temporary.Name, name)
	harness.Eventually(t, "the opening is found by the new name", func() string {
		if lines := harness.JournalLines(t, state, "--container", name); len(lines) != 1 {
			return fmt.Sprintf("%d events", len(lines))
		}
		return ""
	})
	temporary.Do(t, "kill")
	harness.Eventually(t, "the closing is found by each name", func() string {
		for _, one := range []string{name, temporary.Name} {
			if lines := harness.JournalLines(t, state, "--container", one); len(lines) != 2 {
				return fmt.Sprintf("%s: %d events", one, len(lines))
			}
		}
		return ""
	})
	recording.Stop(t)
}

// A paused container keeps its ports.
func TestPause(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	paused := start(t, "paused", 1, nil, "--tcp", "0.0.0.0:80")
	clock := idle(t, "clock")
	watch.WaitOpen(t, listening(t, paused, 1))
	paused.Do(t, "pause")
	for range 3 {
		watch.Marker(t, clock, 1000)
	}
	watch.Expect(t, 1, harness.Match{Container: paused.Name})
	harness.StartWatch(t, harness.WatchSpec{Monitor: paused.Name}).WaitOpen(t, listening(t, paused, 1))
	paused.Do(t, "unpause")
	watch.Marker(t, paused, 1000)
	watch.Expect(t, 1+2, harness.Match{Container: paused.Name})
}

// A process that docker exec starts is a process of the container.
func TestExec(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	container := start(t, "web", 1, []string{"--publish", "82"}, "--tcp", "0.0.0.0:80")
	first := listening(t, container, 1)
	second := container.Exec(t, "listen", "--tcp", "127.0.0.1:81,0.0.0.0:82", "--udp", "0.0.0.0:81")
	second.WaitFacts(t, 2, "opened")
	watch.WaitOpen(t, listening(t, container, 4))
	second.Stop(t)
	watch.WaitOpen(t, first)
	watch.Expect(t, 4+3, harness.Match{})
}

// A port that is back within the close grace was never closed: with the same process nothing
// happened, with another it has changed.
func TestCloseGrace(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{Arguments: []string{"--close-grace", "8s"}})
	container := idle(t, "web")
	first := container.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	opened := watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 80))
	first.Stop(t)
	second := container.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	changed := watch.WaitEvent(t, opened.ID, harness.Match{Type: "changed", Container: container.Name, Port: 80})
	open := listening(t, container, 1)
	if difference := harness.Difference([]harness.Listener{harness.ListenerOf(&changed.Listener)}, open); difference != "" {
		t.Errorf("the change does not name the new process: %s", difference)
	}
	// One process, the same port three times.
	container.Exec(t, "burst", "--same-port", "--base-port", "81", "--count", "3", "--hold", "1s", "--interval", "1s").Wait(t)
	second.Stop(t)
	for _, port := range []int{80, 81} {
		watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", port))
		watch.Expect(t, 1, harness.Opened(container.Name, "tcp", "0.0.0.0", port))
	}
	watch.Expect(t, 5, harness.Match{})
}
