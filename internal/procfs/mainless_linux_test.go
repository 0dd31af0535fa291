package procfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// The main thread of a process has exited, and other threads live on.
func TestProcessWithoutMainThread(t *testing.T) {
	pid := kernel.Mainless(t).Process.Pid
	own := Describe("/proc", os.Getpid())
	if p := Describe("/proc", pid); p.Executable != own.Executable || p.UID == nil || *p.UID != *own.UID || p.ContainerPID == 0 || p.Name == "" {
		t.Errorf("process %+v; want executable and uid of %+v", p, own)
	}
	if Ending("/proc", pid) {
		t.Error("the process counts as ended")
	}
	if mounts, err := ReadFile("/proc", pid, "mountinfo"); err != nil || len(mounts) == 0 {
		t.Errorf("mountinfo of %d bytes, error %v", len(mounts), err)
	}
	if _, err := Read(nil, "/proc", pid, Range{}); err != nil {
		t.Errorf("sockets: %v", err)
	}
	if _, err := Connections("/proc", pid); err != nil {
		t.Errorf("connections: %v", err)
	}
	if _, err := EphemeralPorts("/proc", pid); err != nil {
		t.Errorf("ephemeral ports: %v", err)
	}
	counter, err := OpenCounter("/proc", pid)
	if err != nil {
		t.Fatal(err)
	}
	defer counter.Close()
	if _, err := counter.Read(); err != nil {
		t.Errorf("count: %v", err)
	}
}

// What the kernel shows of the main thread then: the name counts, the cgroups and the user
// do not.
func TestLivingThreadCounts(t *testing.T) {
	root := t.TempDir()
	write := func(folder string, files map[string]string) {
		folder = filepath.Join(root, folder)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	const rest = " 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 8192 1"
	zombie := map[string]string{
		"stat": "7 (server) Z" + rest, "cgroup": "1:cpu:/\n", "status": "Name:\tserver\nUid:\t0\t0\t0\t0\nNStgid:\t7\t1\n",
	}
	write("7", zombie)
	write("7/task/7", zombie)
	write("7/task/8", map[string]string{"stat": "8 (gone) Z" + rest, "cgroup": "1:cpu:/\n"})
	write("7/task/9", map[string]string{
		"stat": "9 (worker) S" + rest, "cgroup": "1:cpu:/docker/a\n", "status": "Name:\tworker\nUid:\t33\t33\t33\t33\nNStgid:\t7\t1\nNSpid:\t9\t3\n",
	})
	if err := os.Symlink("/bin/server", filepath.Join(root, "7/task/9/exe")); err != nil {
		t.Fatal(err)
	}
	p := Describe(root, 7)
	if p.UID == nil || *p.UID != 33 {
		t.Errorf("user id %v, want the thread's, 33", p.UID)
	}
	p.UID = nil
	if want := (model.Process{PID: 7, ContainerPID: 1, Name: "server", Executable: "/bin/server"}); p != want {
		t.Errorf("process %+v, want %+v", p, want)
	}
	if cgroups, err := ReadCgroups(root, 7); err != nil || !strings.Contains(string(cgroups), "/docker/a") {
		t.Errorf("cgroups %q, error %v; want the thread's", cgroups, err)
	}
	if stat, err := ReadStat(root, 7); err != nil || stat.Ending() || string(stat.Name) != "server" || stat.Start != 100 {
		t.Errorf("state %+v, error %v; want a living server", stat, err)
	}
}
