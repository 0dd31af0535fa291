package source

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
	"portwatcher/internal/procfs"
	"portwatcher/internal/testutil/kernel"
	"portwatcher/internal/tracker"
)

// inherit starts a process that holds a copy of a socket, and that does nothing.
func inherit(t *testing.T, fd int, command ...string) *exec.Cmd {
	t.Helper()
	if len(command) == 0 {
		command = []string{"sleep", "600"}
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(copied), "socket")
	defer file.Close()
	child := exec.Command(command[0], command[1:]...)
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.End(t, child) })
	kernel.Eventually(t, "the child is "+command[0], func() bool {
		return procfs.Describe("/proc", child.Process.Pid).Name == command[0]
	})
	return child
}

// passOn starts a process that holds a copy of what inherit gave to another.
func passOn(t *testing.T, from *exec.Cmd) *exec.Cmd {
	t.Helper()
	pidfd, err := unix.PidfdOpen(from.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return inherit(t, fd)
}

// sleeps names processes that inherit started, in the order of their pids.
func sleeps(children ...*exec.Cmd) string {
	slices.SortFunc(children, func(a, b *exec.Cmd) int { return a.Process.Pid - b.Process.Pid })
	var all []string
	for _, child := range children {
		all = append(all, fmt.Sprint(child.Process.Pid, ":sleep"))
	}
	return strings.Join(all, " ")
}

// held watches port 80 of a box, which children hold, and checks its holders.
type held struct {
	*rig
	box   *kernel.Box
	w     *Watcher
	check *HolderCheck
	fd    int
	close func()
}

const opened80 = "opened 80/tcp sock_diag"

// hold opens port 80 for some children and not for this process.
func hold(t *testing.T, proc string, children int) (h *held, all []*exec.Cmd) {
	t.Helper()
	h = &held{box: kernel.NewBox(t)}
	h.fd, h.close = h.box.Socket(unix.SOCK_STREAM, func(fd int) error {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 80}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
	for range children {
		all = append(all, inherit(t, h.fd))
	}
	if children > 0 {
		h.close()
	}
	h.w, h.rig = manual(t, h.box)
	h.Finder = attribute.NewFinder(proc)
	h.check = NewHolderCheck(h.Env)
	if err := h.w.scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.await(opened80)
	return h, all
}

// now returns who holds the only open port.
func (h *held) now() string {
	var words []string
	for _, one := range h.open() {
		for _, p := range one.Processes {
			words = append(words, fmt.Sprint(p.PID, ":", p.Name))
		}
	}
	return strings.Join(words, " ")
}

// refresh checks the holders, without the pause after a lookup, until they are right.
func (h *held) refresh(whole bool, want string) {
	h.t.Helper()
	kernel.Await(h.t, "the processes are "+want, func() string {
		h.check.next = time.Time{}
		if whole {
			h.check.nextWhole = time.Time{}
		}
		h.check.Check(h.t.Context())
		if got := h.now(); got != want {
			return got
		}
		return ""
	})
}

// A worker dies: the list is right, and nothing is reported. Then the last of those that
// were reported dies, and a process that came later still holds the port.
func TestHoldersChange(t *testing.T) {
	h, c := hold(t, "/proc", 2)
	h.refresh(false, sleeps(c[0], c[1]))
	if err := c[0].Process.Kill(); err != nil { // and a zombie, until the test ends
		t.Fatal(err)
	}
	third := passOn(t, c[1])
	h.refresh(false, sleeps(c[1], third))
	h.await(opened80)
	kernel.End(t, c[1])
	h.refresh(false, sleeps(third))
	h.await(opened80, "changed 80/tcp proc")
}

// A process that becomes another program is the one that was reported.
func TestHolderExecs(t *testing.T) {
	h, c := hold(t, "/proc", 1)
	begin, gate, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer begin.Close()
	defer gate.Close()
	pidfd, err := unix.PidfdOpen(c[0].Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	child := inherit(t, fd, "sh", "-c", "read line < /proc/"+fmt.Sprint(os.Getpid(), "/fd/", begin.Fd())+"; exec sleep 600")
	unix.Close(fd)
	kernel.End(t, c[0])
	h.refresh(false, fmt.Sprint(child.Process.Pid, ":sh"))
	h.await(opened80, "changed 80/tcp proc")
	if _, err := gate.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	h.refresh(false, sleeps(child))
	h.await(opened80, "changed 80/tcp proc")
}

// Which of a container's processes hold a port while it ends, the capture can pass over.
func TestHolderOfEndingContainer(t *testing.T) {
	h, c := hold(t, "/proc", 1)
	h.refresh(false, sleeps(c[0]))
	last := passOn(t, c[0])
	if err := h.box.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	kernel.Eventually(t, "the container's first process has ended", func() bool {
		return procfs.Ending("/proc", h.box.Process.Pid)
	})
	kernel.End(t, c[0])
	h.refresh(false, sleeps(last))
	if n := h.number(func(o Observation) bool { held, is := o.(*Held); return is && held.Ending[strings.Repeat("1", 64)] }); n == 0 {
		t.Error("the lookup does not report that the container ends")
	}
}

// No process ends: a process that joins, and one that gives its socket away, are found by
// the lookup of all ports.
func TestHoldersWhenNobodyEnds(t *testing.T) {
	h, _ := hold(t, "/proc", 0)
	own := h.now()
	child := inherit(t, h.fd)
	both := own + " " + sleeps(child)
	if child.Process.Pid < os.Getpid() {
		both = sleeps(child) + " " + own
	}
	h.refresh(true, both)
	h.await(opened80)
	h.close()
	h.refresh(true, sleeps(child))
	h.await(opened80, "changed 80/tcp proc")
}

// Processes that end, while the holders of their ports cannot be read, stay the last
// known, and are asked for again.
func TestHoldersCannotBeAsked(t *testing.T) {
	proc := filepath.Join(t.TempDir(), "proc")
	show := func() {
		if err := os.Symlink("/proc", proc); err != nil {
			t.Fatal(err)
		}
	}
	show()
	h, c := hold(t, proc, 1)
	h.refresh(false, sleeps(c[0]))
	if err := os.Remove(proc); err != nil {
		t.Fatal(err)
	}
	last := passOn(t, c[0])
	kernel.End(t, c[0])
	kernel.Eventually(t, "the failure is in the log", func() bool {
		h.check.next = time.Time{}
		h.check.Check(t.Context())
		return h.logged("Owners of sockets could not be read") == 1
	})
	if got := h.now(); got != sleeps(c[0]) {
		t.Errorf("%s holds the port, want the last known %s", got, sleeps(c[0]))
	}
	show()
	h.refresh(false, sleeps(last))
	h.await(opened80, "changed 80/tcp proc")
}

func TestWithHidden(t *testing.T) {
	of := func(pids ...int) (all []model.Process) {
		for _, pid := range pids {
			all = append(all, model.Process{PID: pid})
		}
		return all
	}
	for _, test := range []struct {
		name         string
		found, known []model.Process
		denied       []int
		wants        []model.Process
	}{
		{"all files could be listed", of(20), of(10), nil, of(20)},
		{"the known could not", of(20), of(10), []int{10}, of(10, 20)},
		{"a stranger could not", of(20), of(10), []int{11}, of(20)},
		{"none found", nil, of(10, 11), []int{11, 12}, of(11)},
	} {
		if got := withHidden(test.found, test.known, test.denied); !slices.Equal(got, test.wants) {
			t.Errorf("%s: %v, want %v", test.name, got, test.wants)
		}
	}
}

// BenchmarkCheckHolders is what a round costs while 1,000 endpoints of this process are
// open and nothing happens.
func BenchmarkCheckHolders(b *testing.B) {
	t := &testing.T{}
	r, _ := newRig(t, nil)
	defer close(r.Closed)
	id := model.Namespace{Inode: 1}
	web := &model.Container{ID: "web", Name: "web", PID: os.Getpid()}
	s := tracker.Snapshot{New: map[int]tracker.Owner{}}
	self := procfs.Describe("/proc", os.Getpid())
	for number := range 1000 {
		s.Sockets = append(s.Sockets, model.Socket{Cookie: uint64(number + 1), Inode: uint32(number + 1), Protocol: model.TCP, Port: uint16(number + 1)})
		s.New[number] = tracker.Owner{Container: web, Processes: []model.Process{self}}
	}
	r.tracker.OpenNamespace(id)
	r.tracker.Snapshot(nil, id, s)
	check := NewHolderCheck(r.Env)
	check.findGone() // meets them all
	clear(check.gone)
	b.ReportAllocs()
	for b.Loop() {
		check.Check(b.Context())
	}
	if len(check.gone) > 0 {
		b.Fatalf("%d processes changed", len(check.gone))
	}
}
