package attribute

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"portwatcher/internal/procfs"
	"portwatcher/internal/testutil/kernel"
)

// sleeper starts a process that does nothing, and is ended with the test.
func sleeper(t testing.TB) *exec.Cmd {
	t.Helper()
	command := exec.Command("sleep", "1000")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended
		_ = command.Wait()
	})
	// It has its name only after exec.
	kernel.Eventually(t, "the process is sleep", func() bool {
		return procfs.Describe("/proc", command.Process.Pid).Name == "sleep"
	})
	return command
}

func changed(t *testing.T, l *Lives, details bool, recorded ...Recorded) []int {
	t.Helper()
	pids, err := l.Changed(nil, recorded, details)
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

func expectPIDs(t *testing.T, what string, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v changed, want %v", what, got, want)
	}
}

func TestLivesOfRealProcesses(t *testing.T) {
	l := NewLives("/proc")
	a, b := sleeper(t), sleeper(t)
	both := []Recorded{{b.Process.Pid, "sleep"}, {a.Process.Pid, "sleep"}}
	expectPIDs(t, "both live", changed(t, l, true, both...))
	expectPIDs(t, "both live on", changed(t, l, false, both...))
	if err := a.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	kernel.Eventually(t, "the process has ended", func() bool {
		return procfs.Exited(filepath.Join("/proc", strconv.Itoa(a.Process.Pid)))
	})
	expectPIDs(t, "one is a zombie", changed(t, l, false, both...))
	expectPIDs(t, "one is a zombie, with details", changed(t, l, true, both...), a.Process.Pid)
	expectPIDs(t, "returned before", changed(t, l, true, both...))
	_ = a.Wait() // it was killed
	expectPIDs(t, "the zombie is gone", changed(t, l, true, both...))
	if err := b.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = b.Wait()
	expectPIDs(t, "the other is gone", changed(t, l, false, both...), b.Process.Pid)
	expectPIDs(t, "returned before", changed(t, l, false, both...))
	if !procfs.Ending("/proc", b.Process.Pid) || procfs.Ending("/proc", os.Getpid()) {
		t.Error("a process that is gone has ended, this one has not")
	}
}

func TestLivesAfterExec(t *testing.T) {
	l := NewLives("/proc")
	command := exec.Command("sh", "-c", "read line; exec sleep 1000")
	stdin, err := command.StdinPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	pid := command.Process.Pid
	named := func(name string) func() bool {
		return func() bool { return procfs.Describe("/proc", pid).Name == name }
	}
	kernel.Eventually(t, "the shell runs", named("sh"))
	expectPIDs(t, "as recorded", changed(t, l, true, Recorded{pid, "sh"}))
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	kernel.Eventually(t, "the shell has become sleep", named("sleep"))
	expectPIDs(t, "its folder is the same", changed(t, l, false, Recorded{pid, "sh"}))
	expectPIDs(t, "with details", changed(t, l, true, Recorded{pid, "sh"}), pid)
	expectPIDs(t, "returned before, and recorded", changed(t, l, true, Recorded{pid, "sleep"}))
}

