package sockdiag

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// receiveBuffer is asked for with SO_RCVBUFFORCE. It is a limit, not an
// allocation: at 84,000 closes a second a default buffer overruns.
const receiveBuffer = 64 << 20

// destroyBuffer holds one message, with room for a longer tcp_info.
const destroyBuffer = 2048

// Listener receives a message for each socket that is destroyed in one network
// namespace. It keeps that namespace alive until it is closed.
//
// Receive may run in one goroutine; Close may be called at any time, by anyone,
// and ends a Receive that waits.
type Listener struct {
	netlink *netlink.Conn
	raw     syscall.RawConn
	closed  atomic.Bool
	empty   atomic.Bool // the queue was when it was last looked at

	buffer  [destroyBuffer]byte
	count   int
	errno   syscall.Errno
	overrun bool // messages were lost since the queue was last empty
	receive func(fd uintptr) bool
}

// listenFilter lets only sockets pass that may have been listeners, so that a
// busy server's connections cost a few instructions in the kernel: those that
// had a local port and no remote one, and, since a reset or a refusal sets the
// remote port back to 0, of TCP those that never had a path MTU. Loads are
// relative to the netlink header; all are compared with 0, so byte order does
// not matter.
var listenFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: headerLength + offsetSourcePort, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 10},
	bpf.LoadAbsolute{Off: headerLength + offsetDestPort, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 8},
	// A becomes the place of INET_DIAG_INFO among the attributes, or 0.
	bpf.LoadConstant{Dst: bpf.RegA, Val: headerLength + messageLength},
	bpf.LoadConstant{Dst: bpf.RegX, Val: attributeInfo},
	bpf.LoadExtension{Num: bpf.ExtNetlinkAttr},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3}, // UDP
	bpf.TAX{},
	bpf.LoadIndirect{Off: attributeHeader + offsetPathMTU, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
	bpf.RetConstant{Val: 1<<32 - 1}, // the whole message
	bpf.RetConstant{Val: 0},
}

// Listen subscribes to the destroy notifications of the network namespace of
// descriptor fd, or of the caller's own if fd is 0. The errors are those of
// [Dial].
//
// The receive buffer beyond net.core.rmem_max needs CAP_NET_ADMIN; without it
// the buffer is as large as is allowed, and overruns come earlier.
func Listen(fd int, _ ListenOptions) (*Listener, error) {
	filter, err := bpf.Assemble(listenFilter)
	if err != nil {
		return nil, fmt.Errorf("listen for destroyed sockets: %w", err)
	}
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: fd, Groups: allDestroyGroups})
	if err != nil {
		return nil, fmt.Errorf("listen for destroyed sockets: %w", err)
	}
	l := &Listener{netlink: conn}
	l.receive = l.receiveOnce
	if l.raw, err = conn.SyscallConn(); err == nil {
		err = conn.SetBPF(filter)
	}
	if err == nil {
		err = l.enlarge()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for destroyed sockets: %w", err), conn.Close())
	}
	return l, nil
}

func (l *Listener) enlarge() error {
	var set error
	err := l.raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		if errors.Is(set, unix.EPERM) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	})
	return errors.Join(err, set)
}

// Receive waits for the next socket that goes away and stores it in d. It
// allocates nothing.
//
// ENOBUFS (wrapped) says that messages were lost before this moment, and none
// since; Receive can be called again.
// After a [*MalformedError] too. After Close it returns os.ErrClosed.
func (l *Listener) Receive(d *Destroyed) error {
	err := l.raw.Read(l.receive)
	switch {
	case l.closed.Load():
		return fmt.Errorf("receive destroyed sockets: %w", os.ErrClosed)
	case err != nil:
		return fmt.Errorf("receive destroyed sockets: %w", err)
	case l.errno != 0:
		return fmt.Errorf("receive destroyed sockets: %w", l.errno)
	case l.count > destroyBuffer:
		return malformed("%d bytes in a destroy notification, at most %d are expected", l.count, destroyBuffer)
	}
	return parseDestroyed(d, l.buffer[:l.count])
}

// receiveOnce reads one message. From an overrun on the kernel drops messages,
// without a word, until the queue has been read empty (NETLINK_S_CONGESTED in
// net/netlink/af_netlink.c): only then is the overrun told, so that a dump made
// in answer to it misses nothing.
func (l *Listener) receiveOnce(fd uintptr) bool {
	for {
		l.count, l.errno = receiveFrom(fd, l.buffer[:])
		l.empty.Store(l.errno == unix.EAGAIN)
		switch {
		case l.errno == unix.ENOBUFS:
			l.overrun = true
			continue
		case l.errno == unix.EAGAIN && l.overrun:
			l.overrun, l.errno = false, unix.ENOBUFS
		}
		return l.errno != unix.EAGAIN
	}
}

// Empty says whether Receive has returned everything that the kernel has sent so
// far, and its caller has come back for more. It is safe to call from any
// goroutine; a Listener that is closed is empty.
func (l *Listener) Empty() bool {
	if !l.empty.Load() {
		return l.closed.Load()
	}
	queued := false
	err := l.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		queued = err != nil || n > 0
	})
	return err != nil || !queued
}

// Close ends the subscription and lets go of the namespace.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.netlink.Close()
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
