package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Recorded is a process as it was when it was looked up.
type Recorded struct {
	PID  int
	Name string
}

// Lives tells, when asked again and again, which processes have ended or become
// something else since. One that stays what it was costs one system call and no
// allocation: as long as it lives, its folder in /proc is the same inode. Lives
// is not safe for concurrent use.
type Lives struct {
	procRoot string
	known    map[int]life
	check    uint64 // of this call
	path     []byte // reused, ends with a zero byte
	status   [512]byte
}

// life is what a process was at the last check.
type life struct {
	inode uint64 // of its folder
	start uint64 // in clock ticks since the host was started
	name  [nameSize]byte
	ended bool
	first uint64 // the check that has met it
	last  uint64 // the check that has seen it
}

// nameSize is TASK_COMM_LEN in include/linux/sched.h.
const nameSize = 16

// NewLives returns one that knows no process yet, over procRoot, normally /proc.
func NewLives(procRoot string) *Lives {
	return &Lives{procRoot: procRoot, known: map[int]life{}}
}

// Changed appends to dst the pids of those processes that are not what they
// were: they have ended, their pid is another's, or their name differs, which
// an exec changes and a process can. A process met for the first time is
// compared with its record, later with what it was at the last call, so that
// each change is told once. It sorts recorded, and forgets what is missing in
// it.
//
// Only closely finds out what the folder does not tell: another name, and a
// process that has ended and that its parent has not waited for. It costs three
// system calls more for each process.
//
// A process that may not be looked at is passed over. The error is that of
// opening procRoot.
func (l *Lives) Changed(dst []int, recorded []Recorded, closely bool) ([]int, error) {
	root, err := unix.Open(l.procRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dst, fmt.Errorf("look whether processes still are what they were: open %s: %w", l.procRoot, err)
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
		if l.changed(root, r, closely) && (len(dst) == 0 || dst[len(dst)-1] != r.PID) {
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

func (l *Lives) changed(root int, r *Recorded, closely bool) bool {
	before, known := l.known[r.PID]
	if known && before.last == l.check { // recorded under two names
		return before.first == l.check && !before.ended && before.called() != r.Name
	}
	now, err := l.look(root, r.PID, before, closely)
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
		return now.ended || now.called() != r.Name
	case before.ended: // told already
		return false
	}
	return now.ended || now.start != before.start || now.name != before.name
}

// look returns what a process is now. The error is that of one that may not be
// looked at.
func (l *Lives) look(root, pid int, before life, closely bool) (life, error) {
	inode, err := l.folder(root, pid)
	if err == nil && inode == before.inode && !closely {
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

func (l *life) called() string { return string(bytes.TrimRight(l.name[:], "\x00")) }

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// folder returns the inode of a process's folder. It makes its system call
// itself, as open does: the library's functions copy the path each time.
func (l *Lives) folder(root, pid int) (uint64, error) {
	var st unix.Statx_t
	l.path = append(strconv.AppendInt(l.path[:0], int64(pid), 10), 0)
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(root), uintptr(unsafe.Pointer(&l.path[0])), 0, unix.STATX_INO,
		uintptr(unsafe.Pointer(&st)), 0)
	if errno != 0 {
		return 0, errno
	}
	return st.Ino, nil
}

func (l *Lives) open(root, pid int) (int, error) {
	l.path = append(strconv.AppendInt(l.path[:0], int64(pid), 10), "/stat\x00"...)
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(root), uintptr(unsafe.Pointer(&l.path[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// read reads what a process is now. A process that has ended and is still
// there, since its parent has not waited for it, has ended.
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
		return life{}, fmt.Errorf("%s is not understood: %q", filepath.Join(l.procRoot, strconv.Itoa(pid), "stat"), l.status[:n])
	}
	now := life{start: stat.start, ended: stat.ended()}
	copy(now.name[:], stat.name)
	return now, nil
}

// stat is what /proc/<pid>/stat tells, as far as it is of use here.
type stat struct {
	name  []byte
	state byte
	flags uint64
	start uint64
}

// Positions of fields after the name, which may hold anything. Source:
// proc_pid_stat(5), where they are the third, the ninth and the 22nd.
const (
	stateField = 0
	flagsField = 6
	startField = 19
)

// exiting is PF_EXITING in include/linux/sched.h: set before a process that
// ends closes its files.
const exiting = 0x4

func parseStat(b []byte) (s stat, ok bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return s, false
	}
	s.name = b[open+1 : end]
	rest := bytes.TrimLeft(b[end+1:], " ")
	for field := 0; field <= startField; field++ {
		text := rest
		if space := bytes.IndexByte(rest, ' '); space >= 0 {
			text, rest = rest[:space], rest[space+1:]
		} else {
			rest = nil
		}
		switch field {
		case stateField:
			if len(text) != 1 {
				return s, false
			}
			s.state = text[0]
		case flagsField:
			s.flags, ok = number(text)
		case startField:
			var both bool
			s.start, both = number(text)
			return s, ok && both
		}
	}
	return s, false
}

func number(digits []byte) (n uint64, ok bool) {
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + uint64(d-'0')
	}
	return n, len(digits) > 0
}

// ended says whether the process is a zombie, or dead: it holds no files.
func (s *stat) ended() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

// Ending says whether a process has ended or is about to: its files are being
// closed. What may not be read is taken for alive.
func Ending(procRoot string, pid int) bool {
	b, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), "stat"))
	if err != nil {
		return gone(err)
	}
	s, ok := parseStat(b)
	return ok && (s.ended() || s.flags&exiting != 0)
}
