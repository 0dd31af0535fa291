package attribute

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"
)

// The time from the end of a walk to the next: a walk takes walkShare of the time
// at most, and the time doubles with each walk that finds nobody's cgroup.
const (
	shortestPause = 50 * time.Millisecond
	longestPause  = 10 * time.Second
	walkShare     = 20 // one part of so many
)

// walks is the state of the walks of a hierarchy. The mutex of Cgroups guards it.
type walks struct {
	now   func() time.Time
	under *walk // the walk under way
	pause time.Duration
	due   time.Time // of the next
}

// walk is one walk. done is closed at its end, and then err is valid.
type walk struct {
	done chan struct{}
	err  error
}

// byWalk is [Cgroups.Path] where folders cannot be opened by their id.
func (c *Cgroups) byWalk(id uint64) (path string, found bool, err error) {
	c.mutex.Lock()
	w := c.walks.under
	switch {
	case w != nil: // it has begun before this cgroup was asked for
		c.mutex.Unlock()
		<-w.done
	case c.walks.now().Before(c.walks.due):
		c.mutex.Unlock()
		return "", false, nil
	default:
		w = &walk{done: make(chan struct{})}
		c.walks.under = w
		c.mutex.Unlock()
		c.run(w, id)
	}
	path, _ = c.Known(id)
	return path, path != "", w.err
}

// run walks for a caller that asks for a cgroup. If that is not found it does not
// exist: it did before the walk began.
func (c *Cgroups) run(w *walk, id uint64) {
	defer close(w.done)
	begin := c.walks.now()
	paths, err := readHierarchy(c.root)
	end := c.walks.now()

	c.mutex.Lock()
	if w.err = err; err == nil {
		c.paths = paths // what is gone is forgotten
	}
	_, found := c.paths[id]
	if c.walks.pause = min(max(2*c.walks.pause, shortestPause), longestPause); found {
		c.walks.pause = shortestPause
	}
	c.walks.due = end.Add(max(c.walks.pause, walkShare*end.Sub(begin)))
	c.walks.under = nil
	c.mutex.Unlock()
	if err == nil && !found {
		c.remember(id, "")
	}
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
