// Package netns opens, identifies and enters the network namespaces of processes. It
// does not create namespaces, and keeps no state.
//
// An open [Handle] keeps its namespace alive, as does every socket opened
// through it: close it as soon as the namespace's socket is open. All functions and
// methods, except Close, are safe for concurrent use.
package netns

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// ErrProcessGone reports that a process does not exist or has ended.
var ErrProcessGone = errors.New("process is gone")

// Handle is an open network namespace. The owner closes it.
type Handle struct {
	ns netns.NsHandle
	id model.Namespace
}

// Open opens the network namespace of process pid, as procRoot ("/proc")
// shows it, under the guard of [Hold].
//
// It needs CAP_SYS_PTRACE for processes of another container. The error wraps
// [ErrProcessGone] or the errno.
func Open(procRoot string, pid int) (*Handle, error) {
	h := &Handle{ns: netns.None()}
	err := Hold(procRoot, pid, func() error {
		err := Through(procRoot, pid, func(folder string) (err error) {
			path := filepath.Join(folder, namespaceFile)
			if h.ns, err = netns.GetFromPath(path); err != nil {
				return pathError("open", path, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(h.ns), &st); err != nil {
			return fmt.Errorf("identify the network namespace of process %d: %w", pid, err)
		}
		h.id = model.Namespace{Device: st.Dev, Inode: st.Ino}
		return nil
	})
	if err == nil {
		return h, nil
	}
	if h.ns.IsOpen() {
		err = errors.Join(err, h.Close())
	}
	return nil, err
}

// Hold calls f, which reads about process pid below procRoot, and returns its
// error. Where procRoot is this process's own /proc, a pidfd ensures that f reads about
// one process: the pid is not reused meanwhile. The error wraps [ErrProcessGone] where
// the process does not exist, or has ended meanwhile, whatever f returned.
func Hold(procRoot string, pid int, f func() error) error {
	if procRoot != "/proc" {
		return f()
	}
	guard, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("process %d: %w", pid, ErrProcessGone)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		// Kernels before 5.3 and strict seccomp profiles have no pidfd.
		return f()
	case err != nil:
		return fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	defer unix.Close(guard)
	err = f()
	if exited(guard) {
		return fmt.Errorf("process %d: %w", pid, ErrProcessGone)
	}
	return err
}

// Identify returns the identity of the network namespace of process pid
// without opening it. Its errors are those of [Open].
func Identify(procRoot string, pid int) (model.Namespace, error) {
	var id model.Namespace
	err := Through(procRoot, pid, func(folder string) error {
		path := filepath.Join(folder, namespaceFile)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return pathError("identify", path, err)
		}
		id = model.Namespace{Device: st.Dev, Inode: st.Ino}
		return nil
	})
	return id, err
}

// FD returns the descriptor, which the handle owns.
func (h *Handle) FD() int { return int(h.ns) }

// ID returns the namespace's identity.
func (h *Handle) ID() model.Namespace { return h.id }

// Do calls f on a thread of its own in the namespace, and returns its error. f
// must not start goroutines that rely on the namespace, nor change it. Do needs
// CAP_SYS_ADMIN; the error wraps the errno.
func (h *Handle) Do(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := h.visit(f)
		if home { // otherwise the thread ends with the goroutine
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// visit enters the namespace, calls f and returns; home is true where the thread is
// back. It may be the main thread, whose namespace counts as the process's.
func (h *Handle) visit(f func() error) (home bool, err error) {
	back, err := netns.Get()
	if err != nil {
		return true, fmt.Errorf("open this thread's network namespace: %w", err)
	}
	defer back.Close()
	if err := netns.Set(h.ns); err != nil {
		return true, fmt.Errorf("enter network namespace %s: %w (it needs CAP_SYS_ADMIN; cap_add: SYS_ADMIN)", h.id, err)
	}
	err = f()
	if backErr := netns.Set(back); backErr != nil {
		return false, errors.Join(err, fmt.Errorf("leave network namespace %s: %w", h.id, backErr))
	}
	return true, err
}

// Close releases the namespace.
func (h *Handle) Close() error { return h.ns.Close() }

// namespaceFile is in the folder of a process.
const namespaceFile = "ns/net"

// exited reports whether the process of a pidfd has ended, which makes the pidfd
// readable. Source: pidfd_open(2).
func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0
	}
}

func pathError(verb, path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		err = ErrProcessGone
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		err = fmt.Errorf("%w: it needs CAP_SYS_PTRACE (cap_add: SYS_PTRACE) and, where AppArmor is active, security_opt: apparmor=unconfined", err)
	}
	return fmt.Errorf("%s network namespace %s: %w", verb, path, err)
}
