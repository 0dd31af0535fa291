package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
)

// refused runs `portwatcher run` on a journal that it must not use, and fails
// the test unless it ends at once with one line that has these texts.
func refused(t *testing.T, state string, texts ...string) {
	t.Helper()
	environment := []string{"PORTWATCHER_STATE=" + state, "MONITOR_CONTAINERS=" + harness.Pattern(t), "PORTWATCHER_HEALTH_SOCKET="}
	result := harness.Run(t, environment, "run", "--format", "json")
	if result.Status != 1 || result.Stdout != "" {
		t.Errorf("exit status %d, want 1; standard output %q", result.Status, result.Stdout)
	}
	if problem := harness.OneLine(complaints(result.Stderr), append(texts, state, "--state")...); problem != "" {
		t.Error(problem)
	}
}

// Two instances cannot write one journal: the second names the process that has it.
func TestMemoryInUse(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	container := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	folder := t.TempDir()
	state := folder + "/portwatcher.db"
	watch := harness.StartWatch(t, harness.WatchSpec{State: state})
	watch.WaitOpen(t, listening(t, container, 1))
	refused(t, state, "in use", "pid "+itoa(watch.PID()))
	// Another name of the same file is the same file.
	link := filepath.Join(folder, "link.db")
	if err := os.Symlink(state, link); err != nil {
		t.Fatal(err)
	}
	result := harness.Run(t, []string{"PORTWATCHER_STATE=" + link}, "run")
	if result.Status != 1 || !strings.Contains(result.Stderr, "in use") {
		t.Errorf("by another name: exit status %d, want 1: %s", result.Status, result.Stderr)
	}
	// The first one has not noticed.
	watch.Marker(t, container, 1000)
	harness.WaitJournal(t, state, listening(t, container, 1))
	watch.Stop(t, syscall.SIGTERM)
	sameLines(t, "the journal", harness.JournalLines(t, state), watch.Lines())
}

// A journal of a later version is left alone.
func TestMemoryNewer(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	container := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	state := t.TempDir() + "/portwatcher.db"
	watch := harness.StartWatch(t, harness.WatchSpec{State: state})
	watch.WaitOpen(t, listening(t, container, 1))
	watch.Stop(t, syscall.SIGTERM)
	var version int
	harness.QueryJournal(t, state, "PRAGMA user_version", &version)
	harness.QueryJournal(t, state, "PRAGMA user_version = 999", nil)
	refused(t, state, "999", itoa(version), "newer")
	for _, command := range [][]string{{"events"}, {"ports", "--at", "now"}} {
		result := harness.Run(t, []string{"PORTWATCHER_STATE=" + state}, command...)
		if problem := harness.OneLine(result.Stderr, "999", "newer", state); problem != "" || result.Status != 1 {
			t.Errorf("%s: exit status %d, want 1; %s", command, result.Status, problem)
		}
	}
	harness.QueryJournal(t, state, "PRAGMA user_version = "+itoa(version), nil)
	sameLines(t, "the journal", harness.JournalLines(t, state), watch.Lines())
}

// A journal that cannot be read is moved aside, which is reported, and a new one is
// begun: nothing is lost but what was in it, and no id repeats.
func TestMemoryCorrupt(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	container := start(t, "web", 2, nil, "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:53")
	for name, damage := range map[string]func(content []byte) []byte{
		"header":         func(content []byte) []byte { return append(make([]byte, 100), content[100:]...) },
		"truncated":      func(content []byte) []byte { return content[:len(content)/2] },
		"not a database": func([]byte) []byte { return []byte("{\"ports\": []}\n") },
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir() + "/portwatcher.db"
			before := harness.StartWatch(t, harness.WatchSpec{State: state, Monitor: container.Name})
			before.WaitOpen(t, listening(t, container, 2))
			before.Stop(t, syscall.SIGTERM)
			content, err := os.ReadFile(state)
			if err != nil {
				t.Fatal(err)
			}
			damaged := damage(content)
			if err := os.WriteFile(state, damaged, 0o640); err != nil {
				t.Fatal(err)
			}
			watch := harness.StartWatch(t, harness.WatchSpec{State: state, Monitor: container.Name})
			watch.WaitOpen(t, listening(t, container, 2))
			watch.WaitLog(t, "level=error", "damaged", ".corrupt-")
			gap := watch.WaitEvent(t, 0, harness.Match{Type: "gap"})
			aside, err := filepath.Glob(state + ".corrupt-*")
			if err != nil || len(aside) != 1 || !strings.Contains(gap.Reason, aside[0]) || !strings.Contains(gap.Reason, "damaged") {
				t.Fatalf("the file was moved to %q, which the gap does not name: %s %v", aside, gap.Line, err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || string(kept) != string(damaged) {
				t.Errorf("the file that was moved aside is not what it was: %v", err)
			}
			if first := watch.Events(harness.Match{Type: "gap"})[0].ID; first <= before.LastID() {
				t.Errorf("the id %d was used before: the last was %d", first, before.LastID())
			}
			watch.Expect(t, 1, harness.Match{Type: "gap"})
			watch.Expect(t, 2, harness.Match{Type: "opened"})
			watch.Stop(t, syscall.SIGTERM)
			sameLines(t, "the new journal", harness.JournalLines(t, state), watch.Lines())
			// From now on it is a journal like any other.
			after := harness.StartWatch(t, harness.WatchSpec{State: state, Monitor: container.Name, After: watch})
			after.Marker(t, container, 1000)
			after.Expect(t, 2, harness.Match{})
			reportsAway(t, after, false)
		})
	}
}
