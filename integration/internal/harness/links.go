package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DetachLinks takes the eBPF programs of portwatcher off their cgroup, as an
// administrator's bpftool would, and returns how many. Only links that its own
// process holds are touched.
func (w *Watch) DetachLinks(t testing.TB) int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", w.PID()))
	if err != nil {
		t.Fatal(err)
	}
	detached := 0
	for _, file := range files {
		info, err := os.ReadFile(file)
		if err != nil {
			continue // closed since
		}
		if id, found := cgroupLink(string(info)); found {
			if err := detach(id); err != nil {
				t.Fatalf("detach eBPF link %d of process %d: %v", id, w.PID(), err)
			}
			detached++
		}
	}
	return detached
}

// cgroupLink reads the id of a link to a cgroup from /proc/<pid>/fdinfo/<fd>.
// Layout: bpf_link_show_fdinfo in kernel/bpf/syscall.c.
func cgroupLink(info string) (id uint32, found bool) {
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch name {
		case "link_type":
			found = value == "cgroup"
		case "link_id":
			if _, err := fmt.Sscan(value, &id); err != nil {
				return 0, false
			}
		}
	}
	return id, found && id != 0
}

// detach is bpf(BPF_LINK_DETACH) on the link with this id.
func detach(id uint32) error {
	// The beginning of union bpf_attr for both commands is one number.
	// Source: include/uapi/linux/bpf.h.
	attributes := [16]uint32{id}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_GET_FD_BY_ID,
		uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	if errno != 0 {
		return fmt.Errorf("get a descriptor: %w", errno)
	}
	attributes = [16]uint32{uint32(fd)}
	_, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_DETACH,
		uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	if err := unix.Close(int(fd)); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}
