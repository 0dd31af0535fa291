package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"portwatcher/internal/netns"
	"portwatcher/internal/port"
)

// StrangerError says that a process is not of the container that it was said to
// be of.
type StrangerError struct {
	PID int
	// Name is the command name, empty where it cannot be read.
	Name string
	// Cgroup is the longest of its cgroup paths.
	Cgroup string
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("process %d (%q) is in cgroup %s", e.PID, e.Name, e.Cgroup)
}

// Prove returns nil if a container's first process is what procRoot shows under
// its pid. What proves it is the container's id in the process's cgroup, of v1 or
// v2, whatever the driver; seen from a private cgroup namespace the path begins
// with "/..", and names the id all the same. Where it does not, as in this
// program's own container then ("/"), or with an engine without cgroups (rootless,
// cgroup driver "none"), the id must stand in what is mounted for the container:
// engines mount /etc/hostname, /etc/hosts and /etc/resolv.conf from a folder of
// the container, or of the one whose network it uses.
//
// It reads one file; the second only where the first is no proof. Call it with the
// process held, see [netns.Hold]. The error is a [*StrangerError], or wraps
// [netns.ErrProcessGone], or says what cannot be read.
func Prove(procRoot string, c *port.Container) error {
	paths, err := readOf(procRoot, c.PID, "cgroup")
	if err != nil {
		return err
	}
	itself := func(id string) *port.Container {
		if id == c.ID {
			return c
		}
		return nil
	}
	if found, _ := containerIn(paths, itself); found != nil {
		return nil
	}
	mounts, err := readOf(procRoot, c.PID, "mountinfo")
	if err != nil {
		return err
	}
	if mountedFor(mounts, c) {
		return nil
	}
	// A process that ends is shown in the root of each v1 hierarchy, and without
	// mounts.
	if ends, err := ending(procRoot, c.PID); err != nil {
		return err
	} else if ends {
		return fmt.Errorf("process %d: %w", c.PID, netns.ErrProcessGone)
	}
	name, err := readOf(procRoot, c.PID, "comm")
	if err != nil {
		return err
	}
	return &StrangerError{PID: c.PID, Name: strings.TrimSuffix(name, "\n"), Cgroup: longestPath(paths)}
}

// mountedFor says whether something of a container, or of the one whose network
// it uses, is mounted by /proc/<pid>/mountinfo. It takes what is mounted, the
// fourth field, and not where, the fifth: on the host there are mounts in the
// folder of a container. Source: proc_pid_mountinfo(5).
func mountedFor(mounts string, c *port.Container) bool {
	owner := strings.TrimPrefix(c.NetworkMode, "container:")
	of := func(id string) *port.Container {
		if id == c.ID || id == owner {
			return c
		}
		return nil
	}
	for line := range strings.Lines(mounts) {
		if fields := strings.Fields(line); len(fields) > 4 {
			if found, _ := containerIn(fields[3], of); found != nil {
				return true
			}
		}
	}
	return false
}

// longestPath returns the longest path in a /proc/<pid>/cgroup, of lines
// "hierarchy:controllers:path".
func longestPath(paths string) string {
	longest := ""
	for line := range strings.Lines(paths) {
		if fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(fields) == 3 && len(fields[2]) > len(longest) {
			longest = fields[2]
		}
	}
	return longest
}

// flagExiting is PF_EXITING in include/linux/sched.h.
const flagExiting = 0x4

// ending says whether a process is about to end, by the flags in its stat, the
// ninth field; the second is the name in brackets, which may hold anything.
// Source: proc_pid_stat(5).
func ending(procRoot string, pid int) (bool, error) {
	stat, err := readOf(procRoot, pid, "stat")
	if err != nil {
		return false, err
	}
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 7 {
		return false, fmt.Errorf("stat of process %d: %q: want 9 fields or more", pid, stat)
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return false, fmt.Errorf("stat of process %d: flags: %w", pid, err)
	}
	return flags&flagExiting != 0, nil
}

// readOf reads a file of a process.
func readOf(procRoot string, pid int, name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), name))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH),
		errors.Is(err, unix.EINVAL): // mountinfo of one that is ending
		return "", fmt.Errorf("%s of process %d: %w", name, pid, netns.ErrProcessGone)
	case err != nil:
		return "", fmt.Errorf("find out whose process %d is: %w", pid, err)
	}
	return string(text), nil
}
