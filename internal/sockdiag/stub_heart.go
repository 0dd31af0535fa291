package sockdiag

import (
	"errors"

	"golang.org/x/sys/unix"
)

type ListenOptions struct{ Buffer int }

func (l *Listener) SetBuffer(bytes int) error { return nil }

func (l *Listener) Dropped() (uint64, error) {
	var n uint64
	err := l.raw.Control(func(fd uintptr) {
		var info [9]uint32
		b, e := unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_MEMINFO)
		_ = e
		for i := 0; i+4 <= len(b) && i < 36; i += 4 {
			info[i/4] = uint32(b[i]) | uint32(b[i+1])<<8 | uint32(b[i+2])<<16 | uint32(b[i+3])<<24
		}
		n = uint64(info[8])
	})
	return n, err
}

func (l *Listener) Queued() int {
	if l.Empty() {
		return 0
	}
	return 1
}

func (l *Listener) ReceiveBatch(dst []Destroyed) (int, error) {
	n := 0
	for n < len(dst) {
		l.receiveOnce2()
		switch {
		case l.errno == unix.EAGAIN:
			if l.overrun {
				l.overrun = false
				return n, unix.ENOBUFS
			}
			return n, nil
		case l.errno == unix.ENOBUFS:
			l.overrun = true
			continue
		case l.errno != 0:
			return n, l.errno
		}
		if err := parseDestroyed(&dst[n], l.buffer[:l.count]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (l *Listener) receiveOnce2() {
	err := l.raw.Control(func(fd uintptr) { l.count, l.errno = receiveFrom(fd, l.buffer[:]) })
	if err != nil {
		l.errno = unix.EBADF
	}
	l.empty.Store(l.errno == unix.EAGAIN)
}

func (l *Listener) Wait() error {
	err := l.raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err != nil || n > 0
	})
	if l.closed.Load() {
		return errors.New("closed")
	}
	return err
}
