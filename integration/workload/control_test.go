package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/testutil/kernel"
	"portwatcher/internal/testutil/truth"
)

// The demo in a namespace of its own: its HTTP server comes back after it was
// killed, and everything ends with the first process.
func TestControlDemoRestartsItsServer(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "control", "--demo")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) {
		kernel.Skip(t, "making a network namespace needs root (CAP_SYS_ADMIN)")
	} else if err != nil {
		t.Fatal(err)
	}
	// Without an end the reader below would wait for ever.
	guard := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer guard.Stop()
	lines := json.NewDecoder(bufio.NewReader(stdout))
	first := nextOpened(t, lines)
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if second := nextOpened(t, lines); second.PID == first.PID {
		t.Errorf("process %d opened the port twice, want another process", first.PID)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for {
		var f truth.Fact
		if err := lines.Decode(&f); err != nil {
			t.Fatalf("the server's closing was not recorded: %v", err)
		}
		if f.Action == truth.Closed && f.Port == 8080 {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("control after SIGTERM: %v", err)
	}
}

// nextOpened returns the next fact that the HTTP port opened.
func nextOpened(t *testing.T, lines *json.Decoder) truth.Fact {
	t.Helper()
	for {
		var f truth.Fact
		if err := lines.Decode(&f); err != nil {
			t.Fatalf("wait for the HTTP server: %v", err)
		}
		if f.Action == truth.Opened && f.Port == 8080 {
			return f
		}
	}
}
