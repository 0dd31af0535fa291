package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
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

// WaitPrinted waits until this many more lines are printed than there were.
func (r *Recording) WaitPrinted(t testing.TB, lines int) {
	t.Helper()
	info, err := r.output.Stat()
	if err != nil {
		t.Fatal(err)
	}
	from, printed, chunk := info.Size(), 0, make([]byte, 1<<20)
	Eventually(t, fmt.Sprintf("%d events are printed", lines), func() string {
		for read := 1; read > 0; from += int64(read) {
			if read, err = r.output.ReadAt(chunk, from); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			printed += bytes.Count(chunk[:read], []byte("\n"))
		}
		if printed < lines {
			return fmt.Sprintf("%d so far", printed)
		}
		return ""
	})
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
