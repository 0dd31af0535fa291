package attribute

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup2 reports that no cgroup v2 hierarchy is visible.
var ErrNoCgroup2 = errors.New("no cgroup v2 hierarchy is visible (mount the host's /sys/fs/cgroup read-only); containers that share a namespace are distinguished by their processes alone")

// Bounds on the cgroups that are remembered: of those found, far more than there
// are on a host at one time.
const (
	maxPaths   = 1 << 16
	maxUnknown = 4096
)

// Cgroups finds the path of a cgroup by its id: the inode of its folder in the v2
// hierarchy. It is safe for concurrent use.
type Cgroups struct {
	root string // of the v2 hierarchy
	// noHandles is set once folders cannot be opened by their id, so that the
	// hierarchy is walked instead.
	noHandles atomic.Bool

	mutex   sync.Mutex // guards what follows, for map operations alone
	paths   map[uint64]string
	unknown map[uint64]struct{} // cgroups that do not exist: an id is never used again
	walks   walks
}

// OpenCgroups opens the v2 hierarchy at root, or at root/unified on a hybrid host.
// The error wraps [ErrNoCgroup2] if neither is one.
func OpenCgroups(root string) (*Cgroups, error) {
	for _, candidate := range []string{root, filepath.Join(root, "unified")} {
		var st unix.Statfs_t
		if err := unix.Statfs(candidate, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return newCgroups(candidate), nil
		}
	}
	return nil, fmt.Errorf("%s: %w", root, ErrNoCgroup2)
}

func newCgroups(root string) *Cgroups {
	return &Cgroups{root: root, paths: map[uint64]string{}, unknown: map[uint64]struct{}{}, walks: walks{now: time.Now}}
}

// Root returns the folder of the v2 hierarchy.
func (c *Cgroups) Root() string { return c.root }

// Known returns what is remembered of a cgroup, without I/O. ok is false where
// nothing is; path is empty for a cgroup that is known not to exist.
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
// Without CAP_DAC_READ_SEARCH it takes a walk of the hierarchy. Callers that come
// during a walk wait for it and share it, and the time between walks grows as long
// as they find nothing: a caller that comes before the next walk is due gets found
// false, and may ask again later. The error is that of a walk, or of what is
// missing to open a folder.
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
	switch {
	case path == "":
		if len(c.unknown) >= maxUnknown {
			clear(c.unknown)
		}
		c.unknown[id] = struct{}{}
	default:
		if len(c.paths) >= maxPaths {
			clear(c.paths)
		}
		c.paths[id] = path
	}
}

// cannotOpenByHandle returns whether an error of [Cgroups.byHandle] comes from a
// missing right, a seccomp profile or an old kernel: then it will not work later.
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

// byHandle opens the folder by its id, which takes CAP_DAC_READ_SEARCH, and reads
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
