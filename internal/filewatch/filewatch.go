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
)

// Interval is the time between two calls of [Watch.Changed] that callers should keep.
const Interval = 500 * time.Millisecond

// MaxSize is the size, in bytes, up to which the content of a file is compared:
// settings, tokens and certificates take some kilobytes.
const MaxSize = 1 << 20

// Watch compares the content of files with their content before. It is not safe for
// concurrent use.
type Watch struct {
	paths []string
	sum   [sha256.Size]byte
}

// New returns a Watch that begins with the files as they are now. They need not exist.
func New(paths ...string) *Watch { return &Watch{paths, sum(paths)} }

// Changed reports whether the content of a file, or whether it can be read, differs
// from that at the last call, or in [New].
func (w *Watch) Changed() bool {
	before := w.sum
	w.sum = sum(w.paths)
	return w.sum != before
}

func sum(paths []string) [sha256.Size]byte {
	all := sha256.New()
	for _, path := range paths {
		content, err := Read(path, MaxSize)
		fmt.Fprintf(all, "%x %v\n", sha256.Sum256(content), err)
	}
	return [sha256.Size]byte(all.Sum(nil))
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
