package controller

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/kerneltest"
	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
	"portwatcher/internal/sockdiag"
)

// box is a process in a network namespace of its own, as a container's first
// process is.
type box struct {
	*exec.Cmd
	t *testing.T
}

func newBox(t *testing.T) *box {
	t.Helper()
	return &box{kerneltest.Isolated(t), t}
}

func (b *box) end() { kerneltest.End(b.t, b.Cmd) }

func (b *box) container(name string) *port.Container {
	return &port.Container{ID: strings.Repeat("0", 60) + fmt.Sprintf("%04x", b.Process.Pid%65536), Name: name, PID: b.Process.Pid}
}

// do calls f in the box's namespace.
func (b *box) do(f func() error) {
	b.t.Helper()
	handle, err := netns.Open("/proc", b.Process.Pid)
	if err != nil {
		b.t.Fatal(err)
	}
	defer handle.Close()
	if err := handle.Do(f); err != nil {
		b.t.Fatal(err)
	}
}

// socket makes a socket in the box's namespace.
func (b *box) socket(kind int, use func(fd int) error) (fd int, close func()) {
	b.t.Helper()
	b.do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return use(fd)
	})
	close = sync.OnceFunc(func() { unix.Close(fd) })
	b.t.Cleanup(close)
	return fd, close
}

// listen opens a TCP port in the box's namespace. It belongs to this process.
func (b *box) listen(number int) (close func()) {
	b.t.Helper()
	_, close = b.socket(unix.SOCK_STREAM, func(fd int) error {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: number}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
	return close
}

// netnsCookie asks for the number of the box's namespace in eBPF events.
func (b *box) netnsCookie() uint64 {
	b.t.Helper()
	handle, err := netns.Open("/proc", b.Process.Pid)
	if err != nil {
		b.t.Fatal(err)
	}
	defer handle.Close()
	conn, err := sockdiag.Dial(handle.FD(), sockdiag.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	cookie, err := netnsCookie(conn)
	if err != nil {
		kerneltest.Skip(b.t, "the kernel has no namespace cookies: "+err.Error())
	}
	return cookie
}

// cgroupOf makes a cgroup v2 folder for a container, and returns its id.
func cgroupOf(t *testing.T, containerID string) (*process.Cgroups, uint64) {
	t.Helper()
	c, err := process.OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		kerneltest.Skip(t, err.Error())
	}
	_, id := kerneltest.Cgroup(t, c.Root(), "portwatcher-test-"+containerID)
	return c, id
}
