package harness

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// logBuffer keeps what a process writes while it is read.
type logBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *logBuffer) Write(text []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(text)
}

func (b *logBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}

// Logs returns how many log lines so far contain all of the texts.
func (r *Recording) Logs(texts ...string) int {
	return countLogs(strings.Split(r.stderr.String(), "\n"), texts)
}

// Reload has portwatcher read its settings again, and waits until it has. It may
// do so by itself, too, when their file changes.
func (r *Recording) Reload(t testing.TB) {
	t.Helper()
	const told = "The settings were reloaded."
	before := r.Logs(told)
	if err := r.command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the settings are reloaded", func() string {
		if r.Logs(told) == before {
			return r.stderr.String()
		}
		return ""
	})
}

// WaitLog waits for a log line that contains all of the texts.
func (r *Recording) WaitLog(t testing.TB, texts ...string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("a log line with %q", texts), func() string {
		if r.Logs(texts...) == 0 {
			return r.stderr.String()
		}
		return ""
	})
}

// Printed returns the lines so far, without one that is not whole.
func (r *Recording) Printed(t testing.TB) []string {
	t.Helper()
	content, err := os.ReadFile(r.output.Name())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(content), "\n")
	return lines[:len(lines)-1]
}

// burstCounts are the counts of a burst as it is printed.
var burstCounts = regexp.MustCompile(`"opened":(\d+),"closed":(\d+)`)

// WaitReported waits until this many more openings and closings are printed than there
// were, each as an event of its own or in the counts of a burst.
func (r *Recording) WaitReported(t testing.TB, changes int) {
	t.Helper()
	info, err := r.output.Stat()
	if err != nil {
		t.Fatal(err)
	}
	from, reported := info.Size(), 0
	Eventually(t, fmt.Sprintf("%d openings and closings are printed", changes), func() string {
		lines, err := io.ReadAll(io.NewSectionReader(r.output, from, 1<<40))
		if err != nil {
			t.Fatal(err)
		}
		lines = lines[:bytes.LastIndexByte(lines, '\n')+1]
		from += int64(len(lines))
		reported += bytes.Count(lines, []byte(`"type":"opened"`)) + bytes.Count(lines, []byte(`"type":"closed"`))
		for _, counts := range burstCounts.FindAllSubmatch(lines, -1) {
			opened, _ := strconv.Atoi(string(counts[1])) // the pattern takes digits alone
			closed, _ := strconv.Atoi(string(counts[2]))
			reported += opened + closed
		}
		if reported < changes {
			return fmt.Sprintf("%d so far", reported)
		}
		return ""
	})
}

// Pause stops portwatcher with SIGSTOP for this long, as a debugger or a snapshot of a
// virtual machine does.
func (r *Recording) Pause(t testing.TB, length time.Duration) {
	t.Helper()
	if err := r.command.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("stop portwatcher: %v", err)
	}
	time.Sleep(length)
	if err := r.command.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatalf("have portwatcher go on: %v", err)
	}
}

// Kill ends portwatcher with SIGKILL.
func (r *Recording) Kill(t testing.TB) {
	t.Helper()
	if err := r.command.Process.Kill(); err != nil {
		t.Fatalf("kill portwatcher: %v", err)
	}
	_ = r.command.Wait() // says that it was killed
	running.Delete(r.command.Process.Pid)
	if status := r.command.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Fatalf("portwatcher had ended before it was killed: %v", r.command.ProcessState)
	}
}

// Stop ends portwatcher with SIGTERM and returns how long that took. It fails
// the test unless the exit status is 0.
func (r *Recording) Stop(t testing.TB) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// Forget takes out of what is open what the watch is not to report any more.
func (w *Watch) Forget(match Match) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for endpoint, event := range w.open {
		match.Type = event.Type
		if match.matches(event) {
			delete(w.open, endpoint)
		}
	}
}

// Lines returns all events so far as they were printed.
func (w *Watch) Lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := make([]string, len(w.events))
	for i, event := range w.events {
		lines[i] = event.Line
	}
	return lines
}

// LastID is the id of the last event so far, 0 if there was none.
func (w *Watch) LastID() uint64 { return w.lastID() }
