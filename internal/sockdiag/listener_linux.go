package sockdiag

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"portwatcher/internal/freelist"
)

// defaultBuffer is the receive buffer where Options leave it 0. It is a limit, not
// an allocation: at 84,000 closes a second the system's default overruns.
const defaultBuffer = 64 << 20

// Listener receives a message for each socket that is destroyed in one network
// namespace. It keeps that namespace alive until it is closed.
//
// ReceiveBatch may run in one goroutine; all other methods may be called at any
// time, by anyone. Close ends a ReceiveBatch that waits.
type Listener struct {
	netlink *netlink.Conn
	raw     syscall.RawConn
	closed  atomic.Bool
	empty   atomic.Bool   // the queue was at the last read
	dropped atomic.Uint64 // as of the last read of the kernel's counter

	// The state of one ReceiveBatch, kept here with the function that does it
	// because a closure made for each call would be allocated.
	dst      []Destroyed
	count    int
	err      error
	reported uint64 // of dropped, by ENOBUFS
	receive  func(fd uintptr) bool
	control  func(fd uintptr) // receive, without waiting
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
// descriptor fd, or of the caller's own if fd is 0. Of options it uses Buffer. The
// errors are those of [Dial].
//
// Where the modules of sock_diag are not loaded there are no messages; see
// [LoadModules].
func Listen(fd int, options Options) (*Listener, error) {
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
	l.control = func(fd uintptr) { l.receiveAll(fd) }
	if l.raw, err = conn.SyscallConn(); err == nil {
		err = l.subscribe(filter, options)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for destroyed sockets: %w", err), conn.Close())
	}
	return l, nil
}

// subscribe joins the groups last, so that no message comes before the filter.
//
// NETLINK_NO_ENOBUFS has the kernel drop only messages that find no room. Without
// it, the first such message makes it drop all others too, until the queue has been
// read empty (NETLINK_S_CONGESTED in net/netlink/af_netlink.c).
func (l *Listener) subscribe(filter []bpf.RawInstruction, options Options) error {
	if options.Buffer == 0 {
		options.Buffer = defaultBuffer
	}
	if err := errors.Join(l.netlink.SetBPF(filter), l.netlink.SetOption(netlink.NoENOBUFS, true), l.SetBuffer(options.Buffer)); err != nil {
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

// SetBuffer sets how many bytes of kernel memory the messages that wait may take, the
// kernel's own overhead included. A message takes 1 KiB, see [Listener.Queued]. It is
// a limit, not an allocation. What waits beyond a smaller limit stays.
//
// More than net.core.rmem_max needs CAP_NET_ADMIN; without it the buffer is as large
// as is allowed.
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

// Buffer returns the limit that holds; see [Listener.SetBuffer].
func (l *Listener) Buffer() (int, error) {
	info, err := l.memory()
	return int(info[unix.SK_MEMINFO_RCVBUF]), err
}

// Queued returns how many bytes of kernel memory the messages take that wait to be
// received.
func (l *Listener) Queued() (int, error) {
	info, err := l.memory()
	return int(info[unix.SK_MEMINFO_RMEM_ALLOC]), err
}

// Dropped returns how many messages the kernel has dropped since Listen because the
// buffer had no room: exactly those that the filter let pass and that were not
// queued (netlink_overrun in net/netlink/af_netlink.c).
//
// Not counted is a socket for which the kernel had no memory to make a message
// (sock_diag_broadcast_destroy in net/core/sock_diag.c).
func (l *Listener) Dropped() (uint64, error) {
	info, err := l.memory()
	if err != nil {
		return l.dropped.Load(), err
	}
	for {
		// The kernel counts in 32 bits, and another caller may have read a later
		// count.
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

// memoryQuery reads SO_MEMINFO. It is kept with the function that does it, as the state
// of ReceiveBatch is.
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

// SetReadDeadline sets when a ReceiveBatch that waits ends with
// os.ErrDeadlineExceeded, a past one too; the zero time is never. A deadline that has
// passed ends each later ReceiveBatch at once, until another is set.
func (l *Listener) SetReadDeadline(t time.Time) error { return l.netlink.SetReadDeadline(t) }

// ReceiveBatch waits until a socket goes away, stores it and all others that wait to
// be received in dst, up to its length, and returns their number. It allocates
// nothing.
//
// dst[:n] is valid also with an error. ENOBUFS (wrapped) reports that messages were
// lost before this moment, [Listener.Dropped] how many; it comes when the queue has
// been read empty, so that a dump made in answer to it misses nothing. After it, and
// after a [*MalformedError], ReceiveBatch can be called again. After Close it returns
// os.ErrClosed.
func (l *Listener) ReceiveBatch(dst []Destroyed) (n int, err error) {
	l.dst, l.count, l.err = dst, 0, nil
	err = l.raw.Read(l.receive)
	n, l.dst = l.count, nil
	switch {
	case err == nil:
		err = l.err
	case l.closed.Load():
		err = os.ErrClosed
	}
	if err != nil {
		return n, fmt.Errorf("receive destroyed sockets: %w", err)
	}
	return n, nil
}

// receiveAll reads messages until the queue is empty or dst is full. It returns false
// to wait for the first.
func (l *Listener) receiveAll(fd uintptr) bool {
	batch := batches.Take()
	defer batches.Give(batch)
	for l.count < len(l.dst) {
		room := min(len(l.dst)-l.count, batchSize)
		n, errno := batch.receive(fd, room)
		l.empty.Store(n < room)
		if errno != 0 && errno != unix.EAGAIN {
			l.err = errno
			return true
		}
		if l.err = l.take(batch, n); l.err != nil {
			return true
		}
		if n < room {
			return l.checkDropped() || l.count > 0
		}
	}
	return true
}

// take appends the messages of a batch to dst. After a malformed one it goes on, and
// returns the error of the first.
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

// checkDropped makes ENOBUFS the error where messages were dropped since it was last
// called, and returns whether there is an error.
func (l *Listener) checkDropped() bool {
	dropped, err := l.Dropped()
	if err == nil && dropped > l.reported {
		l.reported, err = dropped, unix.ENOBUFS
	}
	l.err = err
	return err != nil
}

// Empty returns whether ReceiveBatch has returned everything that the kernel has sent
// so far, and its caller has called it again. A Listener that is closed is empty.
func (l *Listener) Empty() bool {
	if !l.empty.Load() {
		return l.closed.Load()
	}
	queued, err := l.Queued()
	return err != nil || queued == 0
}

// Close ends the subscription and lets go of the namespace.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.netlink.Close()
}
