package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portwatcher/internal/freelist"
	"portwatcher/internal/model"
)

// attempts bounds how often an interrupted dump is repeated.
const attempts = 16

// bufferSize holds any message of a dump: the kernel caps a dump's buffers at
// 32 KiB (net/netlink/af_netlink.c, netlink_recvmsg).
const bufferSize = 32 << 10

// buffers are shared by all connections: there are as many as dumps at the same
// moment, which take microseconds, and not as many as namespaces.
var buffers = freelist.New[[bufferSize]byte](8)

// answerTimeout bounds the wait for each answer of the kernel.
const answerTimeout = 10 * time.Second

// Options configure [Dial]. The zero value is valid.
type Options struct {
	// UDPClients includes UDP sockets whose port the kernel chose.
	UDPClients bool
}

// Conn is a sock_diag connection into one network namespace. It keeps that
// namespace alive until it is closed.
//
// Dump must not be called concurrently with itself. Close may be called at any time, and
// ends a Dump that waits. After an error of Dump the connection is in an unknown state:
// close it and dial again.
type Conn struct {
	netlink socket
	raw     syscall.RawConn

	tables []table
	// autoListeners are dumps of the listeners whose port the kernel chose, made only
	// when there is a new listener. auto has every listener of the last dump by its
	// cookie, and whether the kernel chose its port.
	autoListeners []table
	auto          map[uint64]bool

	sequence uint32
	closed   atomic.Bool

	// The state of one read or write and the functions that use it: a closure for each
	// call would be allocated.
	buffer  *[bufferSize]byte
	request []byte
	count   int
	errno   syscall.Errno
	block   bool // wait for an answer that is not there yet
	receive func(fd uintptr) bool
	send    func(fd uintptr) bool
}

// socket is what a connection uses of its netlink socket.
type socket interface {
	SyscallConn() (syscall.RawConn, error)
	SetReadDeadline(time.Time) error
	Close() error
}

// Dial opens a connection into the network namespace of descriptor fd, or into
// the caller's own if fd is 0. fd can be closed as soon as Dial has returned.
//
// It needs CAP_SYS_ADMIN for another namespace. The error wraps the errno.
func Dial(fd int, options Options) (*Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: fd})
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", explainDial(err))
	}
	return newConn(conn, options)
}

// newConn makes a connection of a socket, and owns the socket.
func newConn(conn socket, options Options) (*Conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open sock_diag: %w", err), conn.Close())
	}
	c := &Conn{netlink: conn, raw: raw, auto: map[uint64]bool{}}
	c.receive, c.send = c.receiveOnce, c.sendOnce
	c.tables = append(c.tables, listeners())
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		c.tables = append(c.tables, newTable(family, model.UDP, userChosen))
		if options.UDPClients {
			c.tables = append(c.tables, newTable(family, model.UDP, kernelChosen))
		}
		c.autoListeners = append(c.autoListeners, newTable(family, model.TCP, kernelChosen))
	}
	return c, nil
}

// Close closes the connection and releases its namespace.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.netlink.Close()
}

// FD calls f with the connection's descriptor, for socket options.
func (c *Conn) FD(f func(fd int)) error {
	return c.raw.Control(func(fd uintptr) { f(int(fd)) })
}

// Dump appends to dst all TCP listeners and unconnected UDP sockets of the
// namespace, in no order, and returns it. dst may be the slice of an earlier
// call cut to length 0. After an error what was appended is not valid.
//
// Errors are the kernel's errno, [ErrInterrupted], [*MalformedError],
// [*UnsupportedError], os.ErrDeadlineExceeded and os.ErrClosed, wrapped.
func (c *Conn) Dump(dst []model.Socket) ([]model.Socket, error) {
	for i := range c.tables {
		var err error
		if dst, err = c.dumpTable(dst, &c.tables[i]); err != nil {
			return dst, err
		}
	}
	return c.markAutoBound(dst)
}

