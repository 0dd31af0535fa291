package procfs

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CgroupRoot returns the root of the cgroup v2 hierarchy: folder, or folder/unified on a
// host that has v1 too. An empty folder is /sys/fs/cgroup. In a private cgroup namespace
// the root is the container's own cgroup.
func CgroupRoot(folder string) (string, error) {
	if folder == "" {
		folder = "/sys/fs/cgroup"
	}
	unified := filepath.Join(folder, "unified")
	for _, root := range []string{folder, unified} {
		var st unix.Statfs_t
		if err := unix.Statfs(root, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return root, nil
		}
	}
	return "", fmt.Errorf("no cgroup v2 hierarchy is at %s or %s", folder, unified)
}
