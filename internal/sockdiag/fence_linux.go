package sockdiag

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Fence opens and closes sockets of its own and returns their cookies. When a
// [Listener] has received each of these, it has received the messages of all sockets
// that were destroyed before Fence.
//
// A caller needs it before it closes a Listener or counts its messages. The kernel sends
// messages from a work queue of each processor, and delays them while the receive buffer
// is more than half full: with a slow reader and busy processors 15,000 of 20,000
// messages were neither received nor queued nor dropped after the last socket was
// closed. Messages in the work queue when a Listener is closed are lost without a count.
//
// do runs a function on one thread in the Listener's namespace, as Do of a Handle in
// package netns does. The sockets are of UDP, one for each processor that the thread may
// run on, with a port that the kernel chooses. Their messages can be dropped as any
// other, so the caller must wait with a timeout. A worker of the kernel that sleeps may
// send a message a little late.
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
		// Other goroutines may use the thread later.
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
