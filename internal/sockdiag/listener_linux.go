package sockdiag

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"portwatcher/internal/freelist"
)

// defaultBuffer is a limit, not an allocation: at 84,000 closes a second the system's
// default overruns.
const defaultBuffer = 64 << 20

// Listener receives a message for each socket that is destroyed in one network
// namespace. It keeps that namespace alive until it is closed.
//
// ReceiveWaiting must not be called concurrently with itself. All other methods are safe
// for concurrent use. Close ends a Wait.
type Listener struct {
	netlink *netlink.Conn
	raw     syscall.RawConn
	closed  atomic.Bool
	empty   atomic.Bool   // the queue was empty at the last read
	dropped atomic.Uint64 // at the last read of the kernel's counter

	// The state of one ReceiveWaiting and the function that does it: a closure for each
	// call would be allocated.
	dst      []Destroyed
	count    int
	err      error
	reported uint64 // of dropped, by ENOBUFS
	receive  func(fd uintptr)
}

// listenFilter passes only sockets that may have been listeners, so that the
// connections of a busy server cost a few instructions in the kernel: those with a
// local port and no remote one, and, since a reset or a refusal sets the remote port
// back to 0, of TCP those that never had a path MTU. Loads are relative to the netlink
// header; all are compared with 0, so byte order does not matter.
var listenFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: unix.SizeofNlMsghdr + offsetSourcePort, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 10},
	bpf.LoadAbsolute{Off: unix.SizeofNlMsghdr + offsetDestPort, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 8},
	// A becomes the place of INET_DIAG_INFO among the attributes, or 0.
	bpf.LoadConstant{Dst: bpf.RegA, Val: unix.SizeofNlMsghdr + messageLength},
	bpf.LoadConstant{Dst: bpf.RegX, Val: attributeInfo},
	bpf.LoadExtension{Num: bpf.ExtNetlinkAttr},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3}, // UDP
	bpf.TAX{},
	bpf.LoadIndirect{Off: unix.SizeofNlAttr + offsetPathMTU, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
	bpf.RetConstant{Val: 1<<32 - 1}, // the whole message
	bpf.RetConstant{Val: 0},
}

// Listen subscribes to the destroy notifications of the network namespace of
// descriptor fd, or of the caller's own if fd is 0. buffer is the size of the receive
// buffer in bytes, see [Listener.SetBuffer]; 0 is 64 MiB. The errors are those of [Dial].
//
// Where the modules of sock_diag are not loaded there are no messages; see
// [LoadModules].
func Listen(fd, buffer int) (*Listener, error) {
	filter, err := bpf.Assemble(listenFilter)
	if err != nil {
		return nil, fmt.Errorf("listen for destroyed sockets: %w", err)
	}
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: fd})
	if err != nil {
		return nil, fmt.Errorf("listen for destroyed sockets: %w", explainDial(err))
	}
	l := &Listener{netlink: conn}
	l.receive = l.receiveAll
	if l.raw, err = conn.SyscallConn(); err == nil {
		err = l.subscribe(filter, cmp.Or(buffer, defaultBuffer))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for destroyed sockets: %w", err), conn.Close())
	}
	return l, nil
}

// subscribe joins the groups last, so that no message comes before the filter.
//
// With NETLINK_NO_ENOBUFS the kernel drops only messages that find no room. Without
// it, the first such message makes the kernel drop all others too, until the queue has
// been read empty (NETLINK_S_CONGESTED in net/netlink/af_netlink.c).
func (l *Listener) subscribe(filter []bpf.RawInstruction, buffer int) error {
	if err := errors.Join(l.netlink.SetBPF(filter), l.netlink.SetOption(netlink.NoENOBUFS, true), l.SetBuffer(buffer)); err != nil {
		return err
	}
	if _, err := l.Dropped(); err != nil {
		return err
	}
	for group := uint32(1); group <= destroyGroups; group++ {
		if err := l.netlink.JoinGroup(group); err != nil {
			return err
		}
	}
	return nil
}

// SetBuffer limits the bytes of kernel memory that waiting messages use, the kernel's own
// overhead included. A message uses about 1 KiB, see [Listener.Queued]. The limit is no
// allocation. Messages beyond a smaller limit stay queued.
//
// More than net.core.rmem_max needs CAP_NET_ADMIN; without it the limit is
// net.core.rmem_max.
func (l *Listener) SetBuffer(bytes int) error {
	var set error
	err := l.raw.Control(func(fd uintptr) {
		half := max(bytes/2, 1) // the kernel doubles it, for its overhead: socket(7)
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, half)
		if errors.Is(set, unix.EPERM) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, half)
		}
	})
	if err := errors.Join(err, set); err != nil {
		return fmt.Errorf("set the receive buffer to %d bytes: %w", bytes, err)
	}
	return nil
}

// Queued returns the bytes of kernel memory that the waiting messages use.
func (l *Listener) Queued() (int, error) {
	info, err := l.memory()
	return int(info[unix.SK_MEMINFO_RMEM_ALLOC]), err
}

