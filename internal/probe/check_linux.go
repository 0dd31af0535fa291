package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"portwatcher/internal/procfs"
)

const remedyCgroup = "mount the host's /sys/fs/cgroup into the container at the same place, read-only"

// findCgroupRoot returns the root of the host's cgroup v2 hierarchy.
//
// A container with a cgroup namespace of its own sees its own cgroup as the root of a
// cgroup2 mount. Programs there would run for one container only, so that is an error:
// only the real root lacks cgroup.type. Source:
// Documentation/admin-guide/cgroup-v2.rst.
func findCgroupRoot(dir string) (string, error) {
	root, err := procfs.CgroupRoot(dir)
	if err == nil {
		if _, err = os.Stat(filepath.Join(root, "cgroup.type")); errors.Is(err, fs.ErrNotExist) {
			return root, nil
		}
		if err == nil {
			err = fmt.Errorf("%s is the cgroup of one container, not the root", root)
		}
	}
	return "", &UnsupportedError{"cgroup v2 hierarchy", remedyCgroup, err}
}

// checkKernel checks what every program needs. It returns the kernel's types, which take
// megabytes: release them after loading.
func checkKernel() (*btf.Cache, error) {
	if err := checkRights(); err != nil {
		return nil, err
	}
	types := btf.NewCache()
	if _, err := types.Kernel(); err != nil {
		return nil, unsupported("kernel BTF (/sys/kernel/btf/vmlinux)", err)
	}
	return types, nil
}

// checkRights checks this process's rights before anything else: without them the
// kernel's errors are those of a kernel that is too old.
func checkRights() error {
	effective, err := Capabilities()
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range []struct {
		name  string
		value uint
	}{
		{"CAP_BPF", unix.CAP_BPF}, {"CAP_PERFMON", unix.CAP_PERFMON}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	} {
		if effective&(1<<c.value) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 && effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return unsupported("eBPF", fmt.Errorf("no %s: %w", strings.Join(missing, ", no "), unix.EPERM))
	}
	if err := raiseMemlock(); err != nil {
		return unsupported("the memory of eBPF", err)
	}
	// A seccomp profile or a user namespace refuses even the simplest map.
	trial, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return unsupported("bpf(2)", err)
	}
	return trial.Close()
}

// Capabilities returns the effective capabilities of this process, a bit for each.
// Source: capget(2).
func Capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return 0, fmt.Errorf("read this process's capabilities: %w", err)
	}
	return uint64(sets[1].Effective)<<32 | uint64(sets[0].Effective), nil
}

// raiseMemlock removes the limit of locked memory before Linux 5.11, where eBPF counts
// against it. Importing rlimit of cilium/ebpf would do that in every process that
// imports it.
func raiseMemlock() error {
	release, err := KernelRelease()
	if err != nil || !OlderThan(release, 5, 11) {
		return err
	}
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("raise RLIMIT_MEMLOCK: %w", err)
	}
	return nil
}

// KernelRelease returns the release of the running kernel, such as 5.10.0-28-amd64.
// Source: uname(2).
func KernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("read the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// OlderThan reports whether a kernel's release is older than major.minor. One that cannot
// be parsed is not.
func OlderThan(release string, major, minor int) bool {
	var haveMajor, haveMinor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &haveMajor, &haveMinor); n != 2 {
		return false
	}
	return haveMajor < major || haveMajor == major && haveMinor < minor
}
