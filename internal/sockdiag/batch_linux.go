package sockdiag

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"portwatcher/internal/freelist"
)

const (
	// batchSize is the number of messages that one system call reads: 16 or 32 messages
	// in one call need a fourth of the time of as many calls.
	batchSize = 32
	// destroyBuffer holds one message, with room for a longer tcp_info.
	destroyBuffer = 1024
)

// batches are shared by all listeners: each read needs one while it lasts.
var batches = freelist.New[batch](4)

// batch is the memory of one recvmmsg(2). The zero value is ready.
type batch struct {
	headers [batchSize]multiHeader
	vectors [batchSize]unix.Iovec
	buffers [batchSize][destroyBuffer]byte
}

// multiHeader is struct mmsghdr of include/linux/socket.h.
type multiHeader struct {
	header unix.Msghdr
	length uint32 // of the message received
}

// receive reads up to n messages without blocking. Fewer than n are all that wait. The
// error is EAGAIN where none waits.
func (b *batch) receive(fd uintptr, n int) (int, syscall.Errno) {
	for i := range n {
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(destroyBuffer)
		b.headers[i].header.Iov = &b.vectors[i]
		b.headers[i].header.SetIovlen(1)
	}
	for {
		received, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers[0])), uintptr(n),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		switch errno {
		case 0:
			return int(received), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// message returns one of the messages that were received, valid until the next
// receive. With MSG_TRUNC its length is the true one.
func (b *batch) message(i int) ([]byte, error) {
	length := b.headers[i].length
	if length > destroyBuffer {
		return nil, malformed("%d bytes in a destroy notification, at most %d are expected", length, destroyBuffer)
	}
	return b.buffers[i][:length], nil
}
