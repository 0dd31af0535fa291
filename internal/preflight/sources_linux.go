package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"portwatcher/internal/probe"
	"portwatcher/internal/sockdiag"
)

// netlink makes a dump in this process's namespace, for which the kernel loads the
// modules that it needs.
func netlink(o Options) Result {
	conn, err := sockdiag.Dial(0, sockdiag.Options{})
	if err == nil {
		_, err = conn.Dump(nil)
		err = errors.Join(err, conn.Close())
	}
	return netlinkResult(o, err)
}

func netlinkResult(o Options, err error) Result {
	r := Result{Name: nameSockDiag, State: OK}
	if err == nil {
		r.Detail = "TCP and UDP sockets of IPv4 and IPv6 can be listed"
		return r
	}
	r.State, r.Detail, r.Remedy = Degraded, err.Error(), "see the reason"
	if missing, ok := errors.AsType[*sockdiag.UnsupportedError](err); ok {
		r.Detail, r.Remedy = fmt.Sprintf("%s cannot be listed: %v", missing.Feature, missing.Err), missing.Remedy
	} else if denied(err) {
		r.Detail, r.Remedy = "sockets of NETLINK_SOCK_DIAG are denied", remedyDenied
	}
	if o.Source == "netlink" {
		r.State = Failed
	} else {
		r.Detail += "; /proc is read instead"
	}
	return r
}

const remedyDenied = "allow this container netlink sockets: its seccomp profile, AppArmor or SELinux denies them (security_opt)"

// denied reports whether an error is one of rights. In this process's namespace a socket
// of sock_diag needs no capability.
func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// destroyNotifications subscribes in this process's namespace. The modules of dumps
// make the messages: without them a subscription succeeds, and receives nothing.
func destroyNotifications(o Options) Result {
	r := Result{Name: nameDestroy, State: OK, Detail: "the kernel reports closes"}
	if o.Source == "proc" {
		r.Detail = "not used: --source is proc"
		return r
	}
	listener, err := sockdiag.Listen(0, 0)
	if err == nil {
		err = errors.Join(listener.Close(), sockdiag.LoadModules())
	}
	return destroyResult(r, err)
}

func destroyResult(r Result, err error) Result {
	if err == nil {
		return r
	}
	r.State, r.Detail = Degraded, err.Error()
	r.Remedy = "use Linux 4.12 or later; until then closes are found by scans"
	if missing, ok := errors.AsType[*sockdiag.UnsupportedError](err); ok {
		r.Detail, r.Remedy = "the kernel reports no closes of "+missing.Feature+": "+missing.Err.Error(), missing.Remedy
	} else if denied(err) {
		r.Detail, r.Remedy = "sockets of NETLINK_SOCK_DIAG are denied", remedyDenied
	}
	return r
}

// ebpf loads and attaches the programs. It does not need sock_diag.
func ebpf(o Options) Result {
	if o.Source != "auto" && o.Source != "ebpf" {
		return Result{Name: nameEBPF, State: OK, Detail: "not used: --source is " + o.Source}
	}
	p, err := probe.Open(probe.Options{CgroupRoot: o.CgroupRoot})
	if err == nil {
		err = p.Close()
	}
	return ebpfResult(o, err, thisKernel())
}

func ebpfResult(o Options, err error, k runningKernel) Result {
	r := Result{Name: nameEBPF, State: OK, Detail: "the kernel reports openings and closes, with the process"}
	if err == nil {
		return r
	}
	r.State, r.Detail = Degraded, err.Error()
	if o.Source == "ebpf" {
		r.State = Failed
	}
	r.Remedy = "see the reason; without eBPF the processes of the shortest-lived ports stay unknown"
	if missing, ok := errors.AsType[*probe.UnsupportedError](err); ok {
		r.Detail, r.Remedy = fmt.Sprintf("%s is not available: %v", missing.Feature, missing.Err), missing.Remedy
	}
	if probe.OlderThan(k.release, 5, 14) {
		k.explain(&r)
	}
	return r
}

// runningKernel is the running kernel and a limit of this process.
type runningKernel struct {
	release  string // "5.10.0-28-amd64"; empty where it is not known
	lockable uint64 // RLIMIT_MEMLOCK in bytes, RLIM_INFINITY without a limit
}

func thisKernel() runningKernel {
	k := runningKernel{lockable: unix.RLIM_INFINITY}
	k.release, _ = probe.KernelRelease() // an empty one is not too old
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
		k.lockable = limit.Cur
	}
	return k
}

// explain makes the kernel's age the reason why the programs do not work. Before
// 5.11 the kernel counts eBPF maps against the limit of locked memory, and answers
// EPERM where that is reached, as for missing capabilities.
func (k *runningKernel) explain(r *Result) {
	r.Detail = fmt.Sprintf("Linux %s is too old: the programs need Linux 5.14 or later (%s)", k.release, r.Detail)
	r.Remedy = "use Linux 5.14 or later"
	if probe.OlderThan(k.release, 5, 11) && k.lockable != unix.RLIM_INFINITY {
		r.Detail = strings.TrimSuffix(r.Detail, ")") +
			fmt.Sprintf("; before Linux 5.11 this error also comes from the limit of locked memory, %d KiB here, and not from missing capabilities)", k.lockable>>10)
		r.Remedy += "; a kernel of a distribution that has the newer functions may only need more locked memory (docker run --ulimit memlock=-1; in Compose, ulimits: memlock: -1)"
	}
}
