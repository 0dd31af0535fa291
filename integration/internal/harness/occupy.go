package harness

import (
	"os/exec"
	"syscall"
	"testing"
)

// Occupy has so many loops take processor time until the test ends; each at most 5
// minutes of it.
func Occupy(t testing.TB, loops int) {
	t.Helper()
	for range loops {
		loop := exec.Command("sh", "-c", "ulimit -t 300; while :; do :; done")
		loop.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // for an interrupt of the tests
		if err := loop.Start(); err != nil {
			t.Fatal(err)
		}
		running.Store(loop.Process.Pid, true)
		t.Cleanup(func() {
			_ = loop.Process.Kill()
			_ = loop.Wait() // says that it was killed
			running.Delete(loop.Process.Pid)
		})
	}
}
