package harness

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/testutil/truth"
)

// WatchSpec is how to run `portwatcher run`.
type WatchSpec struct {
	// Monitor is MONITOR_CONTAINERS; empty is the test's own [Pattern].
	Monitor string
	// Arguments follow `run --format json`.
	Arguments []string
	// Host reports the host's own ports, too.
	Host bool
	// Environment are more settings, as NAME=value. With them the scan interval is the
	// default one.
	Environment []string
	// InContainer runs it in its own container, with the image and the rights that a user
	// gives it, instead of as a process of the host.
	InContainer bool
	// Rights are those of its own container; nil is [Rights].
	Rights []string
	// Options are more options of docker run, in its own container.
	Options []string
	// DockerHost is the engine to watch; empty is the default one.
	DockerHost string
	// State is the journal's file; empty is one of its own. A container has its journal
	// where its options put it.
	State string
	// After is the watch that wrote this journal before, and has ended: what it reported
	// open is so at first, and its ids go on.
	After *Watch
}

// Watch is a running `portwatcher run --format json`.
type Watch struct {
	// HealthSocket is its --health-socket, "" for one in a container.
	HealthSocket string

	command *exec.Cmd
	ended   chan struct{} // closed when both streams are read to their end
	err     error         // of the process; valid after ended

	mu      sync.Mutex
	events  []truth.Event
	ledger  *truth.Ledger // of the events
	logs    []string
	failure error         // of reading its output
	read    chan struct{} // closed and replaced at each line
	killed  bool          // by the test
}

// ScanInterval is the scan interval that [StartWatch] sets.
const ScanInterval = 100 * time.Millisecond

// StartWatch starts portwatcher. When the test ends it is stopped, and the test fails if
// it ended before, if its exit status is not 0, or if anything it printed breaks the
// contract: an event that is incomplete, whose id does not rise by one, that opens what is
// open or closes what is not.
func StartWatch(t testing.TB, spec WatchSpec) *Watch {
	t.Helper()
	if spec.Monitor == "" {
		spec.Monitor = Pattern(t)
	}
	arguments := []string{"run", "--format", "json"}
	if spec.Environment == nil {
		arguments = append(arguments, "--scan-interval", ScanInterval.String())
	}
	if spec.Host {
		arguments = append(arguments, "--host")
	}
	arguments = append(arguments, spec.Arguments...)
	if spec.InContainer {
		rights := spec.Rights
		if rights == nil {
			rights = Rights
		}
		return start(t, inContainer(t, SelfName(t), spec.Monitor, slices.Concat(rights, spec.Options), arguments), "", spec)
	}
	command, socket := hostCommand(t, arguments)
	state := "PORTWATCHER_STATE=" + spec.State
	if spec.State == "" {
		state = StateOf(t)
	}
	command.Env = append(command.Env, "MONITOR_CONTAINERS="+spec.Monitor, state)
	if spec.DockerHost != "" {
		command.Env = append(command.Env, "DOCKER_HOST="+spec.DockerHost)
	}
	command.Env = append(command.Env, spec.Environment...)
	return start(t, command, socket, spec)
}

// SelfName is the name of portwatcher's own container.
func SelfName(t testing.TB) string { return "self-" + Name(t, "watch") }

// StateOf is the setting, as NAME=value, that gives a portwatcher of the host a journal of
// its own, which is gone after the test.
func StateOf(t testing.TB) string {
	t.Helper()
	return "PORTWATCHER_STATE=" + filepath.Join(t.TempDir(), "portwatcher.db")
}

// running are the process groups that an interrupt of the tests has to end.
var running sync.Map

// watches counts the watches of this run of the tests.
var watches atomic.Int64

// hostCommand is the command that runs portwatcher on the host, with a health socket of
// its own: of two with the default one only the first would get it. The group of its own
// shows whether it leaves a process behind.
func hostCommand(t testing.TB, arguments []string) (command *exec.Cmd, socket string) {
	t.Helper()
	socket = fmt.Sprintf("@%s%d", Name(t, ""), watches.Add(1))
	command = exec.Command(Portwatcher(t), arguments...)
	command.Env = append(os.Environ(), "PORTWATCHER_HEALTH_SOCKET="+socket)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return command, socket
}

