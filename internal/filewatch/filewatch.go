// Package filewatch reads small files and detects, by polling, that they have changed.
//
// inotify reports sooner, but nothing of a change on a network file system and little
// of a symbolic link in another folder, which is how Kubernetes replaces a mounted
// file. Reading a small file again is cheap and works on all of them. A file that is
// mounted into a container by itself and replaced on the host cannot be detected: the
// container keeps the old file.
package filewatch

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Interval is the time between two calls of [Watch.Changed] that callers should keep.
const Interval = 2 * time.Second

// MaxSize is the size, in bytes, up to which the content of a file is compared:
// settings, tokens and certificates take some kilobytes.
const MaxSize = 1 << 20

// Watch compares the content of files with their content before. It is not safe for
// concurrent use.
type Watch struct {
	files []file
}

type file struct {
	path  string
	state state
	sum   [sha256.Size]byte // of the content, or of why it cannot be read
}

// state is what the file system reports of a file: where it differs, the content may.
type state struct {
	err         error
	device, id  uint64
	size        int64
	mode        uint32
	written     time.Time
	justWritten bool // a write in the same tick of the clock would not show
}

// settled is how old a file's last write is when the next one shows in its time, on
// every file system.
const settled = 3 * time.Second

// New returns a Watch that begins with the files as they are now. They need not exist.
func New(paths ...string) *Watch {
	w := &Watch{}
	for _, path := range paths {
		w.files = append(w.files, file{path: path, state: stateOf(path), sum: sum(path)})
	}
	return w
}

// Changed reports whether the content of a file, or whether it can be read, differs
// from that at the last call, or in [New]. Where nothing was written it costs one
// system call a file.
func (w *Watch) Changed() bool {
	changed := false
	for i := range w.files {
		f := &w.files[i]
		now := stateOf(f.path)
		if now == f.state && !now.justWritten {
			continue
		}
		f.state = now
		if is := sum(f.path); is != f.sum {
			f.sum, changed = is, true
		}
	}
	return changed
}

func stateOf(path string) state {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return state{err: err}
	}
	written := time.Unix(st.Mtim.Unix())
	return state{
		device: uint64(st.Dev), id: st.Ino, size: st.Size, mode: st.Mode, written: written,
		justWritten: time.Since(written) < settled,
	}
}

func sum(path string) [sha256.Size]byte {
	content, err := Read(path, MaxSize)
	return sha256.Sum256(fmt.Appendf(nil, "%x %v", sha256.Sum256(content), err))
}

// Read returns the content of a regular file of up to max bytes. Each error is a
// [*fs.PathError].
func Read(path string, max int64) ([]byte, error) {
	failed := func(reason string) error { return &fs.PathError{Op: "read", Path: path, Err: errors.New(reason)} }
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() { // opening a named pipe waits for its writer
		return nil, failed("not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // it was only read
	content, err := io.ReadAll(io.LimitReader(file, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > max {
		return nil, failed(fmt.Sprintf("larger than %d bytes", max))
	}
	return content, nil
}
