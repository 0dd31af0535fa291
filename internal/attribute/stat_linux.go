package attribute

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// stat is the content of /proc/<pid>/stat, as far as this package uses it.
type stat struct {
	name  []byte
	state byte
	flags uint64
	start uint64 // in clock ticks since the start of the host
}

// Positions of fields after the name, which may hold any byte. Source:
// proc_pid_stat(5), where they are the third, the ninth and the 22nd.
const (
	stateField = 0
	flagsField = 6
	startField = 19
)

// exiting is PF_EXITING in include/linux/sched.h: set before a process that
// ends closes its files.
const exiting = 0x4

// parseStat parses /proc/<pid>/stat. The name is a part of b.
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

// ended returns whether the process is a zombie, or dead: it holds no files.
func (s *stat) ended() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

// ending returns whether the process has ended or is about to.
func (s *stat) ending() bool { return s.ended() || s.flags&exiting != 0 }

// Ending returns whether a process has ended or is about to: its files are being
// closed. A process that may not be read counts as alive.
func Ending(procRoot string, pid int) bool {
	b, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), "stat"))
	if err != nil {
		return gone(err)
	}
	s, ok := parseStat(b)
	return ok && s.ending()
}
