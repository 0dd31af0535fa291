package procfs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// counts are the files that a [Counter] reads.
var counts = [...]struct{ name, tcp, udp string }{
	{"sockstat", "TCP:", "UDP:"},
	{"sockstat6", "TCP6:", "UDP6:"},
}

// Counter counts the sockets of a network namespace, at a small part of the cost of a
// dump. It keeps that namespace alive until it is closed, also when the
// process through which it was opened has ended.
//
// Read must not be called concurrently with itself; Close may be called at any
// time, by anyone.
type Counter struct {
	files [len(counts)]*os.File // nil where the kernel has no IPv6
	raw   [len(counts)]syscall.RawConn

	// The state of one read, kept here with the function that does it because a
	// closure made for each call would be allocated.
	buffer *[bufferSize]byte
	count  int
	err    error
	read   func(fd uintptr)
}

// OpenCounter opens a counter for the network namespace of process pid. Its
// errors are those of [Read].
func OpenCounter(procRoot string, pid int) (*Counter, error) {
	c := &Counter{}
	c.read = c.readOnce
	path := filepath.Join(procRoot, strconv.Itoa(pid), "net")
	// Both from one descriptor, so that they are of one namespace.
	dir, err := open(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, pathError("open", path, gone(err))
	}
	defer unix.Close(dir)
	for i := range counts {
		name := filepath.Join(path, counts[i].name)
		fd, err := open(dir, counts[i].name, unix.O_RDONLY)
		if i > 0 && errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, errors.Join(pathError("open", name, gone(err)), c.Close())
		}
		c.files[i] = os.NewFile(uintptr(fd), name)
		if c.raw[i], err = c.files[i].SyscallConn(); err != nil {
			return nil, errors.Join(pathError("open", name, err), c.Close())
		}
	}
	return c, nil
}

// Read returns the numbers of this moment; it allocates nothing. The error is a
// *[ParseError] for a damaged file, os.ErrClosed after Close, otherwise the
// errno, wrapped.
func (c *Counter) Read() (InUse, error) {
	c.buffer = buffers.Take()
	defer func() {
		buffers.Give(c.buffer)
		c.buffer = nil
	}()
	var sum InUse
	for i := range counts {
		if c.files[i] == nil {
			continue
		}
		if c.raw[i].Control(c.read) != nil { // its only error is not exported
			return sum, pathError("read", c.files[i].Name(), os.ErrClosed)
		}
		if c.err != nil {
			return sum, pathError("read", c.files[i].Name(), c.err)
		}
		if line, err := parseInUse(&sum, c.buffer[:c.count], counts[i].tcp, counts[i].udp); err != nil {
			return sum, &ParseError{c.files[i].Name(), line, err.Error()}
		}
	}
	return sum, nil
}

// readOnce reads a file from its beginning, which has the kernel count again.
func (c *Counter) readOnce(fd uintptr) {
	for {
		c.count, c.err = unix.Pread(int(fd), c.buffer[:], 0)
		if !errors.Is(c.err, unix.EINTR) {
			return
		}
	}
}

// Close lets go of the namespace.
func (c *Counter) Close() error {
	var errs []error
	for _, f := range c.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