// Dropped returns how many messages the kernel has dropped since Listen because the
// buffer had no room: exactly those that passed the filter and were not queued
// (netlink_overrun in net/netlink/af_netlink.c). It does not count a socket for which
// the kernel had no memory to make a message (sock_diag_broadcast_destroy in
// net/core/sock_diag.c).
func (l *Listener) Dropped() (uint64, error) {
	info, err := l.memory()
	if err != nil {
		return l.dropped.Load(), err
	}
	for {
		// The kernel counts in 32 bits, and another caller may have read later.
		before := l.dropped.Load()
		more := int32(info[unix.SK_MEMINFO_DROPS] - uint32(before))
		if more <= 0 {
			return before, nil
		}
		if l.dropped.CompareAndSwap(before, before+uint64(more)) {
			return before + uint64(more), nil
		}
	}
}

// memoryQuery reads SO_MEMINFO. As in Listener, the state is kept with its function.
type memoryQuery struct {
	info  [unix.SK_MEMINFO_VARS]uint32
	size  uint32
	errno syscall.Errno
	read  func(fd uintptr)
}

// memoryQueries are shared by all listeners.
var memoryQueries = freelist.New[memoryQuery](4)

func (q *memoryQuery) readFrom(fd uintptr) {
	q.size = uint32(unsafe.Sizeof(q.info))
	_, _, q.errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&q.info)), uintptr(unsafe.Pointer(&q.size)), 0)
}

// memory reads SO_MEMINFO (Linux 4.12).
func (l *Listener) memory() (info [unix.SK_MEMINFO_VARS]uint32, err error) {
	q := memoryQueries.Take()
	defer memoryQueries.Give(q)
	if q.read == nil {
		q.read = q.readFrom
	}
	q.errno = 0
	err = l.raw.Control(q.read)
	if l.closed.Load() {
		err = os.ErrClosed // the poller's own error for it is not exported
	}
	if err == nil && q.errno != 0 {
		err = q.errno
	}
	if err != nil {
		return info, fmt.Errorf("read SO_MEMINFO: %w", err)
	}
	return q.info, nil
}

// Wait waits until something can be received, or messages were lost. It receives
// nothing, and may run in one goroutine while another calls [Listener.ReceiveWaiting].
// After Close it returns os.ErrClosed.
func (l *Listener) Wait() error {
	err := l.raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err != nil || n > 0
	})
	if l.closed.Load() {
		err = os.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("wait for destroyed sockets: %w", err)
	}
	return nil
}

// ReceiveWaiting stores the sockets whose messages wait to be received in dst, up to its
// length, and returns their number, 0 where none waits. It allocates nothing and does
// not block.
//
// dst[:n] is valid also with an error. ENOBUFS (wrapped) reports that messages were
// lost before this moment, [Listener.Dropped] how many; it comes when the queue has
// been read empty, so that a dump that follows misses nothing. After ENOBUFS, and after
// a [*MalformedError], ReceiveWaiting can be called again. After Close it returns
// os.ErrClosed.
func (l *Listener) ReceiveWaiting(dst []Destroyed) (n int, err error) {
	l.dst, l.count, l.err = dst, 0, nil
	err = l.raw.Control(l.receive)
	n, l.dst = l.count, nil
	switch {
	case l.closed.Load():
		err = os.ErrClosed // the poller's own error for it is not exported
	case err == nil:
		err = l.err
	}
	if err != nil {
		return n, fmt.Errorf("receive destroyed sockets: %w", err)
	}
	return n, nil
}

// receiveAll reads messages until the queue is empty or dst is full.
func (l *Listener) receiveAll(fd uintptr) {
	batch := batches.Take()
	defer batches.Give(batch)
	for l.count < len(l.dst) {
		room := min(len(l.dst)-l.count, batchSize)
		n, errno := batch.receive(fd, room)
		l.empty.Store(n < room)
		if errno != 0 && errno != unix.EAGAIN {
			l.err = errno
			return
		}
		if l.err = l.take(batch, n); l.err != nil {
			return
		}
		if n < room {
			l.checkDropped()
			return
		}
	}
}

// take appends the messages of a batch to dst. It continues after a malformed message,
// and returns the error of the first.
func (l *Listener) take(batch *batch, n int) (first error) {
	for i := range n {
		b, err := batch.message(i)
		if err == nil {
			err = parseDestroyed(&l.dst[l.count], b)
		}
		if err == nil {
			l.count++
		} else if first == nil {
			first = err
		}
	}
	return first
}

// checkDropped makes ENOBUFS the error where messages were dropped since its last call.
func (l *Listener) checkDropped() {
	dropped, err := l.Dropped()
	if err == nil && dropped > l.reported {
		l.reported, err = dropped, unix.ENOBUFS
	}
	l.err = err
}

// Empty reports whether ReceiveWaiting has returned every message that the kernel has
// sent so far, and its caller has called it again. A closed Listener is empty.
func (l *Listener) Empty() bool {
	if !l.empty.Load() {
		return l.closed.Load()
	}
	queued, err := l.Queued()
	return err != nil || queued == 0
}

// Close ends the subscription and releases the namespace.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.netlink.Close()
}
