package kernel

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// exitMainThread in the environment makes a test's program the process of [Mainless].
const exitMainThread = "PORTWATCHER_TEST_EXIT_MAIN_THREAD"

// init runs on the main thread.
func init() {
	if os.Getenv(exitMainThread) == "" {
		return
	}
	go func() {
		time.Sleep(10 * time.Minute) // it is killed before
		os.Exit(1)
	}()
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // of this thread; it does not return
}

// Mainless starts a process whose main thread has exited while others live on, and that
// holds files. Its argument is --of-a-thread. It ends with the test, or by [End].
func Mainless(t testing.TB, files ...*os.File) *exec.Cmd {
	t.Helper()
	command := exec.Command("/proc/self/exe", "--of-a-thread")
	command.Env = append(os.Environ(), exitMainThread+"=1")
	command.ExtraFiles = files
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { End(t, command) })
	Eventually(t, "the main thread has exited", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(command.Process.Pid) + "/stat")
		return err == nil && strings.Contains(string(stat), ") Z ")
	})
	return command
}