// processFolder makes the folder of a process.
func processFolder(t *testing.T, root string, pid int, name string, start int) {
	t.Helper()
	folder := filepath.Join(root, strconv.Itoa(pid))
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	text := strconv.Itoa(pid) + " (" + name + ") S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 " + strconv.Itoa(start) + " 8192 1\n"
	if err := os.WriteFile(filepath.Join(folder, "stat"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLivesOfReusedPID(t *testing.T) {
	root := t.TempDir()
	l := NewLives(root)
	processFolder(t, root, 7, "nginx", 100)
	recorded := Recorded{7, "nginx"}
	expectPIDs(t, "as recorded", changed(t, l, true, recorded))
	// Beside the old one, so that the folder is not the same inode by chance.
	if err := os.Rename(filepath.Join(root, "7"), filepath.Join(root, "old")); err != nil {
		t.Fatal(err)
	}
	processFolder(t, root, 7, "nginx", 200)
	expectPIDs(t, "another of the same name", changed(t, l, false, recorded), 7)
	expectPIDs(t, "returned before", changed(t, l, false, recorded))
}

// The folder in /proc may be another although the process is the same: the
// kernel forgets it when it needs the memory.
func TestLivesOfForgottenFolder(t *testing.T) {
	root := t.TempDir()
	l := NewLives(root)
	processFolder(t, root, 7, "nginx", 100)
	expectPIDs(t, "as recorded", changed(t, l, false, Recorded{7, "nginx"}))
	if err := os.Rename(filepath.Join(root, "7"), filepath.Join(root, "old")); err != nil {
		t.Fatal(err)
	}
	processFolder(t, root, 7, "nginx", 100)
	expectPIDs(t, "the same process", changed(t, l, false, Recorded{7, "nginx"}))
}

func TestLivesAtTheFirstCall(t *testing.T) {
	root := t.TempDir()
	l := NewLives(root)
	processFolder(t, root, 7, "a) (b", 100)
	processFolder(t, root, 8, "server", 100)
	processFolder(t, root, 9, "worker", 100)
	first := []Recorded{{7, "a) (b"}, {8, "launcher"}, {8, "server"}, {9, "worker"}, {9, "helper"}, {10, "gone"}}
	expectPIDs(t, "renamed, recorded under two names, gone", changed(t, l, false, slices.Clone(first)...), 8, 9, 10)
	expectPIDs(t, "returned before", changed(t, l, true, slices.Clone(first)...))
	expectPIDs(t, "nobody", changed(t, l, false))
	if len(l.known) != 0 {
		t.Errorf("%d processes are remembered that are not in the list", len(l.known))
	}
}

func TestLivesWithoutProc(t *testing.T) {
	root := filepath.Join(t.TempDir(), "nothing")
	if _, err := NewLives(root).Changed(nil, nil, false); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), root) {
		t.Errorf("error %v; want one that names the folder", err)
	}
	if procfs.Ending(t.TempDir(), 7) != true {
		t.Error("a process that is not there has ended")
	}
}

// A file that cannot be parsed proves nothing.
func TestLivesOfDamagedProcess(t *testing.T) {
	root := t.TempDir()
	l := NewLives(root)
	processFolder(t, root, 7, "nginx", 100)
	expectPIDs(t, "as recorded", changed(t, l, true, Recorded{7, "nginx"}))
	if err := os.WriteFile(filepath.Join(root, "7/stat"), []byte("7 (nginx) S 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	expectPIDs(t, "a known one", changed(t, l, true, Recorded{7, "nginx"}))
	expectPIDs(t, "a new one", changed(t, NewLives(root), true, Recorded{7, "nginx"}))
}

func TestLivesAllocateNothing(t *testing.T) {
	l := NewLives("/proc")
	recorded := []Recorded{{os.Getpid(), procfs.Describe("/proc", os.Getpid()).Name}, {1, procfs.Describe("/proc", 1).Name}}
	var pids []int
	var err error
	allocations := testing.AllocsPerRun(100, func() { pids, err = l.Changed(pids[:0], recorded, false) })
	// Checking the root copies its path.
	if err != nil || len(pids) > 0 || allocations > 1 {
		t.Errorf("%v allocations, %v changed, error %v; want 1 at most, none", allocations, pids, err)
	}
}

// BenchmarkLives is a check of the processes that hold ports.
func BenchmarkLives(b *testing.B) {
	for name, details := range map[string]bool{"folders": false, "details": true} {
		b.Run(name, func(b *testing.B) {
			var recorded []Recorded
			for range 100 {
				recorded = append(recorded, Recorded{sleeper(b).Process.Pid, "sleep"})
			}
			l := NewLives("/proc")
			b.ReportAllocs()
			for b.Loop() {
				if pids, err := l.Changed(nil, recorded, details); err != nil || len(pids) > 0 {
					b.Fatal(pids, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(recorded)), "ns/process")
		})
	}
}
