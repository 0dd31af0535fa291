package attribute

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
)

// StrangerError reports that a process does not belong to the container whose first
// process it should be.
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

// Prove returns nil if the process that procRoot shows under a container's first pid
// belongs to the container. The proof is the container's id in the process's cgroup,
// of v1 or v2, with any driver; read from a private cgroup namespace the path begins
// with "/..", and contains the id too. Where the path does not contain it, as that of
// this program's own container in that case ("/"), or with an engine without cgroups
// (rootless, cgroup driver "none"), the id must be in the source of a mount: engines
// mount /etc/hostname, /etc/hosts and /etc/resolv.conf from a folder of the
// container, or of the container whose network it uses.
//
// Prove reads one file; the second only where the first is no proof. Call it with the
// process held, see [netns.Hold]. The error is a [*StrangerError], or wraps
// [netns.ErrProcessGone], or names what cannot be read.
func Prove(procRoot string, c *model.Container) error {
	paths, err := readOf(procRoot, c.PID, "cgroup")
	if err != nil {
		return err
	}
	itself := func(id string) *model.Container {
		if id == c.ID {
			return c
		}
		return nil
	}
	if found, _ := containerIn(nil, itself, paths); found != nil {
		return nil
	}
	mounts, err := readOf(procRoot, c.PID, "mountinfo")
	if err != nil {
		return err
	}
	if mountedFor(mounts, c) {
		return nil
	}
	// A process that is ending is in the root of each v1 hierarchy, and has no mounts.
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

// mountedFor returns whether /proc/<pid>/mountinfo has a mount from the folder of a
// container, or of the container whose network it uses. It reads the source of the
// mount, the fourth field, and not its target, the fifth: on the host there are
// mounts in the folder of a container. Source: proc_pid_mountinfo(5).
func mountedFor(mounts string, c *model.Container) bool {
	owner := strings.TrimPrefix(c.NetworkMode, "container:")
	of := func(id string) *model.Container {
		if id == c.ID || id == owner {
			return c
		}
		return nil
	}
	for line := range strings.Lines(mounts) {
		if fields := strings.Fields(line); len(fields) > 4 {
			if found, _ := containerIn(nil, of, fields[3]); found != nil {
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

// ending returns whether a process is about to end.
func ending(procRoot string, pid int) (bool, error) {
	text, err := readOf(procRoot, pid, "stat")
	if err != nil {
		return false, err
	}
	s, ok := parseStat([]byte(text))
	if !ok {
		return false, fmt.Errorf("stat of process %d cannot be parsed: %q", pid, text)
	}
	return s.ending(), nil
}

// readOf reads a file of a process.
func readOf(procRoot string, pid int, name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), name))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH),
		errors.Is(err, unix.EINVAL): // mountinfo of one that is ending
		return "", fmt.Errorf("%s of process %d: %w", name, pid, netns.ErrProcessGone)
	case err != nil:
		return "", fmt.Errorf("find the container of process %d: %w", pid, err)
	}
	return string(text), nil
}
