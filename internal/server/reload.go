package server

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/filewatch"
)

// reloaded is a value that is read from files, and read again after they change. An
// error is logged for each change, and the last good value stays in use.
type reloaded[T any] struct {
	load  func() (T, error)
	log   logrus.FieldLogger
	paths []string
	value atomic.Pointer[T]

	mutex   sync.Mutex // held by the one caller that checks the files; nobody waits for it
	files   *filewatch.Watch
	checked time.Time
}

// newReloaded reads the files for the first time; the error is that of load.
func newReloaded[T any](log logrus.FieldLogger, load func() (T, error), paths ...string) (*reloaded[T], error) {
	// The watch begins before the files are read, so that it reports a later change.
	r := &reloaded[T]{load: load, log: log, paths: paths, files: filewatch.New(paths...), checked: time.Now()}
	value, err := load()
	r.value.Store(&value)
	return r, err
}

// get returns the value. It checks the files if the last check is longer ago than
// [filewatch.Interval]. It is safe for concurrent use.
func (r *reloaded[T]) get() T {
	if r.mutex.TryLock() {
		r.check()
		r.mutex.Unlock()
	}
	return *r.value.Load()
}

// check reads the files again if they have changed. The caller holds the mutex.
func (r *reloaded[T]) check() {
	if time.Since(r.checked) < filewatch.Interval {
		return
	}
	r.checked = time.Now()
	if !r.files.Changed() {
		return
	}
	value, err := r.load()
	if err != nil {
		r.log.WithError(err).Error("The files cannot be read again; the content read before stays in use.")
		return
	}
	r.value.Store(&value)
	r.log.Infof("Read again: %v.", r.paths)
}
