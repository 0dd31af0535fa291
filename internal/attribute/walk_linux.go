package attribute

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/singleflight"
)

// The time from the end of a walk to the next: a walk takes walkShare of the time
// at most, and the time doubles with each walk that does not find the cgroup.
const (
	shortestPause = 50 * time.Millisecond
	longestPause  = 10 * time.Second
	walkShare     = 20 // one part of so many
)

// walks is the state of the walks of a hierarchy. The walk under way owns pause and due.
type walks struct {
	now   func() time.Time
	group singleflight.Group
	pause time.Duration
	due   time.Time // of the next
}

// byWalk is [Cgroups.Path] where folders cannot be opened by their id.
func (c *Cgroups) byWalk(id uint64) (path string, found bool, err error) {
	_, err, _ = c.walks.group.Do("", func() (any, error) { return nil, c.walk(id) })
	path, _ = c.Known(id)
	return path, path != "", err
}

// walk reads the hierarchy if that is due. If it does not find the cgroup, the cgroup
// does not exist: the caller got its id before the walk began.
func (c *Cgroups) walk(id uint64) error {
	w := &c.walks
	begin := w.now()
	if begin.Before(w.due) {
		return nil
	}
	paths, err := readHierarchy(c.root)
	end := w.now()
	_, found := paths[id]
	if w.pause = min(max(2*w.pause, shortestPause), longestPause); found {
		w.pause = shortestPause
	}
	w.due = end.Add(max(w.pause, walkShare*end.Sub(begin)))
	if err != nil {
		return err
	}
	c.mutex.Lock()
	c.paths = paths // removed cgroups are forgotten
	c.mutex.Unlock()
	if !found {
		c.remember(id, "")
	}
	return nil
}

// readHierarchy returns the path of each cgroup below root by its id.
func readHierarchy(root string) (map[uint64]string, error) {
	paths := map[uint64]string{}
	removed := func(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) }
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case removed(err) && path != root:
			return nil
		case err != nil:
			return err
		case !entry.IsDir():
			return nil
		}
		info, err := entry.Info()
		if removed(err) {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			paths[st.Ino] = "/" + filepath.ToSlash(path[min(len(root)+1, len(path)):])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the cgroups below %s: %w", root, err)
	}
	return paths, nil
}
