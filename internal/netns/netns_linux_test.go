package netns_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/netns"
	"portwatcher/internal/testutil/kernel"
)

func TestOpenOwnNamespace(t *testing.T) {
	h, err := netns.Open("/proc", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	id, err := netns.Identify("/proc", os.Getpid())
	if err != nil || id != h.ID() || id.Inode == 0 || id.Device == 0 {
		t.Errorf("identity %v and %v, error %v", id, h.ID(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(h.FD(), &st); err != nil || st.Ino != id.Inode {
		t.Errorf("descriptor of inode %d, error %v; want %d", st.Ino, err, id.Inode)
	}
}

// The main thread of a process may have exited.
func TestOpenWithoutMainThread(t *testing.T) {
	own, err := netns.Identify("/proc", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	child := kernel.Mainless(t)
	if id, err := netns.Identify("/proc", child.Process.Pid); err != nil || id != own {
		t.Errorf("identity %v, error %v; want %v", id, err, own)
	}
	h, err := netns.Open("/proc", child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.ID() != own {
		t.Errorf("namespace %v, want %v", h.ID(), own)
	}
	kernel.End(t, child)
	if _, err := netns.Open("/proc", child.Process.Pid); !errors.Is(err, netns.ErrProcessGone) {
		t.Errorf("error %v for an ended process, want ErrProcessGone", err)
	}
}

func TestOpenOtherNamespace(t *testing.T) {
	child := kernel.Isolated(t)
	h, err := netns.Open("/proc", child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if own, err := netns.Identify("/proc", os.Getpid()); err != nil || own == h.ID() {
		t.Errorf("own namespace %v, the child's %v, error %v", own, h.ID(), err)
	}
	before, err := netns.Identify("/proc", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if after, err := netns.Identify("/proc", os.Getpid()); err != nil || after != before {
		t.Errorf("in namespace %v, error %v; want to be back in %v", after, err, before)
	}
	kernel.End(t, child)
	if _, err := netns.Open("/proc", child.Process.Pid); !errors.Is(err, netns.ErrProcessGone) {
		t.Errorf("error %v for an ended process, want ErrProcessGone", err)
	}
	if _, err := netns.Identify("/proc", child.Process.Pid); !errors.Is(err, netns.ErrProcessGone) {
		t.Errorf("error %v for an ended process, want ErrProcessGone", err)
	}
}
