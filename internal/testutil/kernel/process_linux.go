package kernel

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Isolated starts a process that does nothing in a network namespace of its own. It
// ends with the test, or by [End].
func Isolated(t testing.TB) *exec.Cmd {
	t.Helper()
	command := exec.Command("sleep", "600")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := command.Start()
	if errors.Is(err, os.ErrPermission) {
		Skip(t, "starting a process in its own network namespace needs root (CAP_SYS_ADMIN)")
	}
	if err != nil {
		t.Fatalf("start a process in its own network namespace: %v", err)
	}
	t.Cleanup(func() { End(t, command) })
	return command
}

// End kills a process and waits for it. A second call does nothing.
func End(t testing.TB, command *exec.Cmd) {
	t.Helper()
	if command.ProcessState != nil {
		return
	}
	if err := command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill process %d: %v", command.Process.Pid, err)
	}
	var killed *exec.ExitError
	if err := command.Wait(); err != nil && !errors.As(err, &killed) {
		t.Errorf("wait for process %d: %v", command.Process.Pid, err)
	}
}

// nobody is the user, and the group, without any rights.
const nobody = 65534

// Unprivileged returns a command that runs the program of this test as another user,
// without capabilities and environment. The caller may set the environment and starts
// it.
func Unprivileged(t testing.TB, arguments ...string) *exec.Cmd {
	t.Helper()
	RequireRoot(t, "become another user")
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// A place where another user may run it.
	path := filepath.Join(t.TempDir(), "test")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for folder := filepath.Dir(path); folder != os.TempDir() && folder != "/"; folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(path, arguments...)
	command.Dir = "/"
	command.Env = []string{}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return command
}

// Descriptors returns how many files this process has open.
func Descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
