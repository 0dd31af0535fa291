package integration

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// everyRestart runs a test for each source, with the function that starts
// portwatcher on the journal that it wrote before.
func everyRestart(t *testing.T, test func(t *testing.T, state string, run func(t *testing.T, after *harness.Watch) *harness.Watch)) {
	eachSource(t, func(t *testing.T, source string) {
		state := t.TempDir() + "/portwatcher.db"
		test(t, state, func(t *testing.T, after *harness.Watch) *harness.Watch {
			return harness.StartWatch(t, harness.WatchSpec{State: state, After: after, Arguments: []string{"--source", source}})
		})
	})
}

// What opened and closed while portwatcher did not run is reported at its next start, and
// what stayed is not reported again. Then it goes on as before.
func TestMemoryRestart(t *testing.T) {
	everyRestart(t, func(t *testing.T, state string, run func(*testing.T, *harness.Watch) *harness.Watch) {
		stays := start(t, "stays", 3, nil, "--tcp", "0.0.0.0:80,127.0.0.1:81", "--udp", "0.0.0.0:53")
		recreated := start(t, "recreated", 1, nil, "--tcp", "0.0.0.0:80")
		restarted := start(t, "restarted", 1, nil, "--tcp", "0.0.0.0:80")
		stopped := start(t, "stopped", 1, nil, "--tcp", "0.0.0.0:80")
		closes := stays.Exec(t, "listen", "--tcp", "0.0.0.0:90")
		first := run(t, nil)
		first.WaitOpen(t, listening(t, stays, 4), listening(t, recreated, 1), listening(t, restarted, 1), listening(t, stopped, 1))
		if _, status := first.Stop(t, syscall.SIGTERM); status != 0 {
			t.Fatalf("exit status %d", status)
		}
		away := time.Now()

		closes.Stop(t)
		stays.Exec(t, "listen", "--tcp", "0.0.0.0:91")
		stays.Exec(t, "listen", "--udp", "127.0.0.1:92")
		stays.Facts(t, "transient", "--port", "93") // which cannot be reported
		recreated.Do(t, "rm", "--force")
		anew := start(t, "recreated", 1, nil, "--tcp", "0.0.0.0:80")
		restarted.Do(t, "restart", "--time", "1")
		restarted.Refresh(t)
		restarted.WaitLogs(t, 2, `"action":"opened"`)
		stopped.Do(t, "stop")
		fresh := start(t, "fresh", 1, nil, "--tcp", "0.0.0.0:80")

		open := slices.Concat(listening(t, stays, 5), listening(t, anew, 1), listening(t, restarted, 1), listening(t, fresh, 1))
		second := run(t, first)
		second.WaitOpen(t, open)
		second.Marker(t, stays, 1000)
		second.Expect(t, 5+1, harness.Match{Type: "opened"})
		second.Expect(t, 4+1, harness.Match{Type: "closed"})
		second.Expect(t, 0, harness.Match{Type: "changed"})
		for _, event := range slices.Concat(second.Events(harness.Match{Type: "opened"}), second.Events(harness.Match{Type: "closed"})) {
			switch live := event.Port == 1000; {
			case live && event.Source == "restart", !live && event.Source != "restart":
				t.Errorf("want the source restart only of what changed meanwhile: %s", event.Line)
			case !live && event.Time.Before(away):
				t.Errorf("it changed after %v: %s", away, event.Line)
			}
		}
		for _, ended := range []struct {
			container *harness.Container
			port      int
		}{{stays, 90}, {recreated, 80}, {restarted, 80}, {stopped, 80}} {
			opened := first.WaitEvent(t, 0, harness.Opened(ended.container.Name, "tcp", "0.0.0.0", ended.port))
			closed := second.WaitEvent(t, 0, harness.Closed(ended.container.Name, "tcp", "0.0.0.0", ended.port))
			if closed.Container.ID != ended.container.ID || !closed.OpenedAt.Equal(opened.Time) ||
				len(closed.Processes) != 1 || len(opened.Processes) != 1 || closed.Processes[0].PID != opened.Processes[0].PID {
				t.Errorf("it closes another than was open before: %s %s", opened.Line, closed.Line)
			}
		}
		reportsAway(t, second, false)
		// What happens from now on is reported as before, in old containers and new ones.
		restarted.Do(t, "stop")
		second.WaitEvent(t, 0, harness.Match{Type: "closed", Container: restarted.Name, Port: 80})
		second.Marker(t, anew, 1000)
		second.WaitOpen(t, listening(t, stays, 5), listening(t, anew, 1), listening(t, fresh, 1))
		second.Stop(t, syscall.SIGTERM)

		// Where nothing happened nothing is reported, and where all is gone each of it.
		third := run(t, second)
		third.Marker(t, fresh, 1000)
		third.Expect(t, 0, harness.Match{Port: 80})
		third.Expect(t, 2, harness.Match{})
		reportsAway(t, third, false)
		third.Stop(t, syscall.SIGTERM)
		for _, container := range []*harness.Container{stays, anew, fresh} {
			container.Do(t, "rm", "--force")
		}
		last := run(t, third)
		last.WaitOpen(t)
		last.Expect(t, 7, harness.Match{Type: "closed"})
		last.Expect(t, 7, harness.Match{})
		reportsAway(t, last, false)
		last.Stop(t, syscall.SIGTERM)
		printed := slices.Concat(first.Lines(), second.Lines(), third.Lines(), last.Lines())
		sameLines(t, "the journal", harness.JournalLines(t, state), printed)
	})
}

