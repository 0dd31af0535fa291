package attribute

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/procfs"
)

// Bounds on the cgroups that are remembered: maxPaths is far more than a host has.
const (
	maxPaths   = 1 << 16
	maxUnknown = 4096
)

// Cgroups finds the path of a cgroup by its id: the inode of its folder in the v2
// hierarchy. It is safe for concurrent use.
type Cgroups struct {
	root string // of the v2 hierarchy
	// noHandles is set when folders cannot be opened by their id: the hierarchy is
	// walked instead.
	noHandles atomic.Bool
	walks     walks

	mutex   sync.Mutex // guards the maps
	paths   map[uint64]string
	unknown map[uint64]struct{} // cgroups that do not exist: an id is never used again
}

// OpenCgroups opens the v2 hierarchy that [procfs.CgroupRoot] finds at root.
func OpenCgroups(root string) (*Cgroups, error) {
	root, err := procfs.CgroupRoot(root)
	if err != nil {
		return nil, fmt.Errorf("%w (mount the host's /sys/fs/cgroup read-only); containers that share a namespace are distinguished by their processes alone", err)
	}
	return newCgroups(root), nil
}

func newCgroups(root string) *Cgroups {
	return &Cgroups{root: root, paths: map[uint64]string{}, unknown: map[uint64]struct{}{}, walks: walks{now: time.Now}}
}

// Known returns the remembered path of a cgroup, without I/O. ok is false where nothing
// is remembered; path is empty for a cgroup that does not exist.
func (c *Cgroups) Known(id uint64) (path string, ok bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if path, ok := c.paths[id]; ok {
		return path, true
	}
	_, ok = c.unknown[id]
	return "", ok
}

// Path returns the folder of a cgroup below the root, with a leading slash; found
// is false for a cgroup that does not exist. A cgroup that is not remembered costs
// four system calls.
//
// Without CAP_DAC_READ_SEARCH it needs a walk of the hierarchy. Callers that come
// during a walk wait for it and share it, and the time between walks grows as long
// as they find nothing: a caller that comes before the next walk is due gets found
// false, and may call again later. The error is that of a walk, or of opening a
// folder by its id.
func (c *Cgroups) Path(id uint64) (path string, found bool, err error) {
	if path, ok := c.Known(id); ok {
		return path, path != "", nil
	}
	if !c.noHandles.Load() {
		path, found, err = c.byHandle(id)
		if err == nil {
			c.remember(id, path)
			return path, found, nil
		}
		if !cannotOpenByHandle(err) {
			return "", false, fmt.Errorf("find cgroup %d: %w", id, err)
		}
		c.noHandles.Store(true)
	}
	return c.byWalk(id)
}

// remember keeps the path of a cgroup; an empty one is that of a cgroup that does
// not exist.
func (c *Cgroups) remember(id uint64, path string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if path == "" {
		if len(c.unknown) >= maxUnknown {
			clear(c.unknown)
		}
		c.unknown[id] = struct{}{}
		return
	}
	if len(c.paths) >= maxPaths {
		clear(c.paths)
	}
	c.paths[id] = path
}

// cannotOpenByHandle reports whether an error of [Cgroups.byHandle] comes from a
// missing right, a seccomp profile or an old kernel, so that later calls fail too.
func cannotOpenByHandle(err error) bool {
	for _, errno := range []unix.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EOPNOTSUPP, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errors.Is(err, errElsewhere)
}

// errElsewhere reports a hierarchy that is mounted in a way that hides where its
// folders are.
var errElsewhere = errors.New("the folder is not below the root")

// handleType is FILEID_KERNFS in include/linux/exportfs.h: the handle of a
// cgroup's folder is its id.
const handleType = 0xfe

// byHandle opens the folder by its id, which needs CAP_DAC_READ_SEARCH, and reads
// its path. A cgroup that does not exist is no error.
func (c *Cgroups) byHandle(id uint64) (path string, found bool, err error) {
	root, err := unix.Open(c.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false, err
	}
	defer unix.Close(root)
	handle := unix.NewFileHandle(handleType, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(root, handle, unix.O_RDONLY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ESTALE) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer unix.Close(fd)
	path, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", false, err
	}
	below, ok := strings.CutPrefix(path, strings.TrimSuffix(c.root, "/"))
	if !ok {
		return "", false, fmt.Errorf("%s: %w %s", path, errElsewhere, c.root)
	}
	return "/" + strings.TrimPrefix(below, "/"), true, nil
}
