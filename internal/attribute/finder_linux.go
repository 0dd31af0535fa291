package attribute

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
)

// Finder finds the processes that hold sockets, by the links in
// /proc/<pid>/fd. It is safe for concurrent use: calls that come while one walk
// is under way are answered together by the next.
type Finder struct {
	procRoot string

	walking sync.Mutex // held by the walk under way

	mutex   sync.Mutex
	waiting *batch // the walk to come
}

// Holders is the answer of a [Finder].
type Holders struct {
	// ByInode has the processes of each socket asked for, ordered by pid.
	ByInode map[uint32][]model.Process
	// Denied are the processes whose files could not be listed for lack of
	// permission: where there are any, ByInode may be incomplete.
	Denied []int
}

type batch struct {
	inodes  map[uint32]struct{}
	done    chan struct{}
	holders Holders
	err     error
}

// NewFinder returns a finder over procRoot, normally /proc.
func NewFinder(procRoot string) *Finder { return &Finder{procRoot: procRoot} }

// Find returns the processes that hold the sockets of these inodes. A process
// that ends meanwhile is left out. The error is that of listing procRoot.
func (f *Finder) Find(inodes []uint32) (Holders, error) {
	f.mutex.Lock()
	b := f.waiting
	first := b == nil
	if first {
		b = &batch{inodes: map[uint32]struct{}{}, done: make(chan struct{})}
		f.waiting = b
	}
	for _, inode := range inodes {
		b.inodes[inode] = struct{}{}
	}
	f.mutex.Unlock()

	if first {
		f.run(b)
	}
	<-b.done
	return b.holders, b.err
}

func (f *Finder) run(b *batch) {
	f.walking.Lock()
	defer f.walking.Unlock()
	f.mutex.Lock()
	f.waiting = nil // from here on, newcomers wait for the next walk
	f.mutex.Unlock()
	defer close(b.done)
	b.holders, b.err = f.walk(b.inodes)
}

func (f *Finder) walk(inodes map[uint32]struct{}) (Holders, error) {
	holders := Holders{ByInode: make(map[uint32][]model.Process, len(inodes))}
	root, err := os.Open(f.procRoot)
	if err != nil {
		return holders, fmt.Errorf("find the processes that hold sockets: %w", err)
	}
	defer root.Close()
	names, err := root.Readdirnames(-1)
	if err != nil {
		return holders, fmt.Errorf("find the processes that hold sockets: %w", err)
	}
	var found []uint32
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue // not a process
		}
		found, err = f.socketsOf(found[:0], pid, inodes)
		if errors.Is(err, fs.ErrPermission) && f.lives(pid) {
			holders.Denied = append(holders.Denied, pid)
		}
		if len(found) == 0 {
			continue // none of these sockets, or it has ended
		}
		p := f.Describe(pid)
		if p.Name == "" && !Exists(f.procRoot, pid) {
			continue // it has ended since
		}
		for _, inode := range found {
			holders.ByInode[inode] = append(holders.ByInode[inode], p)
		}
	}
	for _, processes := range holders.ByInode {
		slices.SortFunc(processes, func(a, b model.Process) int { return a.PID - b.PID })
	}
	return holders, nil
}

// lives returns whether a process exists and is no zombie: the kernel denies the
// files of a zombie.
func (f *Finder) lives(pid int) bool {
	status, err := os.ReadFile(filepath.Join(f.procRoot, strconv.Itoa(pid), "status"))
	return err == nil && !bytes.Contains(status, []byte("\nState:\tZ")) && !bytes.Contains(status, []byte("\nState:\tX"))
}

// Exists returns whether procRoot shows a process.
func Exists(procRoot string, pid int) bool {
	_, err := os.Stat(filepath.Join(procRoot, strconv.Itoa(pid)))
	return err == nil
}

// FirstProcess returns the pid of a process in the host's network namespace: the kernel's
// own first process, which some systems let be read where they hide pid 1, or pid 1 where
// procRoot does not show the host's processes.
func FirstProcess(procRoot string) int {
	if HostProcesses(procRoot) {
		return 2
	}
	return 1
}

// HostNamespace returns the network namespace of the host; see [FirstProcess]. The error
// is that of [netns.Identify].
func HostNamespace(procRoot string) (model.Namespace, error) {
	return netns.Identify(procRoot, FirstProcess(procRoot))
}

// HostProcesses returns whether procRoot shows the processes of the initial pid
// namespace: there, and only there, process 2 is the kernel's kthreadd.
func HostProcesses(procRoot string) bool {
	name, err := os.ReadFile(filepath.Join(procRoot, "2/comm"))
	return err == nil && string(name) == "kthreadd\n"
}

// socketsOf appends those of the wanted inodes that process pid holds, each
// once.
func (f *Finder) socketsOf(found []uint32, pid int, wanted map[uint32]struct{}) ([]uint32, error) {
	dir, err := os.Open(filepath.Join(f.procRoot, strconv.Itoa(pid), "fd"))
	if err != nil {
		return found, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return found, err
	}
	var link [64]byte
	for _, name := range names {
		n, err := unix.Readlinkat(int(dir.Fd()), name, link[:])
		if err != nil {
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				return found, err
			}
			continue // closed since
		}
		inode, ok := socketInode(link[:n])
		if !ok {
			continue
		}
		if _, ok := wanted[inode]; ok && !slices.Contains(found, inode) {
			found = append(found, inode)
		}
	}
	return found, nil
}

// socketInode reads a link of /proc/<pid>/fd, "socket:[12345]".
func socketInode(link []byte) (uint32, bool) {
	digits, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok || len(digits) < 2 || digits[len(digits)-1] != ']' {
		return 0, false
	}
	var inode uint64
	for _, d := range digits[:len(digits)-1] {
		if d < '0' || d > '9' {
			return 0, false
		}
		if inode = inode*10 + uint64(d-'0'); inode > 1<<32-1 {
			return 0, false
		}
	}
	return uint32(inode), true
}

// Describe reads the details of a process. What cannot be read, because the process
// has ended or for lack of permission, is left out.
func (f *Finder) Describe(pid int) model.Process {
	dir := filepath.Join(f.procRoot, strconv.Itoa(pid))
	p := model.Process{PID: pid}
	if status, err := os.ReadFile(filepath.Join(dir, "status")); err == nil {
		parseStatus(&p, string(status))
	}
	if executable, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		p.Executable = strings.TrimSuffix(executable, " (deleted)")
	}
	return p
}

// parseStatus reads /proc/<pid>/status. Source: proc_pid_status(5).
func parseStatus(p *model.Process, status string) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		switch fields := strings.Fields(value); key {
		case "Name":
			p.Name = strings.TrimPrefix(value, "\t")
		case "Uid": // real, effective, saved set, file system
			if len(fields) == 4 {
				if uid, err := strconv.ParseUint(fields[1], 10, 32); err == nil {
					effective := uint32(uid)
					p.UID = &effective
				}
			}
		case "NSpid": // from the reader's pid namespace to the innermost
			if len(fields) > 0 {
				if pid, err := strconv.Atoi(fields[len(fields)-1]); err == nil {
					p.ContainerPID = pid
				}
			}
		}
	}
}

// cgroupOf returns /proc/<pid>/cgroup, which has a line for each hierarchy, v1
// and v2; "" if the process has ended.
func (f *Finder) cgroupOf(pid int) (string, error) {
	b, err := os.ReadFile(filepath.Join(f.procRoot, strconv.Itoa(pid), "cgroup"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return "", nil
	}
	return string(b), err
}
