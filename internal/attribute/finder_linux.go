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
	"sync"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
)

// Finder finds the processes that hold sockets, by the links in
// /proc/<pid>/fd. It is safe for concurrent use: calls that come while one walk
// is under way are answered together by the next.
type Finder struct {
	// Arguments describes processes with their arguments. It is set before the first use.
	Arguments bool
	procRoot  string

	walking sync.Mutex // held by the walk under way

	mutex   sync.Mutex
	waiting *batch // the walk to come
}

// Holders is the answer of a [Finder].
type Holders struct {
	// ByInode has the processes of each socket, ordered by pid.
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
	f.waiting = nil // later callers wait for the next walk
	f.mutex.Unlock()
	defer close(b.done)
	b.holders, b.err = f.walk(b.inodes)
}

func (f *Finder) walk(inodes map[uint32]struct{}) (Holders, error) {
	holders := Holders{ByInode: make(map[uint32][]model.Process, len(inodes))}
	pids, err := procfs.PIDs(f.procRoot)
	if err != nil {
		return holders, fmt.Errorf("find the processes that hold sockets: %w", err)
	}
	var found []uint32
	for _, pid := range pids {
		found = found[:0]
		err = netns.Through(f.procRoot, pid, func(folder string) (err error) {
			found, err = socketsIn(found, folder, inodes)
			return err
		})
		if errors.Is(err, fs.ErrPermission) {
			holders.Denied = append(holders.Denied, pid)
		}
		if len(found) == 0 {
			continue // none of these sockets, or it has ended
		}
		p := f.describe(pid)
		if p.Name == "" && !procfs.Exists(f.procRoot, pid) {
			continue // it has ended since
		}
		for _, inode := range found {
			holders.ByInode[inode] = append(holders.ByInode[inode], p)
		}
	}
	return holders, nil
}

// describe reads the details of a process; see [procfs.Describe].
func (f *Finder) describe(pid int) model.Process {
	p := procfs.Describe(f.procRoot, pid)
	if f.Arguments {
		p.Arguments = procfs.Arguments(f.procRoot, pid)
	}
	return p
}

// socketsIn appends those of the inodes that the process, or thread, with a folder holds,
// each once.
func socketsIn(found []uint32, folder string, inodes map[uint32]struct{}) ([]uint32, error) {
	dir, names, err := openFolder(filepath.Join(folder, "fd"))
	// Of a thread that has exited, the kernel shows no files, or denies them.
	if gone(err) || errors.Is(err, fs.ErrPermission) && procfs.Exited(folder) {
		return found, netns.ErrProcessGone
	}
	if err != nil {
		return found, err
	}
	defer dir.Close()
	if len(names) == 0 {
		return found, netns.ErrProcessGone
	}
	var link [64]byte
	for _, name := range names {
		n, err := unix.Readlinkat(int(dir.Fd()), name, link[:])
		if errors.Is(err, fs.ErrPermission) {
			return found, err
		}
		if err != nil {
			continue // closed since
		}
		inode, ok := socketInode(link[:n])
		if !ok {
			continue
		}
		if _, ok := inodes[inode]; ok && !slices.Contains(found, inode) {
			found = append(found, inode)
		}
	}
	return found, nil
}

// openFolder opens a folder and lists it.
func openFolder(path string) (*os.File, []string, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	return dir, names, nil
}

// socketInode parses a link of /proc/<pid>/fd, "socket:[12345]".
func socketInode(link []byte) (uint32, bool) {
	digits, prefix := bytes.CutPrefix(link, []byte("socket:["))
	digits, suffix := bytes.CutSuffix(digits, []byte("]"))
	inode, err := strconv.ParseUint(string(digits), 10, 32)
	if !prefix || !suffix || err != nil {
		return 0, false
	}
	return uint32(inode), true
}

// cgroupOf returns /proc/<pid>/cgroup, which has a line for each hierarchy, v1
// and v2; "" if the process has ended.
func (f *Finder) cgroupOf(pid int) (string, error) {
	text, err := procfs.ReadCgroups(f.procRoot, pid)
	if errors.Is(err, netns.ErrProcessGone) {
		return "", nil
	}
	return string(text), err
}
