package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Recording is a running `portwatcher run --format json` whose standard output
// is a file: it is read no slower than it is written, so that the test itself
// is not what a storm of events is too fast for.
type Recording struct {
	// HealthSocket is its --health-socket.
	HealthSocket string

	command *exec.Cmd
	output  *os.File // a descriptor of its own, to read from
	stderr  logBuffer
	partial []byte // what WaitLine has not looked at yet
}

// StartRecording starts portwatcher with a journal of its own. When the test
// ends it is stopped.
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
	r := &Recording{HealthSocket: fmt.Sprintf("@%s%d", Name(t, ""), watches.Add(1)), command: exec.Command(Portwatcher(t), slices.Concat(
		[]string{"run", "--format", "json", "--scan-interval", ScanInterval.String()}, arguments)...)}
	if r.output, err = os.Open(path); err != nil {
		t.Fatal(err)
	}
	r.command.Env = append(os.Environ(), "MONITOR_CONTAINERS="+monitor, "PORTWATCHER_HEALTH_SOCKET="+r.HealthSocket, "PORTWATCHER_STATE="+state)
	r.command.Stdout, r.command.Stderr = written, &r.stderr
	r.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.command.Start(); err != nil {
		t.Fatalf("start portwatcher: %v", err)
	}
	running.Store(r.command.Process.Pid, true)
	t.Cleanup(func() {
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if err := r.output.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of portwatcher:\n%s", r.stderr.String())
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

// WaitLine waits for a line with all of the texts. Each line is looked at
// once, by one call.
func (r *Recording) WaitLine(t testing.TB, texts ...string) {
	t.Helper()
	r.WaitLines(t, texts)
}

// WaitLines waits for a line for each list of texts, in any order, with all of
// its texts. Each line is looked at once, by one call.
func (r *Recording) WaitLines(t testing.TB, wanted ...[]string) {
	t.Helper()
	wanted = slices.Clone(wanted)
	Eventually(t, fmt.Sprintf("an event each with %q", wanted), func() string {
		fresh, err := io.ReadAll(r.output)
		if err != nil {
			t.Fatal(err)
		}
		r.partial = append(r.partial, fresh...)
		for len(wanted) > 0 {
			line, rest, whole := bytes.Cut(r.partial, []byte("\n"))
			if !whole {
				return fmt.Sprintf("no line with %q", wanted)
			}
			r.partial = rest
			missing := func(text string) bool { return !bytes.Contains(line, []byte(text)) }
			wanted = slices.DeleteFunc(wanted, func(texts []string) bool { return !slices.ContainsFunc(texts, missing) })
		}
		return ""
	})
}

// WaitLast waits until the last line with all of the texts is of this kind,
// "closed" or "opened", or there is none.
func (r *Recording) WaitLast(t testing.TB, kind string, texts ...string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("the last event with %q is %s", texts, kind), func() string {
		content, err := os.ReadFile(r.output.Name())
		if err != nil {
			t.Fatal(err)
		}
		content = content[:bytes.LastIndexByte(content, '\n')+1]
		for len(content) > 0 {
			begin := bytes.LastIndexByte(content[:len(content)-1], '\n') + 1
			line := content[begin:]
			content = content[:begin]
			missing := func(text string) bool { return !bytes.Contains(line, []byte(text)) }
			if slices.ContainsFunc(texts, missing) {
				continue
			}
			if missing(`"type":"` + kind + `"`) {
				return string(line)
			}
			return ""
		}
		return ""
	})
}

// Finish stops portwatcher and hands each line that it has printed to take, in
// order. It fails the test where the events' ids do not rise by one.
func (r *Recording) Finish(t testing.TB, take func(line string)) {
	t.Helper()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(r.output.Name())
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for line := range strings.Lines(string(content)) {
		number, _, _ := strings.Cut(strings.TrimPrefix(line, `{"id":`), ",")
		id, err := strconv.ParseUint(number, 10, 64)
		if err != nil || last != 0 && id != last+1 {
			t.Fatalf("the id does not follow %d: %s", last, line)
		}
		last = id
		take(line)
	}
}

// ParseEvent reads one line of a recording. It fails the test where it breaks
// the contract of the design.
func ParseEvent(t testing.TB, line string) Event {
	t.Helper()
	event, problem := parseEvent(strings.TrimSuffix(line, "\n"), time.Now())
	if problem != "" {
		t.Errorf("an event breaks the contract: %s: %s", problem, line)
	}
	return event
}
