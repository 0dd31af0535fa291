package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"portwatcher/internal/port"
)

// ErrNoCgroup2 says that no cgroup v2 hierarchy is visible.
var ErrNoCgroup2 = errors.New("no cgroup v2 hierarchy is visible (mount the host's /sys/fs/cgroup read-only); containers that share a namespace are told apart by their processes alone")

// maxUnknown bounds what is remembered of cgroups that were not found.
const maxUnknown = 4096

// Cgroups finds the path of a cgroup by its id: the inode of its folder in the
// v2 hierarchy. It is safe for concurrent use.
type Cgroups struct {
	root string // of the v2 hierarchy

	mutex   sync.Mutex
	paths   map[uint64]string
	unknown map[uint64]struct{}
}

// OpenCgroups looks for the v2 hierarchy at root, or at root/unified on a
// hybrid host. The error wraps [ErrNoCgroup2] if neither is one.
func OpenCgroups(root string) (*Cgroups, error) {
	for _, candidate := range []string{root, filepath.Join(root, "unified")} {
		var st unix.Statfs_t
		if err := unix.Statfs(candidate, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return &Cgroups{root: candidate, paths: map[uint64]string{}, unknown: map[uint64]struct{}{}}, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", root, ErrNoCgroup2)
}

// Root returns the folder of the v2 hierarchy.
func (c *Cgroups) Root() string { return c.root }

// Path returns the folder of a cgroup below the root, with a leading slash. A
// cgroup met for the first time costs three system calls, or one walk of the
// hierarchy where those are not allowed.
func (c *Cgroups) Path(id uint64) (string, bool, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if path, ok := c.paths[id]; ok {
		return path, true, nil
	}
	if _, ok := c.unknown[id]; ok {
		return "", false, nil
	}
	path, ok, err := c.byHandle(id)
	if err != nil { // not allowed, or not to be had on this kernel
		if err := c.walk(); err != nil {
			return "", false, err
		}
		path, ok = c.paths[id]
	}
	if ok {
		c.remember(id, path)
	} else {
		if len(c.unknown) >= maxUnknown {
			clear(c.unknown)
		}
		c.unknown[id] = struct{}{}
	}
	return path, ok, nil
}

// maxPaths bounds what is remembered of cgroups that were found: far more than
// there are on a host at one time.
const maxPaths = 1 << 16

func (c *Cgroups) remember(id uint64, path string) {
	if len(c.paths) >= maxPaths {
		clear(c.paths)
	}
	c.paths[id] = path
}

// handleType is FILEID_KERNFS in include/linux/exportfs.h: the handle of a
// cgroup's folder is its id.
const handleType = 0xfe

// byHandle opens the folder by its id, which takes CAP_DAC_READ_SEARCH, and asks
// for its path. A cgroup that is gone is not found, and no error.
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
		return "", false, fmt.Errorf("cgroup %d is at %s, not below %s", id, path, c.root)
	}
	return "/" + strings.TrimPrefix(below, "/"), true, nil
}

// walk reads the whole hierarchy anew, so that what is gone is forgotten.
func (c *Cgroups) walk() error {
	paths := make(map[uint64]string, len(c.paths)+16)
	err := filepath.WalkDir(c.root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !entry.IsDir():
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			paths[st.Ino] = "/" + filepath.ToSlash(path[min(len(c.root)+1, len(path)):])
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the cgroups below %s: %w", c.root, err)
	}
	c.paths = paths
	return nil
}

// containerIn returns the innermost known container whose id stands in a
// cgroup path, or in a whole /proc/<pid>/cgroup: engines name a container's
// cgroup by its id ("/docker/<id>", "docker-<id>.scope"). Where only ids of
// containers stand there that are not known (yet), stranger is true.
func containerIn(paths string, lookup func(id string) *port.Container) (found *port.Container, stranger bool) {
	const idLength = 64
	run := 0
	for i := 0; i <= len(paths); i++ {
		if i < len(paths) && isHex(paths[i]) {
			run++
			continue
		}
		if run == idLength {
			if c := lookup(paths[i-idLength : i]); c != nil {
				found = c
			} else {
				stranger = true
			}
		}
		run = 0
	}
	return found, stranger && found == nil
}

func isHex(b byte) bool { return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' }
