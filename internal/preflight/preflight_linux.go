package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"portwatcher/internal/netns"
	"portwatcher/internal/probe"
	"portwatcher/internal/procfs"
)

// needed are the capabilities that portwatcher uses, with the state without each.
var needed = []struct {
	number  uint
	name    string // as in cap_add
	without State
	use     string
}{
	{unix.CAP_SYS_PTRACE, "SYS_PTRACE", Failed, "to open the network namespaces of other processes"},
	{unix.CAP_SYS_ADMIN, "SYS_ADMIN", Failed, "to enter network namespaces"},
	{unix.CAP_DAC_READ_SEARCH, "DAC_READ_SEARCH", Degraded, "to find the processes of other users that hold a port"},
	{unix.CAP_NET_ADMIN, "NET_ADMIN", Degraded, "for a receive buffer that holds a storm of notifications"},
}

func capabilities(o Options) Result {
	effective, err := probe.Capabilities()
	if err != nil {
		return Result{Name: "capabilities", State: Failed, Detail: err.Error(), Remedy: "allow capget(2): a seccomp profile denies it (security_opt)"}
	}
	var have, missing []string
	result := Result{Name: "capabilities", State: OK}
	var why []string
	for _, c := range needed {
		if o.Source == "proc" && c.number != unix.CAP_SYS_PTRACE && c.number != unix.CAP_DAC_READ_SEARCH {
			continue // reading /proc does not need it
		}
		if effective&(1<<c.number) != 0 {
			have = append(have, c.name)
			continue
		}
		missing = append(missing, c.name)
		why = append(why, c.name+" "+c.use)
		if result.State != Failed {
			result.State = c.without
		}
	}
	if len(missing) == 0 {
		result.Detail = strings.Join(have, ", ")
		return result
	}
	result.Detail = "missing: " + strings.Join(why, ", ")
	result.Remedy = "cap_add: [" + strings.Join(missing, ", ") + "]"
	if os.Geteuid() != 0 {
		result.Remedy = "run as root; in a container, as root with " + result.Remedy
	}
	return result
}

// containers checks that the first processes of containers are visible, and that their
// namespaces can be entered. With a nested engine the host's pid namespace is not the
// initial one.
func containers(ctx context.Context, e Engine, o Options) []Result {
	pids, spaces := Result{Name: "pid namespace"}, Result{Name: "containers", State: OK}
	all, err := e.List(ctx)
	if err != nil && len(all) == 0 {
		pids.State, pids.Detail, pids.Remedy = Unknown, "not known: "+err.Error(), "see engine"
		return []Result{pids}
	}
	gone, failed := 0, error(nil)
	for _, c := range all {
		switch err := enter(o, c.PID); {
		case errors.Is(err, netns.ErrProcessGone):
			gone++
		case err != nil:
			failed = fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	pids = visible(len(all), gone, procfs.HostProcesses(o.ProcRoot))
	if pids.State != OK || len(all) == 0 {
		return []Result{pids}
	}
	spaces.Detail = fmt.Sprintf("the network namespaces of all %d running containers can be entered", len(all)-gone)
	if failed != nil {
		spaces.State, spaces.Detail = Failed, failed.Error()
		spaces.Remedy = "cap_add: [SYS_PTRACE, SYS_ADMIN] and security_opt: [apparmor=unconfined]"
	}
	return []Result{pids, spaces}
}

// visible checks the pid namespace. gone is the number of containers, of all that run,
// without a first process in it; host is true for the initial pid namespace.
func visible(all, gone int, host bool) Result {
	r := Result{Name: "pid namespace", State: OK, Detail: "the processes of containers can be seen"}
	switch {
	case gone < all:
	case all == 0 && host:
		r.Detail = "the host's processes can be seen"
	case all == 0:
		r.State, r.Detail, r.Remedy = Unknown, "not known: no container is running", "start a container and check again"
	case host:
		r.State, r.Detail = Degraded, fmt.Sprintf("none of %d containers' processes can be seen, though the host's can: they have just ended, or the engine is on another machine", all)
		r.Remedy = "check again; if it stays so, run portwatcher on the machine of the engine"
	default:
		r.State, r.Detail = Failed, fmt.Sprintf("none of %d containers' processes can be seen", all)
		r.Remedy = "share the host's pid namespace (docker run --pid host; in Compose, pid: host)"
	}
	return r
}

// procRoot checks that the folder of processes is a proc file system.
func procRoot(o Options) Result {
	r := Result{Name: "proc", State: OK, Detail: "processes are found at " + o.ProcRoot}
	var st unix.Statfs_t
	err := unix.Statfs(o.ProcRoot, &st)
	if err == nil && st.Type != unix.PROC_SUPER_MAGIC {
		err = errors.New("it is not a proc file system")
	}
	if err != nil {
		r.State, r.Detail = Failed, fmt.Sprintf("--proc-root %s: %v", o.ProcRoot, err)
		r.Remedy = "leave the setting out where the host's pid namespace is shared (pid: host), or mount the host's /proc there"
	}
	return r
}

// enter enters the network namespace of a process, and leaves it.
func enter(o Options, pid int) error {
	handle, err := netns.Open(o.ProcRoot, pid)
	if err != nil {
		return err
	}
	if o.Source != "proc" {
		err = handle.Do(func() error { return nil })
	}
	return errors.Join(err, handle.Close())
}

// namespaces enters the network namespace of this process, which needs the same
// capability as any other.
func namespaces() Result {
	r := Result{Name: "namespaces", State: OK, Detail: "network namespaces can be entered"}
	if err := enter(Options{ProcRoot: "/proc"}, os.Getpid()); err != nil {
		r.State, r.Detail, r.Remedy = Failed, err.Error(), "cap_add: [SYS_ADMIN]"
	}
	return r
}

func cgroups(o Options) Result {
	root, err := procfs.CgroupRoot(o.CgroupRoot)
	if err != nil {
		return Result{Name: "cgroups", State: Degraded,
			Detail: "no cgroup v2 hierarchy is at " + o.CgroupRoot + ": containers that share a network namespace are distinguished by their processes alone",
			Remedy: "mount the host's /sys/fs/cgroup read-only at " + o.CgroupRoot}
	}
	return Result{Name: "cgroups", State: OK, Detail: "v2 hierarchy at " + root}
}
