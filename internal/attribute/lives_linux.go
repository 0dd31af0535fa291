package attribute

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"portwatcher/internal/procfs"
)

// Recorded is a process as it was when its details were read.
type Recorded struct {
	PID  int
	Name string
}

// Lives finds out which processes have ended or become another program since its
// last call. A process that has not changed costs one system call and no
// allocation. Lives is not safe for concurrent use.
type Lives struct {
	procRoot string
	known    map[int]life
	check    uint64    // the number of this call
	path     []byte    // reused, ends with a zero byte
	text     [512]byte // reused
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
// ended, their pid is another process's, or their name differs, after an exec or a
// change by the process itself. The first call with a process compares it with its
// record, a later call with the call before, so that each change is returned once.
// Changed sorts recorded, and forgets processes that are missing in it.
//
// Only with details does it find what the inode of the folder does not show: another
// name, and a process that has ended and that its parent has not waited for. They
// cost three more system calls for each process.
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
	l.path = append(strconv.AppendInt(l.path[:0], int64(pid), 10), 0)
	inode, err := folderInode(root, l.path)
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

// read reads what a process is now. One whose parent has not waited for it yet has
// ended.
func (l *Lives) read(root, pid int) (life, error) {
	l.path = append(strconv.AppendInt(l.path[:0], int64(pid), 10), "/stat\x00"...)
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(root), uintptr(unsafe.Pointer(&l.path[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return life{}, errno
	}
	n, err := unix.Read(int(fd), l.text[:])
	if closeErr := unix.Close(int(fd)); err == nil {
		err = closeErr
	}
	if err != nil {
		return life{}, err
	}
	stat, ok := procfs.ParseStat(l.text[:n])
	if !ok {
		return life{}, errDamaged
	}
	now := life{start: stat.Start, ended: stat.Ended()}
	copy(now.name[:], stat.Name)
	return now, nil
}

// errDamaged makes a process count as unchanged.
var errDamaged = errors.New("the state of the process cannot be parsed")

// folderInode returns the inode of a process's folder: path, below the folder
// root, ends with a zero byte. As long as a process lives its folder is the same
// inode, unless the kernel needs the memory; the inode is then another. The
// function makes its system call itself: the library's functions copy the path.
func folderInode(root int, path []byte) (uint64, error) {
	var st unix.Statx_t
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(root), uintptr(unsafe.Pointer(&path[0])), 0, unix.STATX_INO,
		uintptr(unsafe.Pointer(&st)), 0)
	if errno != 0 {
		return 0, errno
	}
	return st.Ino, nil
}

// gone reports whether an error means that there is no such process.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }
