package procfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	prometheus "github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
)

func path(procRoot string, pid int, name string) string {
	return filepath.Join(procRoot, strconv.Itoa(pid), name)
}

// ReadFile returns a file of process pid, such as "mountinfo". The error is that of
// os.ReadFile.
func ReadFile(procRoot string, pid int, name string) (text []byte, err error) {
	err = netns.Through(procRoot, pid, func(folder string) error {
		text, err = readFile(folder, name)
		return err
	})
	return text, err
}

// readFile returns a file in the folder of a process.
func readFile(folder, name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(folder, name))
	if errors.Is(err, unix.EINVAL) { // mountinfo of a process that is ending
		return nil, fmt.Errorf("%w: %w", netns.ErrProcessGone, err)
	}
	return text, gone(err)
}

// ReadCgroups returns /proc/<pid>/cgroup, which has a line for each hierarchy, v1 and v2.
// The error is that of [ReadFile].
func ReadCgroups(procRoot string, pid int) (text []byte, err error) {
	err = netns.Through(procRoot, pid, func(folder string) error {
		// The kernel shows a thread that has exited in the root of each v1 hierarchy.
		if stat, unread := readStat(folder); unread == nil && stat.Ending() {
			return fmt.Errorf("%s: %w", folder, netns.ErrProcessGone)
		}
		text, err = readFile(folder, "cgroup")
		return err
	})
	return text, err
}

// ReadStat reads /proc/<pid>/stat. Where the main thread has exited and others live on,
// State and Flags are those of one of these. The error is that of [ReadFile], or a
// *[ParseError].
func ReadStat(procRoot string, pid int) (Stat, error) {
	stat, err := readStat(path(procRoot, pid, ""))
	if err != nil || !stat.Ending() {
		return stat, err
	}
	_ = netns.Through(procRoot, pid, func(folder string) error { // an error: the process has ended
		thread, err := readStat(folder)
		switch {
		case err != nil:
			return err
		case thread.Ending():
			return netns.ErrProcessGone
		}
		stat.State, stat.Flags = thread.State, thread.Flags
		return nil
	})
	return stat, nil
}

// readStat is ParseStat of the folder of a process.
func readStat(folder string) (Stat, error) {
	text, err := readFile(folder, "stat")
	if err != nil {
		return Stat{}, err
	}
	stat, ok := ParseStat(text)
	if !ok {
		return Stat{}, &ParseError{filepath.Join(folder, "stat"), 1, fmt.Sprintf("%q is not the state of a process", clip(text))}
	}
	return stat, nil
}

// Ending reports whether a process has ended or is about to: its files are being
// closed. A process that may not be read counts as alive.
func Ending(procRoot string, pid int) bool {
	stat, err := ReadStat(procRoot, pid)
	return errors.Is(err, netns.ErrProcessGone) || err == nil && stat.Ending()
}

// Exited reports whether the process, or thread, with a folder has ended; others of its
// process may live on.
func Exited(folder string) bool {
	stat, err := readStat(folder)
	return err != nil || stat.Ended()
}

// Exists reports whether procRoot shows a process.
func Exists(procRoot string, pid int) bool {
	_, err := os.Stat(path(procRoot, pid, ""))
	return err == nil
}

// HostProcesses reports whether procRoot shows the processes of the initial pid
// namespace: there, and only there, process 2 is the kernel's kthreadd.
func HostProcesses(procRoot string) bool {
	name, err := ReadFile(procRoot, 2, "comm")
	return err == nil && string(name) == "kthreadd\n"
}

// FirstProcess returns the pid of a process in the host's network namespace: the kernel's
// process 2, which some systems let be read where they hide pid 1, or pid 1 where
// procRoot does not show the host's processes.
func FirstProcess(procRoot string) int {
	if HostProcesses(procRoot) {
		return 2
	}
	return 1
}

// HostNamespace returns the network namespace of the host; see [FirstProcess]. The error
// is that of [netns.Identify].
func HostNamespace(procRoot string) (model.Namespace, error) {
	return netns.Identify(procRoot, FirstProcess(procRoot))
}

// Describe reads the details of a process. What cannot be read, because the process
// has ended or for lack of permission, stays zero.
func Describe(procRoot string, pid int) model.Process {
	p := model.Process{PID: pid}
	_ = netns.Through(procRoot, pid, func(folder string) error {
		name := p.Name
		if status, err := readFile(folder, "status"); err == nil {
			parseStatus(&p, string(status))
		}
		if name != "" { // that of the main thread: other threads have names of their own
			p.Name = name
		}
		executable, err := os.Readlink(filepath.Join(folder, "exe"))
		p.Executable = strings.TrimSuffix(executable, " (deleted)")
		return gone(err)
	})
	return p
}

