package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"portwatcher/internal/netns"
)

// InUse is how many sockets of a network namespace are in the kernel's tables,
// of IPv4 and IPv6 together. Not counted are TCP sockets that neither listen nor
// are part of a connection, those in TIME_WAIT, and UDP sockets without a port.
// A socket of MPTCP counts once, as that of TCP below it does.
type InUse struct {
	TCP int // listeners and connections
	UDP int // bound, connected or not
}

// counts are the files that a [Counter] reads.
var counts = [...]struct{ name, tcp, udp string }{
	{"sockstat", "TCP:", "UDP:"},
	{"sockstat6", "TCP6:", "UDP6:"},
}

// Counter counts the sockets of a network namespace, at a small part of the cost of a
// dump. It keeps that namespace alive until it is closed, also when the process through
// which it was opened has ended. Read is for one goroutine; Close may be called by any.
type Counter struct {
	files [len(counts)]*os.File // nil where the kernel has no IPv6
	raw   [len(counts)]syscall.RawConn

	// One read, and the function that makes it: a closure made by each Read would be
	// allocated.
	buffer *[bufferSize]byte
	length int
	err    error
	read   func(fd uintptr)
}

// OpenCounter opens a counter for the network namespace of process pid. Its
// errors are those of [Read].
func OpenCounter(procRoot string, pid int) (c *Counter, err error) {
	err = netns.Through(procRoot, pid, func(folder string) error {
		c, err = openCounter(folder)
		return err
	})
	return c, err
}

func openCounter(folder string) (*Counter, error) {
	root, err := openNet(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	c := &Counter{}
	// From the beginning: the kernel counts again. One system call reads all; ReadAt would
	// make a second that finds the end.
	c.read = func(fd uintptr) { c.length, c.err = unix.Pread(int(fd), c.buffer[:], 0) }
	for i := range counts {
		if c.files[i], err = openIn(root, counts[i].name, i > 0); err == nil && c.files[i] != nil {
			c.raw[i], err = c.files[i].SyscallConn()
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Read returns the current numbers and allocates nothing. The error is a *[ParseError]
// for a damaged file, os.ErrClosed after Close, otherwise the errno, wrapped.
func (c *Counter) Read() (InUse, error) {
	c.buffer = buffers.Take()
	defer buffers.Give(c.buffer)
	var sum InUse
	for i, file := range c.files {
		if file == nil {
			continue
		}
		if c.raw[i].Control(c.read) != nil { // its only error is not exported
			c.err = os.ErrClosed
		}
		if c.err != nil {
			return sum, &os.PathError{Op: "read", Path: file.Name(), Err: c.err}
		}
		if line, err := parseInUse(&sum, c.buffer[:c.length], counts[i].tcp, counts[i].udp); err != nil {
			return sum, &ParseError{file.Name(), line, err.Error()}
		}
	}
	return sum, nil
}

// Close releases the namespace.
func (c *Counter) Close() error {
	var errs []error
	for _, file := range c.files {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	return errors.Join(errs...)
}

// parseInUse adds the numbers in /proc/<pid>/net/sockstat or sockstat6 to sum. Their
// lines begin "TCP: inuse 5 " and "UDP6: inuse 2\n"; the others are of other protocols.
// at is the line of the error, or the last. Source: sockstat_seq_show in
// net/ipv4/proc.c, sockstat6_seq_show in net/ipv6/proc.c.
func parseInUse(sum *InUse, text []byte, tcp, udp string) (at int, err error) {
	foundTCP, foundUDP := false, false
	for line := range bytes.Lines(text) {
		at++
		name, rest := field(bytes.TrimSuffix(line, []byte{'\n'}))
		var into *int
		switch {
		case string(name) == tcp && !foundTCP:
			into, foundTCP = &sum.TCP, true
		case string(name) == udp && !foundUDP:
			into, foundUDP = &sum.UDP, true
		default:
			continue
		}
		label, rest := field(rest)
		number, _ := field(rest)
		count, ok := decimal(number)
		if string(label) != "inuse" || !ok {
			return at, fmt.Errorf("%q, want %s inuse and a number below 1<<32", clip(bytes.TrimSpace(line)), name)
		}
		*into += int(count)
	}
	if !foundTCP || !foundUDP {
		return at, fmt.Errorf("ends after %q, want lines that begin with %s and %s", clip(text), tcp, udp)
	}
	return at, nil
}
