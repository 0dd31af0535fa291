package kernel

import (
	"errors"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a fresh network namespace with its loopback interface up.
type Namespace struct {
	handle netns.NsHandle
}

// NewNamespace makes a network namespace that ends with the test.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{}
	failed := OnThread(func() error {
		err := EnterNew()
		if err == nil {
			n.handle, err = netns.Get()
		}
		return err
	})
	if errors.Is(failed, unix.EPERM) {
		Skip(t, "making a network namespace needs root (CAP_SYS_ADMIN)")
	}
	if failed != nil {
		t.Fatalf("make a network namespace: %v", failed)
	}
	t.Cleanup(func() {
		if err := n.handle.Close(); err != nil {
			t.Errorf("close network namespace: %v", err)
		}
	})
	return n
}

// FD is the namespace's descriptor, open as long as the test runs.
func (n *Namespace) FD() int { return int(n.handle) }

// Do runs f in the namespace, on a thread of its own that ends with it. Sockets
// that f opens stay in the namespace; goroutines that it starts do not.
func (n *Namespace) Do(t testing.TB, f func() error) {
	t.Helper()
	err := OnThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		t.Fatalf("in the network namespace: %v", err)
	}
}

// OnThread runs f on a thread that ends with it. The main thread cannot end: it would
// stay in the other namespace, and /proc/self with it.
func OnThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			result <- f()
			return
		}
		err := OnThread(f) // on another thread, since this one is locked here
		runtime.UnlockOSThread()
		result <- err
	}()
	return <-result
}

// EnterNew puts the calling thread, which its goroutine has locked and never
// unlocks, into a network namespace of its own with its loopback interface up.
func EnterNew() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	return LoopbackUp()
}

// LoopbackUp brings the loopback interface of the calling thread's network
// namespace up.
func LoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
