package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Follower is a running `portwatcher events --follow`.
type Follower struct {
	command *exec.Cmd
	path    string // what it has printed
	stderr  bytes.Buffer
}

// StartFollower follows the journal in the file state. When the test ends it is
// ended, too.
func StartFollower(t testing.TB, state string, arguments ...string) *Follower {
	t.Helper()
	f := &Follower{path: filepath.Join(t.TempDir(), "followed")}
	output, err := os.Create(f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	f.command = exec.Command(Portwatcher(t), slices.Concat([]string{"events", "--follow"}, arguments)...)
	f.command.Env = append(os.Environ(), "PORTWATCHER_STATE="+state)
	f.command.Stdout, f.command.Stderr = output, &f.stderr
	if err := f.command.Start(); err != nil {
		t.Fatalf("start portwatcher events: %v", err)
	}
	t.Cleanup(func() {
		if f.command.ProcessState == nil {
			_ = f.command.Process.Kill()
			_ = f.command.Wait() // it reports the kill
		}
	})
	return f
}

// Finish waits until the last line is this one, ends the follower with SIGTERM
// and returns all that it has printed. It fails the test unless the exit status
// is 0 and standard error is empty.
func (f *Follower) Finish(t testing.TB, last string) []string {
	t.Helper()
	var content []byte
	Eventually(t, "the follower prints "+last, func() (problem string) {
		var err error
		if content, err = os.ReadFile(f.path); err != nil {
			return err.Error()
		}
		if !bytes.HasSuffix(content, []byte(last+"\n")) {
			return fmt.Sprintf("%d lines so far", bytes.Count(content, []byte("\n")))
		}
		return ""
	})
	if err := f.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(Patience, func() { _ = f.command.Process.Kill() })
	defer late.Stop()
	if err := f.command.Wait(); err != nil || f.stderr.Len() > 0 {
		t.Errorf("events --follow: %v: %s", err, &f.stderr)
	}
	return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
}