func start(t testing.TB, command *exec.Cmd, socket string, spec WatchSpec) *Watch {
	t.Helper()
	w := &Watch{HealthSocket: socket, command: command, ended: make(chan struct{}), ledger: truth.NewLedger(), read: make(chan struct{})}
	if after := spec.After; after != nil {
		w.ledger = after.ledger.Continue()
		w.ledger.SkipsIDs = after.killed
	}
	w.ledger.AcceptHost(spec.Host)
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		t.Fatalf("start portwatcher: %v", err)
	}
	running.Store(command.Process.Pid, true)
	var readers sync.WaitGroup
	readers.Go(func() { w.follow(stdout, func(line string) { w.events = append(w.events, w.ledger.Take(line)) }) })
	readers.Go(func() { w.follow(stderr, func(line string) { w.logs = append(w.logs, line) }) })
	go func() {
		readers.Wait()
		w.err = command.Wait()
		close(w.ended)
	}()
	t.Cleanup(func() { w.finish(t) })
	return w
}

// follow passes each line to a function that is called under the lock.
func (w *Watch) follow(stream io.Reader, each func(string)) {
	scanner := bufio.NewScanner(stream)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		w.mu.Lock()
		each(scanner.Text())
		close(w.read)
		w.read = make(chan struct{})
		w.mu.Unlock()
	}
	if err := scanner.Err(); err != nil {
		w.mu.Lock()
		w.failure = errors.Join(w.failure, fmt.Errorf("read its output: %w", err))
		w.mu.Unlock()
	}
}

// PID is the process id of portwatcher, or of the docker command that runs its container.
func (w *Watch) PID() int { return w.command.Process.Pid }

// Stop sends a signal and returns how long the process took to end, and its exit status.
func (w *Watch) Stop(t testing.TB, signal syscall.Signal) (time.Duration, int) {
	t.Helper()
	begin := time.Now()
	w.killed = signal == syscall.SIGKILL
	if err := w.command.Process.Signal(signal); err != nil {
		t.Fatalf("stop portwatcher: %v", err)
	}
	return w.waitEnd(t, begin)
}

// StopTwice sends two signals, which differ so that the kernel does not merge them, and
// returns how long the process took to end after the second, and its exit status.
func (w *Watch) StopTwice(t testing.TB, first, second syscall.Signal) (time.Duration, int) {
	t.Helper()
	if err := w.command.Process.Signal(first); err != nil {
		t.Fatalf("stop portwatcher: %v", err)
	}
	took, status := w.Stop(t, second)
	w.killed = true
	return took, status
}

func (w *Watch) waitEnd(t testing.TB, begin time.Time) (time.Duration, int) {
	t.Helper()
	select {
	case <-w.ended:
	case <-time.After(Patience):
		t.Errorf("portwatcher has not ended %v after the signal", Patience)
		_ = w.command.Process.Kill()
		<-w.ended
	}
	took := time.Since(begin)
	group := w.command.Process.Pid
	if err := syscall.Kill(-group, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("portwatcher has ended, but left a process of its group %d: %v", group, err)
	}
	running.Delete(group)
	return took, w.command.ProcessState.ExitCode()
}

// finish stops portwatcher, unless the test did, and reports what it did wrong.
func (w *Watch) finish(t testing.TB) {
	t.Helper()
	_ = w.command.Process.Signal(syscall.SIGTERM) // where it has ended already, its status is checked below
	if _, status := w.waitEnd(t, time.Now()); status != 0 && !w.killed {
		t.Errorf("portwatcher ended with exit status %d", status)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure != nil {
		t.Error(w.failure)
	}
	for _, problem := range w.ledger.Problems {
		t.Error(problem)
	}
	if t.Failed() {
		for _, event := range w.events {
			t.Log(event.Line)
		}
		t.Logf("log of portwatcher:\n%s", strings.Join(w.logs, "\n"))
	}
}