// statusEscapes undoes what the kernel does to a name in /proc/<pid>/status, and there
// alone. Source: proc_task_name in fs/proc/array.c.
var statusEscapes = strings.NewReplacer(`\\`, `\`, `\n`, "\n")

// parseStatus reads /proc/<pid>/status, and keeps the blanks of a name. Source:
// proc_pid_status(5).
func parseStatus(p *model.Process, status string) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		switch fields := strings.Fields(value); {
		case key == "Name":
			p.Name = statusEscapes.Replace(strings.TrimPrefix(value, "\t"))
		case key == "Uid" && len(fields) == 4: // real, effective, saved set, file system
			if uid, ok := decimal([]byte(fields[1])); ok {
				p.UID = &uid
			}
		case key == "NStgid" && len(fields) > 0: // from the reader's pid namespace to the innermost
			if pid, err := strconv.Atoi(fields[len(fields)-1]); err == nil {
				p.ContainerPID = pid
			}
		}
	}
}

// Connections returns how many TCP connections were opened so far in the network
// namespace of process pid, by its clients and its servers: the sum of ActiveOpens and
// PassiveOpens in /proc/<pid>/net/snmp, proc_pid_net(5); RFC 4022.
func Connections(procRoot string, pid int) (uint64, error) {
	var snmp prometheus.ProcSnmp
	err := parsed(procRoot, pid, func(p prometheus.Proc) (err error) {
		snmp, err = p.Snmp()
		return err
	})
	if err != nil {
		return 0, err
	}
	active, passive := snmp.Tcp.ActiveOpens, snmp.Tcp.PassiveOpens
	if active == nil || passive == nil {
		return 0, fmt.Errorf("%s has no ActiveOpens and PassiveOpens of Tcp", path(procRoot, pid, "net/snmp"))
	}
	return uint64(*active) + uint64(*passive), nil
}

// Linked reports whether the network namespace of process pid has another interface than
// its loopback.
func Linked(procRoot string, pid int) (linked bool, err error) {
	err = parsed(procRoot, pid, func(p prometheus.Proc) error {
		devices, err := p.NetDev()
		for name := range devices {
			linked = linked || name != "lo"
		}
		return err
	})
	return linked, err
}

// parsed calls read with the library's view of a process.
func parsed(procRoot string, pid int, read func(prometheus.Proc) error) error {
	return netns.Through(procRoot, pid, func(folder string) error {
		parent, name := filepath.Split(folder)
		root, err := prometheus.NewFS(parent)
		if err != nil {
			return err
		}
		id, err := strconv.Atoi(name)
		if err != nil {
			return err
		}
		process, err := root.Proc(id)
		if err == nil {
			err = read(process)
		}
		return gone(err)
	})
}

// PIDs returns the processes that procRoot shows, in rising order.
func PIDs(procRoot string) ([]int, error) {
	folder, err := os.Open(procRoot)
	if err != nil {
		return nil, err
	}
	names, err := folder.Readdirnames(-1)
	if err = errors.Join(err, folder.Close()); err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// EphemeralPorts returns the range from which the kernel gives ports to clients,
// in the network namespace of process pid.
//
// /proc/sys/net shows the namespace of the thread that reads it, whatever process's
// folder it is reached through: so a thread enters the namespace, and leaves it
// again. That needs CAP_SYS_ADMIN, and CAP_SYS_PTRACE for processes of others; without
// them the error wraps EPERM or EACCES, and the Range is the zero Range.
func EphemeralPorts(procRoot string, pid int) (ports Range, err error) {
	namespace, err := netns.Open(procRoot, pid)
	if err != nil {
		return Range{}, err
	}
	err = namespace.Do(func() (err error) {
		ports, err = readRange(filepath.Join(procRoot, "sys/net/ipv4/ip_local_port_range"))
		return err
	})
	return ports, errors.Join(err, namespace.Close())
}

func readRange(path string) (Range, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Range{}, err
	}
	if columns := strings.Fields(string(text)); len(columns) == 2 {
		first, firstErr := strconv.ParseUint(columns[0], 10, 16)
		last, lastErr := strconv.ParseUint(columns[1], 10, 16)
		if firstErr == nil && lastErr == nil && first <= last {
			return Range{uint16(first), uint16(last)}, nil
		}
	}
	return Range{}, &ParseError{path, 1, fmt.Sprintf("%q, want two ports, the lower first", clip(text))}
}
