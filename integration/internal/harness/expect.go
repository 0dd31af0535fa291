package harness

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// wait calls condition under the lock at each line that portwatcher prints,
// until it returns "". It fails the test after [Patience], or when portwatcher
// has ended.
func (w *Watch) wait(t testing.TB, what string, condition func() string) {
	t.Helper()
	late := time.After(Patience)
	for {
		w.mu.Lock()
		problem, told := condition(), w.told
		w.mu.Unlock()
		if problem == "" {
			return
		}
		select {
		case <-told:
		case <-w.ended:
			t.Fatalf("%s: %s\nportwatcher has ended: %v", what, problem, w.err)
		case <-late:
			t.Fatalf("%s: not within %v: %s", what, Patience, problem)
		}
	}
}

// WaitEvent waits for the first event after the one with the id after (0: any)
// that matches.
func (w *Watch) WaitEvent(t testing.TB, after uint64, match Match) Event {
	t.Helper()
	var found Event
	w.wait(t, fmt.Sprintf("wait for an event %+v after %d", match, after), func() string {
		for _, event := range w.events {
			if event.ID > after && match.matches(event) {
				found = event
				return ""
			}
		}
		return "no such event"
	})
	return found
}

// lastID is the id of the last event so far.
func (w *Watch) lastID() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// WaitOpen waits until exactly these listeners are open by what was reported.
func (w *Watch) WaitOpen(t testing.TB, truth ...[]Listener) {
	t.Helper()
	want := slices.Concat(truth...)
	w.wait(t, "wait until what is reported open is the truth", func() string {
		var reported []Listener
		for _, event := range w.open {
			reported = append(reported, event.Listener())
		}
		return Difference(reported, want)
	})
}

// WaitLog waits for a log line that contains all of the texts.
func (w *Watch) WaitLog(t testing.TB, texts ...string) {
	t.Helper()
	w.wait(t, fmt.Sprintf("wait for a log line with %q", texts), func() string {
		if countLogs(w.logs, texts) == 0 {
			return "no such line"
		}
		return ""
	})
}

// Logs returns how many log lines contain all of the texts.
func (w *Watch) Logs(texts ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return countLogs(w.logs, texts)
}

func countLogs(logs, texts []string) int {
	count := 0
	for _, line := range logs {
		missing := func(text string) bool { return !strings.Contains(line, text) }
		if !slices.ContainsFunc(texts, missing) {
			count++
		}
	}
	return count
}

// Events returns the events so far that match.
func (w *Watch) Events(match Match) []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []Event
	for _, event := range w.events {
		if match.matches(event) {
			events = append(events, event)
		}
	}
	return events
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
