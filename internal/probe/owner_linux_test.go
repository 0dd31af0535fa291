package probe

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newCgroup makes a cgroup in the v2 hierarchy and returns it open, with its id.
func newCgroup(t *testing.T) (*os.File, uint64) {
	t.Helper()
	root, err := findCgroupRoot("")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "portwatcher-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(dir.Close(), os.Remove(path)); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return dir, st.Ino
}

// TestCgroup: a socket belongs to the cgroup that created it; the process that
// opens it may be in another one.
func TestCgroup(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	dir, id := newCgroup(t)
	within := func(command *exec.Cmd) {
		command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	end := func(command *exec.Cmd) {
		if err := command.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = command.Wait() // it was killed
	}

	var helper *exec.Cmd
	s.do(func() {
		helper = s.spawn("listen", within)
		for _, e := range c.next(2) {
			if e.Kind != Opened || e.Socket.Cgroup != id || e.TaskCgroup != id {
				t.Errorf("got %+v, want cgroup %d twice", e, id)
			}
			if want := s.dumped(e.Socket.Port).Cgroup; e.Socket.Cgroup != want {
				t.Errorf("cgroup %d, the dump shows %d", e.Socket.Cgroup, want)
			}
		}
	})
	end(helper)
	c.next(2)

	s.do(func() {
		fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		s.bind(fd, inet4(7003))
		file := os.NewFile(uintptr(fd), "socket")
		defer file.Close()
		helper = s.spawn("listen-inherited", func(command *exec.Cmd) {
			within(command)
			command.ExtraFiles = []*os.File{file}
		})
		e := c.one(Opened, 7003)
		if want := s.dumped(7003).Cgroup; e.Socket.Cgroup != want || want == id {
			t.Errorf("cgroup of the socket %d, want that of its creator, %d", e.Socket.Cgroup, want)
		}
		if e.TaskCgroup != id || e.PID != helper.Process.Pid {
			t.Errorf("cgroup of the task %d, pid %d, want %d, %d", e.TaskCgroup, e.PID, id, helper.Process.Pid)
		}
	})
	end(helper)
	c.one(Closed, 7003)
}

// TestName: a thread's own name is not the process's.
func TestName(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	s.do(func() {
		name := append([]byte("worker-thread"), 0)
		s.check("name the thread", unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0))
		fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		s.listen(fd)
		s.close(fd)
	})
	if got, want := c.next(2)[0].Name, strings.TrimSpace(string(comm)); got != want {
		t.Errorf("name %q, want %q", got, want)
	}
}

// TestUID: the owner is the user that created the socket.
func TestUID(t *testing.T) {
	const uid = 1234
	s := newSpace(t)
	c := collect(t, s, Options{})
	s.do(func() {
		_, err := unix.SetfsuidRetUid(uid)
		s.check("setfsuid", err)
		tcp := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		udp := s.socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		_, err = unix.SetfsuidRetUid(0)
		s.check("setfsuid", err)
		s.bind(tcp, inet4(7100))
		s.listen(tcp)
		s.bind(udp, inet6(7101, "::"))
		for _, e := range c.next(2) {
			if want := s.dumped(e.Socket.Port).UID; e.Socket.UID != uid || want != uid {
				t.Errorf("uid %d, the dump shows %d, want %d", e.Socket.UID, want, uid)
			}
		}
		s.close(tcp)
		s.close(udp)
	})
}

// TestHolders compares with the files of the processes themselves.
func TestHolders(t *testing.T) {
	s := newSpace(t)
	p := mustOpen(t, Options{})
	s.do(func() {
		fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		s.bind(fd, inet4(7200))
		s.listen(fd)
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		s.check("dup", err)
		udp := s.socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		s.bind(udp, inet6(7201, "::"))
		file := os.NewFile(uintptr(copied), "socket")
		defer file.Close()
		helper := s.spawn("listen-inherited", func(command *exec.Cmd) { command.ExtraFiles = []*os.File{file} })

		tcpInode, udpInode := s.dumped(7200).Inode, s.dumped(7201).Inode
		got, err := p.Holders(nil, map[uint32]struct{}{tcpInode: {}, udpInode: {}})
		s.check("holders", err)
		want := []Holder{
			{tcpInode, os.Getpid(), fd}, {tcpInode, os.Getpid(), copied}, {tcpInode, helper.Process.Pid, 3},
			{udpInode, os.Getpid(), udp},
		}
		for _, h := range want {
			if !slices.Contains(got, h) {
				t.Errorf("%+v is missing in %+v", h, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		for _, h := range got {
			path := "/proc/" + strconv.Itoa(h.PID) + "/fd/" + strconv.Itoa(h.FD)
			target, err := os.Readlink(path)
			s.check("read descriptor", err)
			if inode := "socket:[" + strconv.Itoa(int(h.Inode)) + "]"; target != inode {
				t.Errorf("%s is %s, want %s", path, target, inode)
			}
		}
		all, err := p.Holders(got, nil)
		s.check("holders", err)
		if len(all) < 2*len(want) || !slices.Equal(all[:len(got)], got) {
			t.Errorf("all holders, appended: %+v", all)
		}
		s.close(fd)
		s.close(udp)
		none, err := p.Holders(nil, map[uint32]struct{}{udpInode: {}})
		if err != nil || len(none) != 0 {
			t.Errorf("holders of a closed socket: %+v, %v", none, err)
		}
	})
}

// TestManyHolders needs several reads.
func TestManyHolders(t *testing.T) {
	const count = 20_000
	s := newSpace(t)
	p := mustOpen(t, Options{})
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(count, int(limit.Cur)-1000)
	s.do(func() {
		fds := map[int]bool{}
		for range n {
			fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			fds[fd] = true
		}
		all, err := p.Holders(nil, nil)
		s.check("holders", err)
		for _, h := range all {
			if h.PID == os.Getpid() {
				delete(fds, h.FD)
			}
		}
		if len(fds) != 0 {
			t.Errorf("%d of %d sockets are missing", len(fds), n)
		}
		for _, h := range all {
			if h.PID == os.Getpid() {
				s.close(h.FD)
			}
		}
	})
}

func TestAppendHoldersKeepsARest(t *testing.T) {
	raw := make([]byte, 3*holderSize)
	raw[0], raw[4], raw[8] = 1, 2, 3
	got, rest := appendHolders(nil, raw[:2*holderSize+5], nil)
	if len(got) != 2 || len(rest) != 5 {
		t.Errorf("%d holders and %d bytes left, want 2 and 5", len(got), len(rest))
	}
}
