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

// buffers are shared by all connections: a dump takes one for microseconds, so
// there are as many as scans at the same moment, not as namespaces.
var buffers = freelist.New[[bufferSize]byte](8)

// Options configure [Dial] and [Listen]. The zero value is good.
type Options struct {
	// UDPClients, of dumps, includes UDP sockets whose port the kernel chose.
	UDPClients bool
	// Timeout, of dumps, bounds the wait for each answer of the kernel; 0 is 10 s.
	Timeout time.Duration
	// Buffer is the receive buffer of a [Listener] in bytes; 0 is 64 MiB. See
	// [Listener.SetBuffer].
	Buffer int
}

// Conn is a sock_diag connection into one network namespace. It keeps that
// namespace alive until it is closed.
//
// Dump must not be called concurrently with itself; Close may be called at any
// time, by anyone, and ends a Dump that waits. After an error of Dump the
// connection is in an unknown state: close it and dial again.
type Conn struct {
	netlink socket
	raw     syscall.RawConn
	options Options

	tables []table
	// autoListeners are dumps of the listeners whose port the kernel chose; auto
	// holds every listener seen, and whether the kernel chose its port. The two
	// dumps are made only when there is a new listener.
	autoListeners []table
	auto          map[uint64]bool

	sequence uint32
	closed   atomic.Bool

	// The state of one read or write, kept here with the functions that use it
	// because a closure made for each call would be allocated.
	buffer  *[bufferSize]byte
	request []byte
	count   int
	errno   syscall.Errno
	patient bool // wait for an answer that is not there yet
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

// newConn makes a connection of a socket, which is closed with it, or at once after
// an error.
func newConn(conn socket, options Options) (*Conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open sock_diag: %w", err), conn.Close())
	}
	if options.Timeout == 0 {
		options.Timeout = 10 * time.Second
	}
	c := &Conn{netlink: conn, raw: raw, options: options, auto: map[uint64]bool{}}
	c.receive, c.send = c.receiveOnce, c.sendOnce
	c.tables = append(c.tables, listeners())
	for _, family := range []uint8{familyIPv4, familyIPv6} {
		c.tables = append(c.tables, newTable(family, model.UDP, userChosen))
		if options.UDPClients {
			c.tables = append(c.tables, newTable(family, model.UDP, kernelChosen))
		}
		c.autoListeners = append(c.autoListeners, newTable(family, model.TCP, kernelChosen))
	}
	return c, nil
}

// Close closes the connection and lets go of its namespace.
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
// call cut to length 0. On an error the sockets appended so far are worth
// nothing.
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
	if !unknown { // some are gone
		c.rememberListeners(sockets)
		return sockets, nil
	}
	length := len(sockets)
	var err error
	for i := range c.autoListeners {
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
	c.rememberListeners(sockets)
	return sockets, nil
}

func (c *Conn) rememberListeners(sockets []model.Socket) {
	clear(c.auto)
	for i := range sockets {
		if sockets[i].Protocol == model.TCP {
			c.auto[sockets[i].Cookie] = sockets[i].AutoBound
		}
	}
}

// dumpTable appends one table's sockets to dst, and begins again where the
// kernel reports that the table changed meanwhile.
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
			return dst, interrupted, malformed("%d bytes where the kernel promises at most %d", c.count, bufferSize)
		}
		var done, cut bool
		dst, done, cut, err = parseDump(dst, c.buffer[:c.count], c.sequence, t)
		interrupted = interrupted || cut
		if done || err != nil {
			return dst, interrupted, err
		}
	}
}

// receiveAnswer reads one datagram. The kernel works on a dump within the calls
// that ask for it, so that the answer is there at once: only where it is not is
// the price of a deadline paid, which wakes the runtime's poller.
func (c *Conn) receiveAnswer() error {
	c.patient = false
	err := c.transfer(c.raw.Read, c.receive, "receive")
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	if err := c.netlink.SetReadDeadline(time.Now().Add(c.options.Timeout)); err != nil {
		return err
	}
	c.patient = true
	return c.transfer(c.raw.Read, c.receive, "receive")
}

// transfer runs one read or write on the descriptor, waiting in the runtime's
// poller, not in a thread.
func (c *Conn) transfer(call func(func(uintptr) bool) error, once func(uintptr) bool, verb string) error {
	if err := call(once); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if c.errno != 0 {
		return fmt.Errorf("%s: %w", verb, c.errno)
	}
	return nil
}

func (c *Conn) receiveOnce(fd uintptr) bool {
	c.count, c.errno = receiveFrom(fd, c.buffer[:])
	return c.errno != unix.EAGAIN || !c.patient
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

// receiveFrom reads one datagram without blocking; with MSG_TRUNC the count is
// the datagram's true length. The libraries' own recvmsg allocates an address
// for each call.
func receiveFrom(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}
