package sockdiag

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

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

// ReceiveWaiting is [Listener.ReceiveBatch] for what waits already: where nothing does
// it returns 0 and no error.
func (l *Listener) ReceiveWaiting(dst []Destroyed) (n int, err error) {
	l.dst, l.count, l.err = dst, 0, nil
	err = l.raw.Control(l.control)
	n, l.dst = l.count, nil
	switch {
	case l.closed.Load():
		err = os.ErrClosed
	case err == nil:
		err = l.err
	}
	if err != nil {
		return n, fmt.Errorf("receive destroyed sockets: %w", err)
	}
	return n, nil
}
