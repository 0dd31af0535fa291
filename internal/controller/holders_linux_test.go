package controller

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
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
	t.Cleanup(func() { kerneltest.End(t, child) })
	name := command[0]
	kerneltest.Eventually(t, "the child is "+name, func() bool {
		return process.NewFinder("/proc").Describe(child.Process.Pid).Name == name
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

// listening opens TCP port 80 in the box.
func (b *box) listening() (fd int, close func()) {
	b.t.Helper()
	return b.socket(unix.SOCK_STREAM, func(fd int) error {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 80}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
}

// refresh has the holders checked, as each round does, until what the only open
// port is held by is right.
func (r *rig) refresh(want ...string) {
	r.t.Helper()
	kerneltest.Await(r.t, "the processes are "+strings.Join(want, " "), func() string {
		r.checkSoon()
		if got := holdersOf(r.Open()); got != strings.Join(want, " ") {
			return got
		}
		return ""
	})
}

// checkSoon has the holders checked without the pause after a look-up.
func (r *rig) checkSoon() {
	if r.holders.underWay.CompareAndSwap(false, true) {
		r.holders.next = time.Time{}
		r.holders.underWay.Store(false)
		r.refreshHolders(r.t.Context())
	}
}

func holdersOf[T port.Open | port.State](open []T) string {
	var words []string
	for _, one := range open {
		var processes []port.Process
		switch one := any(one).(type) {
		case port.Open:
			processes = one.Processes
		case port.State:
			processes = one.Processes
		}
		for _, p := range processes {
			words = append(words, fmt.Sprint(p.PID, ":", p.Name))
		}
	}
	return strings.Join(words, " ")
}

// sleeps names processes that inherit started, in the order of their pids.
func sleeps(children ...*exec.Cmd) []string {
	slices.SortFunc(children, func(a, b *exec.Cmd) int { return a.Process.Pid - b.Process.Pid })
	var all []string
	for _, child := range children {
		all = append(all, fmt.Sprint(child.Process.Pid, ":sleep"))
	}
	return all
}

// A worker dies: the list is right, and nothing is told. Then the last of those
// that were told dies, and a process that came later still holds the port.
func TestHoldersChange(t *testing.T) {
	j := &fakeJournal{}
	r, b := start(t, func(o *Options) { o.Journal = j }), newBox(t)
	fd, closeIt := b.listening()
	first, second := inherit(t, fd), inherit(t, fd)
	closeIt()
	r.tell(engine.Started, b.container("web"))
	r.tell(engine.Synced, nil)
	opened := "opened web 80/tcp loopback sock_diag"
	r.wait(opened)
	r.refresh(sleeps(first, second)...)

	if err := first.Process.Kill(); err != nil { // and a zombie, until the test ends
		t.Fatal(err)
	}
	third := passOn(t, second)
	r.refresh(sleeps(second, third)...)
	r.wait(opened)
	r.keepState()
	if state, _ := j.state(); holdersOf(state) != strings.Join(sleeps(second, third), " ") {
		t.Errorf("the journal has the processes %s, want %s", holdersOf(state), sleeps(second, third))
	}

	before := time.Now()
	kerneltest.End(t, second)
	r.refresh(sleeps(third)...)
	r.wait(opened, "changed web 80/tcp loopback proc")
	changed := r.all()[1]
	if got := holdersOf([]port.Open{{Listener: changed.Listener}}); got != sleeps(third)[0] {
		t.Errorf("changed to %s, want %s", got, sleeps(third))
	}
	if changed.Time.Before(before) || changed.Time.After(time.Now()) {
		t.Errorf("changed at %v, want between %v and now", changed.Time, before)
	}
	kerneltest.End(t, third)
	r.wait(opened, "changed web 80/tcp loopback proc", "closed web 80/tcp loopback sock_diag")
	if got := holdersOf([]port.Open{{Listener: r.all()[2].Listener}}); got != sleeps(third)[0] {
		t.Errorf("closed, last %s, want %s", got, sleeps(third))
	}
}

// A process that becomes another program is still the one that was told.
func TestHolderExecs(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	fd, closeIt := b.listening()
	begin, gate, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer begin.Close()
	defer gate.Close()
	child := inherit(t, fd, "sh", "-c", "read line < /proc/"+fmt.Sprint(os.Getpid(), "/fd/", begin.Fd())+"; exec sleep 600")
	closeIt()
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
	r.refresh(fmt.Sprint(child.Process.Pid, ":sh"))
	if _, err := gate.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	r.refresh(sleeps(child)...)
	r.wait("opened web 80/tcp loopback sock_diag")
}

// What is left of a container that ends is no other owner.
func TestHolderOfEndingContainer(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	fd, closeIt := b.listening()
	first := inherit(t, fd)
	closeIt()
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
	r.refresh(sleeps(first)...)
	last := passOn(t, first)
	if err := b.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	kerneltest.Eventually(t, "the container's first process has ended", func() bool {
		return process.Ending("/proc", b.Process.Pid)
	})
	kerneltest.End(t, first)
	r.refresh(sleeps(last)...)
	r.wait("opened web 80/tcp loopback sock_diag")
}

// Nobody ends: a process that joins, and one that gives its socket away, are
// found by the look at all ports.
func TestHoldersWhenNobodyEnds(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	fd, closeIt := b.listening()
	r.tell(engine.Started, b.container("web"))
	opened := "opened web 80/tcp loopback sock_diag"
	r.wait(opened)
	r.eventually("the second look is over", func() bool { return !r.onlyGroup().watcher.armed })
	child := inherit(t, fd)
	whole := func(what string, f func() bool) {
		kerneltest.Eventually(t, what, func() bool {
			if r.holders.underWay.CompareAndSwap(false, true) {
				r.holders.nextWhole = time.Unix(0, 1)
				r.holders.underWay.Store(false)
			}
			r.checkSoon()
			return f()
		})
	}
	whole("both hold it", func() bool { return len(r.Open()[0].Processes) == 2 })
	r.wait(opened)
	closeIt()
	whole("the child alone holds it", func() bool { return holdersOf(r.Open()) == sleeps(child)[0] })
	r.wait(opened, "changed web 80/tcp loopback proc")
}

// Processes that end, while nobody can be asked who holds their ports now, stay
// the last known, and are asked for again.
func TestHoldersCannotBeAsked(t *testing.T) {
	proc := filepath.Join(t.TempDir(), "proc")
	show := func() {
		if err := os.Symlink("/proc", proc); err != nil {
			t.Fatal(err)
		}
	}
	show()
	r, b := start(t, func(o *Options) { o.Finder = process.NewFinder(proc) }), newBox(t)
	fd, closeIt := b.listening()
	first := inherit(t, fd)
	closeIt()
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
	r.refresh(sleeps(first)...)
	r.eventually("the second look is over", func() bool { return !r.onlyGroup().watcher.armed })

	if err := os.Remove(proc); err != nil {
		t.Fatal(err)
	}
	last := passOn(t, first)
	kerneltest.End(t, first)
	kerneltest.Eventually(t, "the failure is told", func() bool {
		r.checkSoon()
		return r.logged("Owners of sockets could not be read") == 1
	})
	if got := holdersOf(r.Open()); got != sleeps(first)[0] {
		t.Errorf("%s holds the port, want the last known %s", got, sleeps(first))
	}
	show()
	r.refresh(sleeps(last)...)
	r.wait("opened web 80/tcp loopback sock_diag", "changed web 80/tcp loopback proc")
}

func TestWithHidden(t *testing.T) {
	of := func(pids ...int) (all []port.Process) {
		for _, pid := range pids {
			all = append(all, port.Process{PID: pid})
		}
		return all
	}
	for _, test := range []struct {
		name         string
		found, known []port.Process
		denied       []int
		wants        []port.Process
	}{
		{"all could be looked into", of(20), of(10), nil, of(20)},
		{"the known could not", of(20), of(10), []int{10}, of(10, 20)},
		{"a stranger could not", of(20), of(10), []int{11}, of(20)},
		{"nobody found", nil, of(10, 11), []int{11, 12}, of(11)},
	} {
		if got := withHidden(test.found, test.known, test.denied); !slices.Equal(got, test.wants) {
			t.Errorf("%s: %v, want %v", test.name, got, test.wants)
		}
	}
}

// BenchmarkCheckHolders is what a round costs while 1,000 endpoints are open and
// nothing happens; the close look is taken every closeRounds rounds.
func BenchmarkCheckHolders(b *testing.B) {
	for _, processes := range []int{100, 1000} {
		b.Run(fmt.Sprint(processes, " processes"), func(b *testing.B) {
			c := New(Options{Logger: logrus.New(), ProcRoot: "/proc", Finder: process.NewFinder("/proc")})
			web := container([]string{"172.17.0.2"})
			var s tracker.Snapshot
			s.New = map[int]tracker.Owner{}
			for range processes {
				child := exec.Command("sleep", "600")
				if err := child.Start(); err != nil {
					b.Fatal(err)
				}
				defer func() {
					_ = child.Process.Kill()
					_ = child.Wait()
				}()
				for range 1000 / processes {
					number := len(s.Sockets)
					s.Sockets = append(s.Sockets, port.Socket{
						Cookie: uint64(number), Inode: uint32(number + 1), Protocol: port.TCP, Address: web.Addresses[0], Port: uint16(number + 1),
					})
					s.New[number] = tracker.Owner{Container: web, Processes: []port.Process{{PID: child.Process.Pid, Name: "sleep"}}}
				}
			}
			s.Began, s.Time = time.Now(), time.Now()
			c.tracker.Snapshot(nil, port.Namespace{Inode: 1}, s)
			c.findGone() // meets them all
			clear(c.holders.gone)
			c.checkHolders(context.Background())
			b.ReportAllocs()
			for b.Loop() {
				c.checkHolders(context.Background())
			}
			if len(c.holders.gone) > 0 {
				b.Fatalf("%d processes changed", len(c.holders.gone))
			}
		})
	}
}
