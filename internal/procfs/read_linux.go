package procfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"portwatcher/internal/freelist"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
)

// ErrProcessGone is returned for a process that does not exist (any more).
var ErrProcessGone = netns.ErrProcessGone

// bufferSize is more than the kernel gives at once (a page), and holds any line
// of these files (about 200 bytes) many times.
const bufferSize = 16 << 10

// buffers are shared by all readers: one is needed for the time of a read only.
var buffers = freelist.New[[bufferSize]byte](4)

// Read appends to dst the listening TCP and the unconnected UDP sockets of the
// network namespace of process pid, as procRoot ("/proc", or where another pid
// namespace's is mounted) shows it. UDP sockets with a port in ephemeral are
// marked as AutoBound; TCP sockets never are.
//
// It is safe for concurrent use. The error wraps [ErrProcessGone] where there is
// no such process, a *[ParseError] for a damaged file, otherwise the errno; dst
// is then returned as it was. It reads everything or fails: files for IPv6 may be
// missing, where the kernel has none, but those for IPv4 may not.
func Read(dst []model.Socket, procRoot string, pid int, ephemeral Range) ([]model.Socket, error) {
	return read(dst, procRoot, pid, parser{bigEndian: hostIsBigEndian, ephemeral: ephemeral})
}

func read(dst []model.Socket, procRoot string, pid int, p parser) ([]model.Socket, error) {
	// All files are opened from one descriptor, which stays with the process:
	// a pid that is reused meanwhile cannot mix two namespaces.
	path := filepath.Join(procRoot, strconv.Itoa(pid), "net")
	dir, err := open(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return dst, pathError("open", path, gone(err))
	}
	defer unix.Close(dir)
	buffer := buffers.Take()
	defer buffers.Give(buffer)

	all := dst
	for i := range tables {
		p.table, p.line = tables[i], 0
		if all, err = readTable(all, dir, path, &p, buffer[:]); err != nil {
			return dst, err
		}
	}
	return all, nil
}

// readTable reads one file of the open folder dir.
func readTable(dst []model.Socket, dir int, path string, p *parser, buffer []byte) ([]model.Socket, error) {
	fd, err := open(dir, p.name, unix.O_RDONLY)
	if p.ipv6 && errors.Is(err, unix.ENOENT) {
		// Either there is no IPv6 here, or the process is no more: then the
		// others are not there either.
		var st unix.Stat_t
		if unix.Fstatat(dir, tables[0].name, &st, 0) == nil {
			return dst, nil
		}
	}
	if err != nil {
		return dst, pathError("open", filepath.Join(path, p.name), gone(err))
	}
	defer unix.Close(fd)
	file := func() string { return filepath.Join(path, p.name) }
	left := 0
	for {
		n, err := unix.Read(fd, buffer[left:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return dst, pathError("read", file(), gone(err))
		case n == 0 && (left != 0 || p.line == 0):
			return dst, &ParseError{file(), p.line + 1, fmt.Sprintf("ends after %q, want a line feed", clip(buffer[:left]))}
		case n == 0:
			return dst, nil
		}
		var rest []byte
		if dst, rest, err = p.parse(dst, buffer[:left+n]); err != nil {
			return dst, &ParseError{file(), p.line, err.Error()}
		}
		if left = copy(buffer, rest); left == len(buffer) {
			return dst, &ParseError{file(), p.line + 1, fmt.Sprintf("more than %d bytes without a line feed", left)}
		}
	}
}

func open(dir int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// gone adds ErrProcessGone to the errors that a process's folder gives when the
// process ends.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %w", ErrProcessGone, err)
	}
	return err
}

func pathError(verb, path string, err error) error {
	return &os.PathError{Op: verb, Path: path, Err: err}
}
