package procfs

import (
	"bytes"
	"strconv"
)

// Stat is the content of /proc/<pid>/stat, as far as it is used.
type Stat struct {
	Name  []byte // a part of the text that was parsed
	State byte
	Flags uint64
	Start uint64 // in clock ticks since the start of the host
}

// The positions of columns after the name. Source: proc_pid_stat(5), which counts
// them as the third, the ninth and the 22nd.
const (
	stateColumn = 0
	flagsColumn = 6
	startColumn = 19
)

// exiting is PF_EXITING in include/linux/sched.h: set before a process that
// ends closes its files.
const exiting = 0x4

// ParseStat parses the content of /proc/<pid>/stat, in which the name can hold any
// byte. It allocates nothing.
func ParseStat(text []byte) (s Stat, ok bool) {
	first, last := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if first < 0 || last < first {
		return s, false
	}
	s.Name = text[first+1 : last]
	column, rest := field(text[last+1:])
	for i := 0; len(column) > 0; i++ {
		var err error
		switch i {
		case stateColumn:
			s.State = column[0]
		case flagsColumn:
			s.Flags, err = strconv.ParseUint(string(column), 10, 64)
		case startColumn:
			s.Start, err = strconv.ParseUint(string(column), 10, 64)
			return s, err == nil
		}
		if err != nil {
			break
		}
		column, rest = field(rest)
	}
	return s, false
}

// Ended reports whether the process is a zombie, or dead: it holds no files.
func (s *Stat) Ended() bool { return s.State == 'Z' || s.State == 'X' || s.State == 'x' }

// Ending reports whether the process has ended or is about to.
func (s *Stat) Ending() bool { return s.Ended() || s.Flags&exiting != 0 }
