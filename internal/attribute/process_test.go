package attribute

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

func TestSocketInode(t *testing.T) {
	for link, want := range map[string]uint32{
		"socket:[1]": 1, "socket:[4294967295]": 4294967295,
		"socket:[]": 0, "socket:[4294967296]": 0, "socket:[12": 0, "socket:[1x]": 0, "pipe:[12]": 0, "": 0, "socket:[-1]": 0,
	} {
		if got, ok := socketInode([]byte(link)); got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v; want %d", link, got, ok, want)
		}
	}
}

// listenInChild starts a process that holds the socket of l, and returns its
// pid.
func listenInChild(t *testing.T, l *net.TCPListener) int {
	t.Helper()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	child := exec.Command("sleep", "600")
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.End(t, child) })
	return child.Process.Pid
}

func listen(t *testing.T) (*net.TCPListener, uint32) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); err != nil {
		t.Fatal(err)
	}
	return l.(*net.TCPListener), uint32(st.Ino)
}

func TestFindAllHolders(t *testing.T) {
	l, inode := listen(t)
	_, other := listen(t)
	child := listenInChild(t, l)
	holders, err := NewFinder("/proc").Find([]uint32{inode, other, 1})
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, p := range holders.ByInode[inode] {
		pids = append(pids, p.PID)
	}
	want := []int{os.Getpid(), child}
	slices.Sort(want)
	if !slices.Equal(pids, want) {
		t.Errorf("pids %v, want %v", pids, want)
	}
	if len(holders.ByInode[other]) != 1 || len(holders.ByInode[1]) != 0 {
		t.Errorf("%v; want this process for one socket, nobody for the other", holders.ByInode)
	}
	i := slices.IndexFunc(holders.ByInode[inode], func(p model.Process) bool { return p.PID == child })
	p := holders.ByInode[inode][i]
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if sleep, err = filepath.EvalSymlinks(sleep); err != nil {
		t.Fatal(err)
	}
	if p.Name != "sleep" || p.Executable != sleep || p.UID == nil || int(*p.UID) != os.Geteuid() {
		t.Errorf("%+v; want sleep, %s, uid %d", p, sleep, os.Geteuid())
	}
}

// Calls that wait share a walk, and each gets its own answer.
func TestFindConcurrently(t *testing.T) {
	finder := NewFinder("/proc")
	var inodes []uint32
	for range 8 {
		_, inode := listen(t)
		inodes = append(inodes, inode)
	}
	var calls sync.WaitGroup
	for range 4 {
		for _, inode := range inodes {
			calls.Go(func() {
				holders, err := finder.Find([]uint32{inode})
				if err != nil || len(holders.ByInode[inode]) != 1 {
					t.Errorf("inode %d: %v, error %v; want this process", inode, holders.ByInode[inode], err)
				}
			})
		}
	}
	calls.Wait()
}

func TestFindWithoutProc(t *testing.T) {
	if _, err := NewFinder("/nonexistent").Find([]uint32{1}); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("error %v; want one that names the folder", err)
	}
}

var (
	idA = strings.Repeat("a1", 32)
	idB = strings.Repeat("b2", 32)
	idC = strings.Repeat("c3", 32)
)

