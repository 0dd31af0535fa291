package kernel

import (
	"os/exec"
	"sync"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Box is a process in a network namespace of its own, as a container's first process.
// It ends with the test.
type Box struct {
	*exec.Cmd
	t testing.TB
}

// NewBox starts a box.
func NewBox(t testing.TB) *Box {
	t.Helper()
	return &Box{Isolated(t), t}
}

// End ends the box's process, and does nothing the second time.
func (b *Box) End() {
	b.t.Helper()
	End(b.t, b.Cmd)
}

// Do calls f in the box's namespace, on a thread that ends with it.
func (b *Box) Do(f func() error) {
	b.t.Helper()
	handle, err := netns.GetFromPid(b.Process.Pid)
	if err != nil {
		b.t.Fatal(err)
	}
	defer handle.Close()
	(&Namespace{handle}).Do(b.t, f)
}

// Socket makes an IPv4 socket of a type in the box's namespace and calls use with it.
// This process holds it until the end of the test or until closeIt.
func (b *Box) Socket(kind int, use func(fd int) error) (fd int, closeIt func()) {
	b.t.Helper()
	b.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return use(fd)
	})
	closeIt = sync.OnceFunc(func() {
		if err := unix.Close(fd); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(closeIt)
	return fd, closeIt
}

// Listen opens a TCP port on all IPv4 addresses of the box's namespace, as Socket does.
func (b *Box) Listen(number int) (closeIt func()) {
	b.t.Helper()
	_, closeIt = b.Socket(unix.SOCK_STREAM, func(fd int) error {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: number}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
	return closeIt
}