// A SO_REUSEPORT group of which one member stayed is what it was, whoever else
// came and went.
func TestMemoryRestartGroup(t *testing.T) {
	everyRestart(t, func(t *testing.T, state string, run func(*testing.T, *harness.Watch) *harness.Watch) {
		container := idle(t, "group")
		join := func() *harness.Exec {
			member := container.Exec(t, "listen", "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:81", "--reuseport", "2")
			member.WaitFacts(t, 2*2-1, "opened") // the first of them started it
			return member
		}
		leaves, stays := join(), join()
		first := run(t, nil)
		first.WaitOpen(t, listening(t, container, 2))
		first.Stop(t, syscall.SIGTERM)
		leaves.Stop(t)
		joined := join()
		second := run(t, first)
		second.Marker(t, container, 1000)
		second.Expect(t, 0, harness.Match{Container: container.Name, Port: 80})
		second.Expect(t, 0, harness.Match{Container: container.Name, Port: 81})
		reportsAway(t, second, false)
		harness.WaitJournal(t, state, listening(t, container, 2)) // with the processes of now
		// It closes when the last one leaves, old or new.
		stays.Stop(t)
		second.Marker(t, container, 1000)
		second.Expect(t, 0, harness.Match{Container: container.Name, Port: 80})
		joined.Stop(t)
		for protocol, port := range map[string]int{"tcp": 80, "udp": 81} {
			opened := first.WaitEvent(t, 0, harness.Opened(container.Name, protocol, "0.0.0.0", port))
			closed := second.WaitEvent(t, 0, harness.Closed(container.Name, protocol, "0.0.0.0", port))
			if !closed.OpenedAt.Equal(opened.Time) {
				t.Errorf("it has been open since %v: %s", opened.Time, closed.Line)
			}
		}
	})
}

// reportsAway fails the test unless a watch reported once, first, that portwatcher did not
// run for a while.
func reportsAway(t *testing.T, watch *harness.Watch, killed bool) {
	t.Helper()
	watch.Expect(t, 1, harness.Match{Type: "gap"})
	gap := watch.WaitEvent(t, 0, harness.Match{Type: "gap"})
	if watch.Lines()[0] != gap.Line || !strings.Contains(gap.Reason, "portwatcher was not running") {
		t.Errorf("want first that portwatcher was not running: %s", gap.Line)
	}
	if strings.Contains(gap.Reason, "in order") != killed {
		t.Errorf("it was killed (%v), which the gap is to name: %s", killed, gap.Line)
	}
}
