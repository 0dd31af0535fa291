package probe

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newCgroup makes a cgroup in the v2 hierarchy and returns it open, with its id.
func newCgroup(t *testing.T, name string) (*os.File, uint64) {
	t.Helper()
	root, err := findCgroupRoot("")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "portwatcher-test-"+strconv.Itoa(os.Getpid())+"-"+name)
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
	dir, id := newCgroup(t, "owner")
	within := inCgroup(dir)
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
