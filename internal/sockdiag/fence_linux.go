package sockdiag

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Fence closes sockets of its own after all that were closed before, so that the
// caller can find out when a [Listener] has received the messages of those. It
// returns their cookies: once the Listener has received each of them, it has received
// what was sent for the sockets that went away before Fence.
//
// This is needed where a Listener is closed, or where its messages are counted. The
// kernel sends messages from a work queue of each processor, and delays it while the
// receive buffer is more than half full: with a slow reader and busy processors
// 15,000 of 20,000 messages were neither received nor queued nor dropped when the
// last socket had gone. What is in the work queue when a Listener is closed is lost
// without a count.
//
// do runs a function on one thread in the Listener's namespace, as
// Do of a Handle in package netns. There is a socket for each processor that
// the thread may run on, of UDP, bound to a port that the kernel chooses. The message
// of one of them can be dropped as any other, so that the caller waits for
// a time at most. A worker of the kernel that sleeps may send a message a little late.
func Fence(do func(func() error) error) (cookies []uint64, err error) {
	err = do(func() error {
		var allowed unix.CPUSet
		if err := unix.SchedGetaffinity(0, &allowed); err != nil {
			return fmt.Errorf("read the processors of this thread: %w", err)
		}
		left, err := allowed.Count(), error(nil)
		for cpu := 0; left > 0 && err == nil; cpu++ {
			if !allowed.IsSet(cpu) {
				continue
			}
			left--
			var one unix.CPUSet
			one.Set(cpu)
			if err = unix.SchedSetaffinity(0, &one); err != nil {
				err = fmt.Errorf("run on processor %d: %w", cpu, err)
				break
			}
			var cookie uint64
			if cookie, err = openAndClose(); err == nil {
				cookies = append(cookies, cookie)
			}
		}
		// The thread may be used by other goroutines later.
		if restoreErr := unix.SchedSetaffinity(0, &allowed); restoreErr != nil {
			err = errors.Join(err, fmt.Errorf("run on all processors again: %w", restoreErr))
		}
		return err
	})
	if err != nil {
		return cookies, fmt.Errorf("close sockets after all others: %w", err)
	}
	return cookies, nil
}

// openAndClose binds a UDP socket to a port that the kernel chooses, and closes it.
func openAndClose() (cookie uint64, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a UDP socket: %w", err)
	}
	if cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		err = fmt.Errorf("read the cookie of a socket: %w", err)
	} else if err = unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		err = fmt.Errorf("bind a UDP socket: %w", err)
	}
	return cookie, errors.Join(err, unix.Close(fd))
}
