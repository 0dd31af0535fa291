package attribute

import (
	"cmp"
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
	folders folders
	known   map[int]life
	check   uint64 // the number of this call
}

// life is what a process was at the last check.
type life struct {
	inode uint64 // of its folder
	start uint64 // in clock ticks since the start of the host
	name  string
	ended bool
	first uint64 // the first check of it
	last  uint64 // the last check of it
}

// NewLives returns a Lives without any process, over procRoot, normally /proc.
func NewLives(procRoot string) *Lives {
	return &Lives{folders: folders{procRoot: procRoot}, known: map[int]life{}}
}

// Changed appends to dst the pids of those processes that have changed: they have
// ended, their pid is another process's, or their name differs, after an exec or a
// change by the process itself. The first call with a process compares it with its
// record, a later call with the call before, so that each change is returned once.
// Changed sorts recorded, and forgets processes that are missing in it.
//
// Only with details does it find what the inode of the folder does not show: another
// name, and a process that has ended and that its parent has not waited for. They cost
// about 10 µs for each process.
//
// A process that may not be read counts as unchanged. The error is that of a missing
// procRoot.
func (l *Lives) Changed(dst []int, recorded []Recorded, details bool) ([]int, error) {
	var st unix.Stat_t
	if err := unix.Stat(l.folders.procRoot, &st); err != nil {
		return dst, fmt.Errorf("find processes that have changed: %s: %w", l.folders.procRoot, err)
	}
	l.check++
	slices.SortFunc(recorded, func(a, b Recorded) int {
		return cmp.Or(a.PID-b.PID, strings.Compare(a.Name, b.Name))
	})
	for i := range recorded {
		r := &recorded[i]
		if i > 0 && *r == recorded[i-1] {
			continue
		}
		if l.changed(r, details) && (len(dst) == 0 || dst[len(dst)-1] != r.PID) {
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

func (l *Lives) changed(r *Recorded, details bool) bool {
	before, known := l.known[r.PID]
	if known && before.last == l.check { // recorded under two names
		return before.first == l.check && !before.ended && before.name != r.Name
	}
	now, err := l.current(r.PID, before, details)
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
		return now.ended || now.name != r.Name
	case before.ended: // returned by an earlier call
		return false
	}
	return now.ended || now.start != before.start || now.name != before.name
}

// current returns what a process is now. The error is that of a process that may
// not be read.
func (l *Lives) current(pid int, before life, details bool) (life, error) {
	inode, err := l.folders.inode(pid)
	if err == nil && inode == before.inode && !details {
		return before, nil
	}
	var stat procfs.Stat
	if err == nil {
		stat, err = procfs.ReadStat(l.folders.procRoot, pid)
	}
	now := before
	switch {
	case gone(err):
		now.ended = true
		return now, nil
	case err != nil:
		return now, err
	}
	// A process whose parent has not waited for it yet has ended.
	now.inode, now.start, now.name, now.ended = inode, stat.Start, string(stat.Name), stat.Ended()
	return now, nil
}

// folders finds the inodes of the folders of processes. As long as a process lives its
// folder is the same inode, unless the kernel needs the memory; the inode is then
// another.
type folders struct {
	procRoot string
	path     []byte // reused, ends with a zero byte
}

// inode makes its system call itself: the library's functions copy the path.
func (f *folders) inode(pid int) (uint64, error) {
	f.path = append(append(f.path[:0], f.procRoot...), '/')
	f.path = append(strconv.AppendInt(f.path, int64(pid), 10), 0)
	var st unix.Statx_t
	dir := unix.AT_FDCWD
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(&f.path[0])), 0, unix.STATX_INO,
		uintptr(unsafe.Pointer(&st)), 0)
	if errno != 0 {
		return 0, errno
	}
	return st.Ino, nil
}

// gone reports whether an error means that there is no such process.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }
