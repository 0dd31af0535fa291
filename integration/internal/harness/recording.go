package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/testutil/truth"
)

// Recording is a running `portwatcher run --format json` whose standard output is a file:
// it is read no slower than it is written, so that the test itself does not slow down what
// reports a storm.
type Recording struct {
	// HealthSocket is its --health-socket.
	HealthSocket string

	command *exec.Cmd
	output  *os.File // a descriptor of its own, to read from
	log     logBuffer
	partial []byte // what WaitLine has not searched yet
}

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

// StartRecording starts portwatcher with a journal of its own. When the test ends it is
// stopped.
func StartRecording(t testing.TB, monitor string, arguments ...string) *Recording {
	t.Helper()
	return StartRecordingIn(t, filepath.Join(t.TempDir(), "portwatcher.db"), monitor, arguments...)
}

// StartRecordingIn is [StartRecording] with the journal in the file state.
func StartRecordingIn(t testing.TB, state, monitor string, arguments ...string) *Recording {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events")
	written, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer written.Close()
	r := &Recording{}
	r.command, r.HealthSocket = hostCommand(t, slices.Concat(
		[]string{"run", "--format", "json", "--scan-interval", ScanInterval.String()}, arguments))
	if r.output, err = os.Open(path); err != nil {
		t.Fatal(err)
	}
	r.command.Env = append(r.command.Env, "MONITOR_CONTAINERS="+monitor, "PORTWATCHER_STATE="+state)
	r.command.Stdout, r.command.Stderr = written, &r.log
	if err := r.command.Start(); err != nil {
		t.Fatalf("start portwatcher: %v", err)
	}
	running.Store(r.command.Process.Pid, true)
	t.Cleanup(func() {
		if err := errors.Join(r.end(), r.output.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of portwatcher:\n%s", r.log.String())
		}
	})
	return r
}

// end stops portwatcher, unless it was stopped before.
func (r *Recording) end() error {
	if r.command.ProcessState != nil {
		return nil
	}
	defer running.Delete(r.command.Process.Pid)
	if err := r.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	late := time.AfterFunc(Patience, func() { _ = r.command.Process.Kill() })
	defer late.Stop()
	if err := r.command.Wait(); err != nil {
		return fmt.Errorf("portwatcher run: %w", err)
	}
	return nil
}

// Stop ends portwatcher with SIGTERM and returns how long that took. It fails the test
// unless the exit status is 0.
func (r *Recording) Stop(t testing.TB) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// Kill ends portwatcher with SIGKILL.
func (r *Recording) Kill(t testing.TB) {
	t.Helper()
	if err := r.command.Process.Kill(); err != nil {
		t.Fatalf("kill portwatcher: %v", err)
	}
	_ = r.command.Wait() // it reports the kill
	running.Delete(r.command.Process.Pid)
	if status := r.command.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Fatalf("portwatcher had ended before it was killed: %v", r.command.ProcessState)
	}
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
		t.Fatalf("continue portwatcher: %v", err)
	}
}

// Reload makes portwatcher read its settings again, and waits until it has. It may do so
// by itself, too, when their file changes.
func (r *Recording) Reload(t testing.TB) {
	t.Helper()
	const reloaded = "The settings were reloaded."
	before := r.Logs(reloaded)
	if err := r.command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the settings are reloaded", func() string {
		if r.Logs(reloaded) == before {
			return r.log.String()
		}
		return ""
	})
}

// Finish stops portwatcher and passes each event that it has printed to each, in order. It
// returns the ledger of them, and fails the test where that has problems.
func (r *Recording) Finish(t testing.TB, each func(truth.Event)) *truth.Ledger {
	t.Helper()
	r.Stop(t)
	ledger := truth.NewLedger()
	for _, line := range r.Printed(t) {
		each(ledger.Take(line))
	}
	for _, problem := range ledger.Problems[:min(10, len(ledger.Problems))] {
		t.Errorf("%d events are wrong: %s", len(ledger.Problems), problem)
	}
	return ledger
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

// Logs returns how many log lines so far contain all of the texts.
func (r *Recording) Logs(texts ...string) int {
	return countLines(strings.Split(r.log.String(), "\n"), texts)
}

// WaitLog waits for a log line that contains all of the texts.
func (r *Recording) WaitLog(t testing.TB, texts ...string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("a log line with %q", texts), func() string {
		if r.Logs(texts...) == 0 {
			return r.log.String()
		}
		return ""
	})
}

// WaitLine waits for a line with all of the texts. Each line is searched by one call only.
func (r *Recording) WaitLine(t testing.TB, texts ...string) {
	t.Helper()
	r.WaitLines(t, texts)
}

// WaitLines waits for a line for each list of texts, in any order, with all of its texts.
// Each line is searched by one call only.
func (r *Recording) WaitLines(t testing.TB, lists ...[]string) {
	t.Helper()
	lists = slices.Clone(lists)
	Eventually(t, fmt.Sprintf("an event each with %q", lists), func() string {
		fresh, err := io.ReadAll(r.output)
		if err != nil {
			t.Fatal(err)
		}
		r.partial = append(r.partial, fresh...)
		for len(lists) > 0 {
			line, rest, whole := bytes.Cut(r.partial, []byte("\n"))
			if !whole {
				return fmt.Sprintf("no line with %q", lists)
			}
			r.partial = rest
			lists = slices.DeleteFunc(lists, func(texts []string) bool { return hasAll(string(line), texts) })
		}
		return ""
	})
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
			opened, _ := strconv.Atoi(string(counts[1])) // the pattern matches digits alone
			closed, _ := strconv.Atoi(string(counts[2]))
			reported += opened + closed
		}
		if reported < changes {
			return fmt.Sprintf("%d so far", reported)
		}
		return ""
	})
}