// markAutoBound sets AutoBound on the listeners.
func (c *Conn) markAutoBound(sockets []model.Socket) ([]model.Socket, error) {
	listeners, unknown := 0, false
	for i := range sockets {
		if sockets[i].Protocol != model.TCP {
			continue
		}
		listeners++
		auto, known := c.auto[sockets[i].Cookie]
		sockets[i].AutoBound = auto
		unknown = unknown || !known
	}
	if !unknown && len(c.auto) == listeners {
		return sockets, nil
	}
	if unknown {
		length := len(sockets)
		for i := range c.autoListeners {
			var err error
			if sockets, err = c.dumpTable(sockets, &c.autoListeners[i]); err != nil {
				return sockets, err
			}
		}
		clear(c.auto)
		for _, s := range sockets[length:] {
			c.auto[s.Cookie] = true
		}
		sockets = sockets[:length]
		for i := range sockets {
			if sockets[i].Protocol == model.TCP {
				sockets[i].AutoBound = c.auto[sockets[i].Cookie]
			}
		}
	}
	clear(c.auto)
	for i := range sockets {
		if sockets[i].Protocol == model.TCP {
			c.auto[sockets[i].Cookie] = sockets[i].AutoBound
		}
	}
	return sockets, nil
}

// dumpTable appends one table's sockets to dst. It begins again where the kernel
// reports that the table changed meanwhile.
func (c *Conn) dumpTable(dst []model.Socket, t *table) ([]model.Socket, error) {
	c.buffer = buffers.Take()
	defer func() {
		buffers.Give(c.buffer)
		c.buffer = nil
	}()
	length := len(dst)
	for range attempts {
		sockets, interrupted, err := c.dumpOnce(dst[:length], t)
		dst = sockets
		if err != nil && c.closed.Load() {
			err = os.ErrClosed // the poller's own error for it is not exported
		}
		if err != nil {
			return dst, fmt.Errorf("dump %s: %w", t.name, err)
		}
		if !interrupted {
			return dst, nil
		}
	}
	return dst, fmt.Errorf("dump %s: %w", t.name, ErrInterrupted)
}

func (c *Conn) dumpOnce(dst []model.Socket, t *table) (_ []model.Socket, interrupted bool, err error) {
	c.sequence++
	binary.NativeEndian.PutUint32(t.request[8:], c.sequence)
	c.request = t.request
	if err := c.transfer(c.raw.Write, c.send, "send request"); err != nil {
		return dst, false, err
	}
	for {
		if err := c.receiveAnswer(); err != nil {
			return dst, interrupted, err
		}
		if c.count > bufferSize {
			return dst, interrupted, malformed("%d bytes in a datagram, at most %d are expected", c.count, bufferSize)
		}
		var done, cut bool
		dst, done, cut, err = parseDump(dst, c.buffer[:c.count], c.sequence, t)
		interrupted = interrupted || cut
		if done || err != nil {
			return dst, interrupted, err
		}
	}
}

// receiveAnswer reads one datagram. The kernel makes a dump within the calls that
// request it, so that the answer is normally there. Only where it is not a deadline is
// set, which wakes the runtime's poller.
func (c *Conn) receiveAnswer() error {
	c.block = false
	err := c.transfer(c.raw.Read, c.receive, "receive")
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	if err := c.netlink.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	c.block = true
	return c.transfer(c.raw.Read, c.receive, "receive")
}

// transfer does one read or write, and waits in the runtime's poller, not in a thread.
func (c *Conn) transfer(call func(func(uintptr) bool) error, try func(uintptr) bool, verb string) error {
	if err := call(try); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if c.errno != 0 {
		return fmt.Errorf("%s: %w", verb, c.errno)
	}
	return nil
}

func (c *Conn) receiveOnce(fd uintptr) bool {
	c.count, c.errno = receiveFrom(fd, c.buffer[:])
	return c.errno != unix.EAGAIN || !c.block
}

func (c *Conn) sendOnce(fd uintptr) bool {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&c.request[0])), uintptr(len(c.request)),
			unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		c.errno = errno
		return errno != unix.EAGAIN
	}
}

// receiveFrom reads one datagram without blocking; with MSG_TRUNC the count is the
// datagram's true length. The recvmsg of the libraries allocates an address.
func receiveFrom(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}
