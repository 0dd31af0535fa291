package attribute

import (
	"fmt"
	"strings"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
)

// StrangerError reports that a process does not belong to the container whose first
// process it should be.
type StrangerError struct {
	PID int
	// Name is the command name.
	Name string
	// Cgroup is the longest of its cgroup paths.
	Cgroup string
}

// Error implements error.
func (e *StrangerError) Error() string {
	return fmt.Sprintf("process %d (%q) is in cgroup %s", e.PID, e.Name, e.Cgroup)
}

// Prove returns nil if the process that procRoot shows under a container's first pid
// belongs to the container. The proof is the container's id in the process's cgroup,
// of v1 or v2, with any driver; in a private cgroup namespace the path begins with
// "/..", and contains the id too. Where the path does not contain it, as that of this
// program's own container in that case ("/"), or with an engine without cgroups
// (rootless, cgroup driver "none"), the id must be in the source of a mount: engines
// mount /etc/hostname, /etc/hosts and /etc/resolv.conf from a folder of the
// container, or of the container whose network it uses.
//
// Prove reads a second file only where the first is no proof. Call it with the
// process held, see [netns.Hold]. The error is a [*StrangerError], or wraps
// [netns.ErrProcessGone], or names what cannot be read.
func Prove(procRoot string, c *model.Container) error {
	paths, err := procfs.ReadCgroups(procRoot, c.PID)
	if err != nil {
		return proofError(c, err)
	}
	itself := func(id string) *model.Container {
		if id == c.ID {
			return c
		}
		return nil
	}
	if found, _ := containerIn(nil, itself, string(paths)); found != nil {
		return nil
	}
	mounts, err := procfs.ReadFile(procRoot, c.PID, "mountinfo")
	if err != nil {
		return proofError(c, err)
	}
	if mountedFor(string(mounts), c) {
		return nil
	}
	stat, err := procfs.ReadStat(procRoot, c.PID)
	switch {
	case err != nil:
		return proofError(c, err)
	case stat.Ending(): // it is in the root of each v1 hierarchy, and has no mounts
		return proofError(c, netns.ErrProcessGone)
	}
	return &StrangerError{PID: c.PID, Name: string(stat.Name), Cgroup: longestPath(string(paths))}
}

func proofError(c *model.Container, err error) error {
	return fmt.Errorf("find the container of process %d: %w", c.PID, err)
}

// mountedFor reports whether /proc/<pid>/mountinfo has a mount from the folder of a
// container, or of the container whose network it uses. It reads the source of the
// mount, the fourth field, and not its target, the fifth: the host has mounts in the
// folder of a container. Source: proc_pid_mountinfo(5).
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