// fakeProc makes a proc folder in which processes hold sockets.
func fakeProc(t *testing.T, cgroups map[int]string, sockets map[int]uint32) string {
	t.Helper()
	root := t.TempDir()
	for pid, cgroup := range cgroups {
		dir := filepath.Join(root, fmt.Sprint(pid))
		if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup"), []byte(cgroup), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(fmt.Sprintf("socket:[%d]", sockets[pid]), filepath.Join(dir, "fd", "3")); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAttribute(t *testing.T) {
	a, b := &model.Container{ID: idA, Name: "a"}, &model.Container{ID: idB, Name: "b"}
	known := map[string]*model.Container{idA: a, idB: b}
	proc := fakeProc(t,
		map[int]string{10: "0::/docker/" + idA, 20: "0::/docker/" + idB, 30: "0::/system.slice/docker.service", 40: "0::/docker/" + idC,
			50: "0::/machine.slice/libpod-" + idC + ".scope"},
		map[int]uint32{10: 110, 20: 120, 30: 130, 40: 140, 50: 150})
	cgroups := newCgroups("")
	cgroups.remember(1, "/")
	cgroups.remember(7, "/docker/"+idB)
	cgroups.remember(99, "")
	attributor := NewAttributor(NewFinder(proc), cgroups)
	resolver := netip.MustParseAddr("127.0.0.11")
	for _, test := range []struct {
		name    string
		socket  model.Socket
		members []*model.Container
		host    bool
		want    *model.Container
		pid     int
	}{
		{"the cgroup wins over the process", model.Socket{Cgroup: 7, Inode: 110}, []*model.Container{a}, false, b, 10},
		{"by process", model.Socket{Cgroup: 99, Inode: 110}, []*model.Container{a, b}, false, a, 10},
		{"by process, root cgroup", model.Socket{Cgroup: 1, Inode: 120}, []*model.Container{a, b}, false, b, 20},
		{"by namespace, nobody holds it", model.Socket{Inode: 999}, []*model.Container{a}, false, a, 0},
		{"by namespace, a process of the host", model.Socket{Inode: 130}, []*model.Container{a}, false, a, 30},
		{"several in the namespace", model.Socket{Inode: 130}, []*model.Container{a, b}, false, nil, 30},
		{"the host's namespace", model.Socket{Inode: 130}, []*model.Container{a}, true, nil, 30},
		{"a container on the host's network", model.Socket{Inode: 110}, []*model.Container{a}, true, a, 10},
		{"the engine's resolver", model.Socket{Inode: 130, Address: resolver}, []*model.Container{a}, false, nil, 30},
		{"the container's own on that address", model.Socket{Inode: 110, Address: resolver}, []*model.Container{a}, false, a, 10},
		{"a container not announced yet", model.Socket{Inode: 140}, []*model.Container{a}, false, nil, 40},
		{"a container of another engine that uses this namespace", model.Socket{Inode: 150}, []*model.Container{a}, false, a, 50},
	} {
		t.Run(test.name, func(t *testing.T) {
			members := Members{Lookup: func(id string) *model.Container { return known[id] }, Namespace: test.members, Host: test.host}
			owners, denied, err := attributor.Attribute([]model.Socket{test.socket}, members)
			if err != nil || denied != 0 {
				t.Fatalf("denied %d, error %v", denied, err)
			}
			pid := 0
			if len(owners[0].Processes) > 0 {
				pid = owners[0].Processes[0].PID
			}
			if owners[0].Container != test.want || pid != test.pid {
				t.Errorf("container %v, pid %d; want %v, %d", owners[0].Container, pid, test.want, test.pid)
			}
		})
	}
}

func TestCgroupOfGoneProcess(t *testing.T) {
	if paths, err := NewFinder("/proc").cgroupOf(1 << 30); paths != "" || err != nil {
		t.Errorf("%q, %v; want nothing", paths, err)
	}
}

// A process whose main thread has exited holds its sockets, and lives.
func TestFindWithoutMainThread(t *testing.T) {
	l, inode := listen(t)
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pid := kernel.Mainless(t, file).Process.Pid
	holders, err := NewFinder("/proc").Find([]uint32{inode})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(holders.ByInode[inode], func(p model.Process) bool { return p.PID == pid })
	if at < 0 || holders.ByInode[inode][at].Executable == "" {
		t.Fatalf("holders %+v; want process %d with its executable", holders.ByInode[inode], pid)
	}
	name := holders.ByInode[inode][at].Name
	expectPIDs(t, "it lives", changed(t, NewLives("/proc"), true, Recorded{pid, name}))
}
