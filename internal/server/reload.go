package server

import (
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// checkInterval is the time between two looks at a file that may have changed.
const checkInterval = time.Second

// reloaded is what was read from files that may change. What cannot be read is
// logged once, and the last good value stays.
type reloaded[T any] struct {
	paths []string
	load  func() (T, error)
	log   logrus.FieldLogger
	now   func() time.Time

	mutex   sync.Mutex
	value   T
	seen    []stamp
	checked time.Time
}

// stamp tells one state of a file from another: editors write in place or
// rename, and mounted secrets change by a symbolic link.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
	missing  bool
}

// newReloaded reads the files for the first time; the error is that of load.
func newReloaded[T any](log logrus.FieldLogger, load func() (T, error), paths ...string) (*reloaded[T], error) {
	r := &reloaded[T]{paths: paths, load: load, log: log, now: time.Now}
	// The stamps are older than the content, so that a change between the two is
	// seen at the next look.
	r.seen, r.checked = r.stamps(), r.now()
	var err error
	r.value, err = load()
	return r, err
}

// get returns the value, which is at most a second older than the files.
func (r *reloaded[T]) get() T {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	now := r.now()
	if elapsed := now.Sub(r.checked); elapsed >= 0 && elapsed < checkInterval {
		return r.value
	}
	r.checked = now
	stamps := r.stamps()
	if slices.Equal(stamps, r.seen) {
		return r.value
	}
	r.seen = stamps
	value, err := r.load()
	if err != nil {
		r.log.WithError(err).Error("What was read before stays in use.")
		return r.value
	}
	r.value = value
	r.log.Infof("Read again: %v.", r.paths)
	return r.value
}

func (r *reloaded[T]) stamps() []stamp {
	stamps := make([]stamp, len(r.paths))
	for i, path := range r.paths {
		info, err := os.Stat(path)
		if err != nil {
			stamps[i] = stamp{missing: errors.Is(err, os.ErrNotExist)}
			continue
		}
		stamps[i] = stamp{modified: info.ModTime(), size: info.Size(), inode: inodeOf(info)}
	}
	return stamps
}
