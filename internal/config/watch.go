package config

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
)

const (
	// settle is how long a folder must be quiet before the file is looked at:
	// editors write in several steps.
	settle = 200 * time.Millisecond
	// longest is how long a folder that is never quiet delays that.
	longest = 2 * time.Second
	// absent is how long a file must be gone before that counts as a change.
	absent = time.Second
)

// Watch tells when the content of the settings' file is not, or no longer, what
// they were made of: it changed, appeared or went away. It watches the folder
// and the file itself: editors replace files, Kubernetes swaps a link beside
// them, and a file that is mounted by itself is not changed through its folder.
// The file need not exist; without its folder nothing is watched, which is
// logged. Where the kernel does not tell of changes, as on network file systems,
// they are not seen. The settings must have a ConfigFile.
//
// The channel holds one change, and further ones are merged into it. It is
// closed when ctx has ended and nothing runs any more; who ends ctx waits for
// that. Without its folder, also where that goes away, nothing is told.
func (s *Settings) Watch(ctx context.Context, log logrus.FieldLogger) (<-chan struct{}, error) {
	name, changes := s.ConfigFile, make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s for changes: %w; the limits are the sysctls fs.inotify.*", name, err)
	}
	w := &fileWatcher{Watcher: watcher, name: name, folder: filepath.Dir(name), log: log.WithField("file", name), changes: changes, last: s.loaded}
	if err := watcher.Add(w.folder); err != nil {
		closed := watcher.Close()
		if errors.Is(err, fs.ErrNotExist) {
			tell := w.log.Infof
			if name == DefaultFile { // nobody has asked for it
				tell = w.log.Debugf
			}
			tell("There is no folder %s: settings are reloaded by SIGHUP only, not when the file changes.", w.folder)
			go func() {
				<-ctx.Done()
				close(changes)
			}()
			return changes, closed
		}
		return nil, errors.Join(fmt.Errorf("watching %s for changes: %w", w.folder, err), closed)
	}
	go w.run(ctx)
	return changes, nil
}

// unchanged is logged after events that left the content as it was.
const unchanged = "The file of settings is as it was."

type fileWatcher struct {
	*fsnotify.Watcher
	name, folder string
	log          logrus.FieldLogger
	changes      chan<- struct{}
	last         state
}

// state is what is compared: a digest of the content, or why there is none.
type state struct {
	digest  [sha256.Size]byte
	problem string
	absent  bool
}

// stateOf returns the state of what [readFile] returns.
func stateOf(content []byte, err error) state {
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && content == nil:
		return state{absent: true}
	case err != nil:
		return state{problem: err.Error()}
	}
	return state{digest: sha256.Sum256(content)}
}

// look watches the file as it is now, and then reads it, so that no change gets
// lost in between.
func (w *fileWatcher) look() state {
	// The watch may be on a file that was replaced, and have ended by itself.
	_ = w.Remove(w.name)
	if err := w.Add(w.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.log.WithError(err).Debug("The file cannot be watched; its folder is.")
	}
	return stateOf(readFile(w.name, true))
}

func (w *fileWatcher) run(ctx context.Context) {
	defer close(w.changes)
	defer func() {
		if err := w.Close(); err != nil {
			w.log.WithError(err).Warn("Closing the watch of the file failed.")
		}
	}()
	next := time.NewTimer(settle) // it may have changed since it was loaded
	defer next.Stop()
	var since time.Time // when the first event was that no look has followed
	gone := false
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-w.Events:
			if event.Name == w.folder && event.Has(fsnotify.Remove|fsnotify.Rename) {
				w.log.Warnf("The folder %s went away: settings are reloaded by SIGHUP only from now on.", w.folder)
				<-ctx.Done()
				return
			}
			if w.matters(event) {
				since, gone = cmp.Or(since, time.Now()), false
				next.Reset(min(settle, time.Until(since.Add(longest))))
			}
		case err := <-w.Errors:
			w.log.WithError(err).Warn("Changes of the file may have been missed; it is looked at.")
			next.Reset(settle)
		case <-next.C:
			since = time.Time{}
			now := w.look()
			if now.absent && !w.last.absent && !gone {
				gone = true
				next.Reset(absent)
				continue
			}
			if now == w.last {
				w.log.Debug(unchanged)
				continue
			}
			w.last = now
			w.tell()
		}
	}
}

// matters says whether the file may be another after an event. Writing to
// another file of the folder, such as a log, changes nothing.
func (w *fileWatcher) matters(event fsnotify.Event) bool {
	return filepath.Base(event.Name) == filepath.Base(w.name) || event.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename)
}

func (w *fileWatcher) tell() {
	select {
	case w.changes <- struct{}{}:
	default: // one is waiting, and its reader sees the file as it is then
	}
}
