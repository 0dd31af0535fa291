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
)

const remedyCgroup = "mount the host's /sys/fs/cgroup into the container at the same place, read-only"

// findCgroupRoot returns the root of the host's cgroup v2 hierarchy, at or one
// level below dir.
//
// A container that has its own cgroup namespace sees its own cgroup as the root
// of a cgroup2 mount. Programs there would work and see one container only, so
// that is an error: what the real root lacks, cgroup.type, tells them apart.
// Source: Documentation/admin-guide/cgroup-v2.rst.
func findCgroupRoot(dir string) (string, error) {
	if dir == "" {
		dir = "/sys/fs/cgroup"
	}
	for _, root := range []string{dir, filepath.Join(dir, "unified")} {
		var st unix.Statfs_t
		if err := unix.Statfs(root, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		switch _, err := os.Stat(filepath.Join(root, "cgroup.type")); {
		case errors.Is(err, fs.ErrNotExist):
			return root, nil
		case err != nil:
			return "", &UnsupportedError{"cgroup v2 hierarchy", remedyCgroup, err}
		}
		return "", &UnsupportedError{"cgroup v2 hierarchy", remedyCgroup,
			fmt.Errorf("%s is the cgroup of one container, not the root", root)}
	}
	return "", &UnsupportedError{"cgroup v2 hierarchy", remedyCgroup,
		fmt.Errorf("no cgroup2 file system at %s or %s", dir, filepath.Join(dir, "unified"))}
}

// checkKernel checks what every program needs. It returns the kernel's types; they
// take megabytes and are to be let go after loading.
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

// checkRights looks at this process's rights before anything else: what the
// kernel answers without them reads like a kernel that is too old.
func checkRights() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	has := func(capability int) bool {
		return sets[capability/32].Effective&(1<<(capability%32)) != 0
	}
	var missing []string
	for _, c := range []struct {
		name  string
		value int
	}{
		{"CAP_BPF", unix.CAP_BPF}, {"CAP_PERFMON", unix.CAP_PERFMON}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	} {
		if !has(c.value) {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 && !has(unix.CAP_SYS_ADMIN) {
		return unsupported("eBPF", fmt.Errorf("no %s: %w", strings.Join(missing, ", no "), unix.EPERM))
	}
	if err := raiseMemlock(); err != nil {
		return unsupported("the memory of eBPF", err)
	}
	// The simplest map: what refuses it is a seccomp profile, or a user namespace.
	trial, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return unsupported("bpf(2)", err)
	}
	return trial.Close()
}

// raiseMemlock lifts the limit of locked memory where eBPF counts against it:
// before Linux 5.11, and in the backports that some distributions have there. The
// function of that name in cilium/ebpf tries this in every process that imports
// it, when it starts.
func raiseMemlock() error {
	release, err := kernelRelease()
	if err != nil {
		return err
	}
	if !olderThan(release, 5, 11) {
		return nil
	}
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("raise RLIMIT_MEMLOCK: %w", err)
	}
	return nil
}

// kernelRelease returns what uname -r prints.
func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("read the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// olderThan says whether a kernel's release, such as 5.10.0-28-amd64, is of before
// major.minor. One that cannot be read is not.
func olderThan(release string, major, minor int) bool {
	var haveMajor, haveMinor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &haveMajor, &haveMinor); n != 2 {
		return false
	}
	return haveMajor < major || haveMajor == major && haveMinor < minor
}
