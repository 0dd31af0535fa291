package procfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"portwatcher/internal/freelist"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
)

// bufferSize is more than the kernel gives at once (a page), and holds any line
// of these files (about 200 bytes) many times.
const bufferSize = 16 << 10

// buffers are shared by all readers: each read needs one while it lasts.
var buffers = freelist.New[[bufferSize]byte](4)

// Read appends to dst the listening TCP and the unconnected UDP sockets of the
// network namespace of process pid, as procRoot ("/proc", or where another pid
// namespace's is mounted) shows it. UDP sockets with a port in ephemeral are
// marked as AutoBound; TCP sockets never are.
//
// The error is a *[ParseError] for a damaged file, otherwise the errno, wrapped; dst
// is then returned as it was. Files for IPv6 may be missing, where the kernel has none,
// but those for IPv4 may not.
func Read(dst []model.Socket, procRoot string, pid int, ephemeral Range) ([]model.Socket, error) {
	err := netns.Through(procRoot, pid, func(folder string) (err error) {
		dst, err = read(dst, folder, parser{bigEndian: hostIsBigEndian, ephemeral: ephemeral})
		return err
	})
	return dst, err
}

// read is Read of the process with a folder.
func read(dst []model.Socket, folder string, p parser) ([]model.Socket, error) {
	root, err := openNet(folder)
	if err != nil {
		return dst, err
	}
	defer root.Close()
	buffer := buffers.Take()
	defer buffers.Give(buffer)

	all := dst
	for i := range tables {
		p.table, p.line = tables[i], 0
		file, err := openIn(root, p.name, p.ipv6)
		switch {
		case err != nil:
		case file == nil: // the kernel has no IPv6, or the process has ended
			_, err = root.Stat(tables[0].name)
			err = gone(err)
		default:
			all, err = readTable(all, file, &p, buffer[:])
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			return dst, err
		}
	}
	return all, nil
}

// readTable appends the sockets of one file.
func readTable(dst []model.Socket, file *os.File, p *parser, buffer []byte) ([]model.Socket, error) {
	left := 0
	for {
		n, err := file.Read(buffer[left:])
		switch {
		case err == io.EOF && (left != 0 || p.line == 0):
			return dst, &ParseError{file.Name(), p.line + 1, fmt.Sprintf("ends after %q, want a line feed", clip(buffer[:left]))}
		case err == io.EOF:
			return dst, nil
		case err != nil:
			return dst, gone(err)
		}
		var rest []byte
		if dst, rest, err = p.parse(dst, buffer[:left+n]); err != nil {
			return dst, &ParseError{file.Name(), p.line, err.Error()}
		}
		if left = copy(buffer, rest); left == len(buffer) {
			return dst, &ParseError{file.Name(), p.line + 1, fmt.Sprintf("more than %d bytes without a line feed", left)}
		}
	}
}

// openNet opens "net" in the folder of a process. Files that are opened in it are of one
// namespace, even if the pid is reused meanwhile.
func openNet(folder string) (*os.Root, error) {
	root, err := os.OpenRoot(filepath.Join(folder, "net"))
	return root, gone(err)
}

// openIn opens a file in the folder "net" of a process. It returns nil for a file of IPv6
// that is missing.
func openIn(root *os.Root, name string, ipv6 bool) (*os.File, error) {
	file, err := root.Open(name)
	if ipv6 && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(root.Name(), name), gone(err))
	}
	return file, nil
}

// gone adds ErrProcessGone to the errors that the folder of a process gives when the
// process ends.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %w", netns.ErrProcessGone, err)
	}
	return err
}
