package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/truth"
)

// What a container of another engine opens and closes is of no container here, however
// much it is: no event and no gap.
func TestOtherEngine(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	folder := podmanCgroup(t)
	own := idle(t, "own")
	recording := harness.StartRecording(t, harness.Pattern(t), "--source", ebpf)
	mark(t, recording, own, 1000)
	// With and without a network namespace of its own.
	for _, flags := range []uintptr{syscall.CLONE_NEWNET, 0} {
		other := exec.Command(harness.Workload(t), "storm", "--protocol", "udp", "--address", "0.0.0.0", "--count", "15000", "--port", "20099")
		group, err := os.Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer group.Close()
		other.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd()), Cloneflags: flags}
		if output, err := other.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", other.Args, err, output)
		}
	}
	mark(t, recording, own, 1001)
	recording.Finish(t, func(e truth.Event) {
		if e.Type != "opened" && e.Type != "closed" || e.Container.ID != own.ID || e.Port != 1000 && e.Port != 1001 {
			t.Errorf("reported: %s", e.Line)
		}
	})
}

// podmanCgroup makes a cgroup such as Podman makes for a container, and returns its
// folder.
func podmanCgroup(t *testing.T) string {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "unified", "cgroup.procs")); err == nil {
		root = filepath.Join(root, "unified") // a hybrid host
	}
	folder := filepath.Join(root, fmt.Sprintf("libpod-%s.scope", strings.Repeat("5e", 32)))
	if err := os.Mkdir(folder, 0o755); err != nil {
		harness.Unavailable(t, "needs to make a cgroup: "+err.Error())
	}
	t.Cleanup(func() {
		if err := os.Remove(folder); err != nil {
			t.Error(err)
		}
	})
	return folder
}
