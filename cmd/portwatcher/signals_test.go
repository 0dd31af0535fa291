package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/testutil/kernel"
)

const stuckVariable = "PORTWATCHER_TEST_STUCK"

// stuck is a command that the first signal stops, and that never ends.
func stuck() {
	ctx := untilSignal()
	fmt.Println("runs")
	<-ctx.Done()
	fmt.Println("stops")
	select {}
}

func TestMain(m *testing.M) {
	if os.Getenv(stuckVariable) != "" {
		stuck()
	}
	os.Exit(m.Run())
}

// A second signal ends a process that does not end by the first, also where
// nobody reads its standard error.
func TestSecondSignalEndsTheProcess(t *testing.T) {
	for _, test := range []struct {
		first, second syscall.Signal
		status        int
		unread        bool
	}{
		{syscall.SIGINT, syscall.SIGINT, 130, false},
		{syscall.SIGTERM, syscall.SIGTERM, 143, false},
		{syscall.SIGTERM, syscall.SIGINT, 130, true},
	} {
		t.Run(fmt.Sprintf("%v and %v", test.first, test.second), func(t *testing.T) {
			var complaints strings.Builder
			child := exec.Command("/proc/self/exe")
			child.Env = append(os.Environ(), stuckVariable+"=1")
			child.Stderr = &complaints
			if test.unread {
				child.Stderr = fullPipe(t)
			}
			output, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { kernel.End(t, child) })
			lines := bufio.NewScanner(output)
			next := func(line string, then syscall.Signal) {
				t.Helper()
				if !lines.Scan() || lines.Text() != line {
					t.Fatalf("the process writes %q, want %s", lines.Text(), line)
				}
				if err := child.Process.Signal(then); err != nil {
					t.Fatal(err)
				}
			}
			next("runs", test.first)
			next("stops", test.second)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = child.Wait() // the status is judged below
			}()
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				_ = child.Process.Kill() // it may have ended meanwhile
				<-ended
				t.Fatal("the process has not ended")
			}
			if status := child.ProcessState.ExitCode(); status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			if text := complaints.String(); !test.unread && (strings.Count(text, "\n") != 1 || !strings.Contains(text, "lost")) {
				t.Errorf("standard error is %q, want one line that names what is lost", text)
			}
		})
	}
}

// fullPipe returns the writing end of a pipe that has no room and no reader.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(ends[1], true); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := syscall.Write(ends[1], make([]byte, 4096)); errors.Is(err, syscall.EAGAIN) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.SetNonblock(ends[1], false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(ends[0]) })
	w := os.NewFile(uintptr(ends[1]), "full pipe")
	t.Cleanup(func() { w.Close() })
	return w
}
