package harness

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// StartWatchWith is [StartWatch] with these settings in the environment
// ("NAME=value") in place of MONITOR_CONTAINERS alone, and no argument but
// those given.
func StartWatchWith(t testing.TB, environment []string, arguments ...string) *Watch {
	t.Helper()
	socket := fmt.Sprintf("@%s%d", Name(t, ""), watches.Add(1))
	command := exec.Command(Portwatcher(t), slices.Concat([]string{"run", "--format", "json"}, arguments)...)
	command.Env = slices.Concat(os.Environ(),
		[]string{"MONITOR_CONTAINERS=" + Pattern(t), "PORTWATCHER_HEALTH_SOCKET=" + socket, StateOf(t)}, environment)
	return start(t, command, socket)
}

// StartWatchInContainer is [StartWatch] in a container with these rights (see
// [Rights]).
func StartWatchInContainer(t testing.TB, rights []string, arguments ...string) *Watch {
	t.Helper()
	arguments = slices.Concat([]string{"run", "--format", "json", "--scan-interval", ScanInterval.String()}, arguments)
	return start(t, inContainer(t, SelfName(t), Pattern(t), rights, arguments), "")
}

// WaitLogWithin is [Watch.WaitLog] for what takes its time.
func (w *Watch) WaitLogWithin(t testing.TB, patience time.Duration, texts ...string) {
	t.Helper()
	for late := time.After(patience); ; {
		w.mu.Lock()
		found, told := countLogs(w.logs, texts) > 0, w.told
		w.mu.Unlock()
		if found {
			return
		}
		select {
		case <-told:
		case <-w.ended:
			t.Fatalf("wait for a log line with %q: portwatcher has ended: %v", texts, w.err)
		case <-late:
			t.Fatalf("no log line with %q within %v", texts, patience)
		}
	}
}
