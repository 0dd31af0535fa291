package model

import (
	"slices"
	"strings"
)

// Process is a process that holds a socket. An unknown value is absent: zero, or nil
// for UID.
type Process struct {
	// PID is the process id in the host's pid namespace.
	PID int `json:"pid"`
	// ContainerPID is the process id inside the container (innermost NSpid).
	ContainerPID int `json:"container_pid,omitempty"`
	// Name is the command name (comm), at most 15 bytes.
	Name string `json:"name,omitempty"`
	// Executable is the path inside the container's file system.
	Executable string `json:"executable,omitempty"`
	// Arguments are those of its command line, as [procfs.Arguments] redacts and shortens
	// them; read only where the settings allow it.
	Arguments string `json:"arguments,omitempty"`
	// UID is the effective user id in the initial user namespace.
	UID *uint32 `json:"uid,omitempty"`
}

// MaxProcessName is the length in bytes to which the kernel cuts a process's name
// (TASK_COMM_LEN in include/linux/sched.h, less the zero).
const MaxProcessName = 15

// Program returns the file name of the executable; empty where that is not known.
func (p *Process) Program() string { return p.Executable[strings.LastIndexByte(p.Executable, '/')+1:] }

// MergeProcesses returns the processes of all lists, ordered by pid, each pid one time.
func MergeProcesses(lists ...[]Process) []Process {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b Process) int { return a.PID - b.PID })
	return slices.CompactFunc(all, func(a, b Process) bool { return a.PID == b.PID })
}

// ShareProcess reports whether a process is in both lists, whatever its program.
func ShareProcess(a, b []Process) bool {
	return slices.ContainsFunc(a, func(p Process) bool {
		return slices.ContainsFunc(b, func(q Process) bool { return p.PID == q.PID })
	})
}
