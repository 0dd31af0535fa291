package harness

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/testutil/truth"
)

// wait calls condition under the lock at each line that portwatcher prints, until it
// returns "". It fails the test after [Patience], or when portwatcher has ended.
func (w *Watch) wait(t testing.TB, what string, condition func() string) {
	t.Helper()
	late := time.After(Patience)
	for {
		w.mu.Lock()
		problem, read := condition(), w.read
		w.mu.Unlock()
		if problem == "" {
			return
		}
		select {
		case <-read:
		case <-w.ended:
			t.Fatalf("%s: %s\nportwatcher has ended: %v", what, problem, w.err)
		case <-late:
			t.Fatalf("%s: not within %v: %s", what, Patience, problem)
		}
	}
}

// WaitEvent waits for the first event after the one with the id after (0: any) that
// matches.
func (w *Watch) WaitEvent(t testing.TB, after uint64, match Match) truth.Event {
	t.Helper()
	var found truth.Event
	w.wait(t, fmt.Sprintf("wait for an event %+v after %d", match, after), func() string {
		for i := range w.events {
			if event := &w.events[i]; event.ID > after && match.matches(event) {
				found = *event
				return ""
			}
		}
		return "no such event"
	})
	return found
}

// LastID is the id of the last event so far, 0 if there was none.
func (w *Watch) LastID() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ledger.LastID
}

// WaitOpen waits until exactly these listeners are open by what was reported.
func (w *Watch) WaitOpen(t testing.TB, listening ...[]Listener) {
	t.Helper()
	want := slices.Concat(listening...)
	w.wait(t, "wait until exactly what listens is reported open", func() string {
		return Difference(openIn(w.ledger), want)
	})
}

// openIn returns what is open in containers by a ledger. The host's own ports are of other
// tests, too.
func openIn(ledger *truth.Ledger) (open []Listener) {
	for _, event := range ledger.Open {
		if event.Container != nil {
			open = append(open, ListenerOf(&event.Listener))
		}
	}
	return open
}

// Marker opens a port in the container and closes it again, each after portwatcher has
// reported the step before. The container is scanned twice until it returns, so that
// whatever happened before it has been reported, if it ever will be.
func (w *Watch) Marker(t testing.TB, c *Container, port int) {
	t.Helper()
	before := w.LastID()
	run := c.Exec(t, "listen", "--mptcp=false", "--tcp", "127.0.0.1:"+strconv.Itoa(port))
	opened := w.WaitEvent(t, before, Opened(c.Name, "tcp", "127.0.0.1", port))
	run.Stop(t)
	w.WaitEvent(t, opened.ID, Closed(c.Name, "tcp", "127.0.0.1", port))
}

// WaitLog waits for a log line that contains all of the texts.
func (w *Watch) WaitLog(t testing.TB, texts ...string) {
	t.Helper()
	w.wait(t, fmt.Sprintf("wait for a log line with %q", texts), func() string {
		if countLines(w.logs, texts) == 0 {
			return "no such line"
		}
		return ""
	})
}

// Logs returns how many log lines so far contain all of the texts.
func (w *Watch) Logs(texts ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return countLines(w.logs, texts)
}

func countLines(lines, texts []string) int {
	count := 0
	for _, line := range lines {
		if hasAll(line, texts) {
			count++
		}
	}
	return count
}

func hasAll(line string, texts []string) bool {
	return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
}

// Events returns the events so far that match.
func (w *Watch) Events(match Match) []truth.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.events), func(event truth.Event) bool { return !match.matches(&event) })
}

// Expect fails the test unless the events so far that match are this many.
func (w *Watch) Expect(t testing.TB, count int, match Match) {
	t.Helper()
	if events := w.Events(match); len(events) != count {
		t.Errorf("%d events %+v, want %d:", len(events), match, count)
		for _, event := range events {
			t.Error(event.Line)
		}
	}
}

// Lines returns all events so far as they were printed.
func (w *Watch) Lines() []string {
	var lines []string
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, event := range w.events {
		lines = append(lines, event.Line)
	}
	return lines
}

// Forget removes from what is open what the watch is not to report any more.
func (w *Watch) Forget(match Match) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for endpoint, event := range w.ledger.Open {
		match.Type = event.Type
		if match.matches(&event) {
			delete(w.ledger.Open, endpoint)
		}
	}
}
