package attribute

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Recorded is a process as it was when its details were read.
type Recorded struct {
	PID  int
	Name string
}

// Lives finds out which processes have ended or become another program since its
// last call. A process that has not changed costs one system call and no
// allocation: as long as it lives, its folder in /proc is the same inode. Lives is
// not safe for concurrent use.
type Lives struct {
	procRoot string
	known    map[int]life
	check    uint64 // the number of this call
	path     []byte // reused, ends with a zero byte
	status   [512]byte
}

// life is what a process was at the last check.
type life struct {
	inode uint64 // of its folder
	start uint64 // in clock ticks since the host was started
	name  [nameSize]byte
	ended bool
	first uint64 // the first check of it
	last  uint64 // the last check of it
}

// nameSize is TASK_COMM_LEN in include/linux/sched.h.
const nameSize = 16

// NewLives returns a Lives without any process, over procRoot, normally /proc.
func NewLives(procRoot string) *Lives {
	return &Lives{procRoot: procRoot, known: map[int]life{}}
}

// Changed appends to dst the pids of those processes that have changed: they have
// ended, their pid is another process's, or their name differs, which an exec
// changes and a process can. At the first call with a process it is compared with
// its record, later with what it was at the call before, so that each change is
// returned once. Changed sorts recorded, and forgets processes that are missing
// in it.
//
// Only with details does it find what the inode of the folder does not show:
// another name, and a process that has ended and that its parent has not waited
// for. They cost three more system calls for each process.
//
// A process that may not be read counts as unchanged. The error is that of opening
// procRoot.
func (l *Lives) Changed(dst []int, recorded []Recorded, details bool) ([]int, error) {
	root, err := unix.Open(l.procRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dst, fmt.Errorf("find processes that have changed: open %s: %w", l.procRoot, err)
	}
	defer unix.Close(root)
	l.check++
	slices.SortFunc(recorded, func(a, b Recorded) int {
		if a.PID != b.PID {
			return a.PID - b.PID
		}
		return strings.Compare(a.Name, b.Name)
	})
	for i := range recorded {
		r := &recorded[i]
		if i > 0 && *r == recorded[i-1] {
			continue
		}
		if l.changed(root, r, details) && (len(dst) == 0 || dst[len(dst)-1] != r.PID) {
			dst = append(dst, r.PID)
		}
	}
	for pid, life := range l.known {
		if life.last != l.check {
			delete(l.known, pid)
		}
	}
	return dst, nil
}

func (l *Lives) changed(root int, r *Recorded, details bool) bool {
	before, known := l.known[r.PID]
	if known && before.last == l.check { // recorded under two names
		return before.first == l.check && !before.ended && before.comm() != r.Name
	}
	now, err := l.current(root, r.PID, before, details)
	if err != nil {
		if !known {
			return false
		}
		now = before
	}
	now.first, now.last = before.first, l.check
	if !known {
		now.first = l.check
	}
	l.known[r.PID] = now
	switch {
	case !known:
		return now.ended || now.comm() != r.Name
	case before.ended: // returned by an earlier call
		return false
	}
	return now.ended || now.start != before.start || now.name != before.name
}

// current returns what a process is now. The error is that of a process that may
// not be read.
func (l *Lives) current(root, pid int, before life, details bool) (life, error) {
	inode, err := l.folder(root, pid)
	if err == nil && inode == before.inode && !details {
		return before, nil
	}
	now := before
	if err == nil {
		now, err = l.read(root, pid)
		now.inode = inode
	}
	if gone(err) {
		now.ended, err = true, nil
	}
	return now, err
}

func (l *life) comm() string { return string(bytes.TrimRight(l.name[:], "\x00")) }

// folder returns the inode of a process's folder.
func (l *Lives) folder(root, pid int) (uint64, error) {
	l.path = append(strconv.AppendInt(l.path[:0], int64(pid), 10), 0)
	return folderInode(root, l.path)
}

func (l *Lives) open(root, pid int) (int, error) {
	l.path = append(strconv.AppendInt(l.path[:0], int64(pid), 10), "/stat\x00"...)
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(root), uintptr(unsafe.Pointer(&l.path[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// read reads what a process is now. One whose parent has not waited for it yet has
// ended all the same.
func (l *Lives) read(root, pid int) (life, error) {
	fd, err := l.open(root, pid)
	if err != nil {
		return life{}, err
	}
	n, err := unix.Read(fd, l.status[:])
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	if err != nil {
		return life{}, err
	}
	stat, ok := parseStat(l.status[:n])
	if !ok {
		return life{}, fmt.Errorf("%s cannot be parsed: %q", filepath.Join(l.procRoot, strconv.Itoa(pid), "stat"), l.status[:n])
	}
	now := life{start: stat.start, ended: stat.ended()}
	copy(now.name[:], stat.name)
	return now, nil
}
