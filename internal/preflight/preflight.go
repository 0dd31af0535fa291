// Package preflight checks what works on this host before anything is watched, and
// names a remedy for the rest. It checks each layer of the sources alone, since a run
// uses those that work. The checks change nothing on the host, except that the kernel
// may load the modules of sock_diag. They keep no state and are safe for concurrent use.
package preflight

import (
	"context"
	"fmt"
	"slices"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
)

// State is the outcome of a check.
type State string

const (
	// OK: it works.
	OK State = "ok"
	// Degraded: portwatcher works, with limits.
	Degraded State = "degraded"
	// Failed: nothing can be watched, or not by the required source.
	Failed State = "failed"
	// Unknown: the check was not possible.
	Unknown State = "unknown"
)

// Result is one check.
type Result struct {
	Name   string // "engine", "capabilities", …
	State  State
	Detail string // what the check found
	Remedy string // what to do; empty if OK
}

// Engine is the part of the Docker Engine's API that the checks use.
type Engine interface {
	Info(ctx context.Context) (engine.Info, error)
	List(ctx context.Context) ([]*model.Container, error)
}

// Options configure the checks.
type Options struct {
	ProcRoot   string
	CgroupRoot string
	// Source is "auto", "ebpf", "netlink" or "proc", as in the setting. Except for
	// "auto", that source must work.
	Source string
}

// Host does the cheap checks that need no engine.
func Host(o Options) []Result {
	if r := procRoot(o); r.State != OK {
		return []Result{r}
	}
	if o.Source == "proc" {
		return []Result{capabilities(o), cgroups(o)}
	}
	return []Result{capabilities(o), namespaces(), netlink(o), cgroups(o)}
}

// Sources checks the sources beside sock_diag.
func Sources(o Options) []Result {
	return []Result{destroyNotifications(o), ebpf(o)}
}

// All does all checks, the engine first.
func All(ctx context.Context, e Engine, o Options) []Result {
	if r := procRoot(o); r.State != OK {
		return []Result{checkEngine(ctx, e), r}
	}
	results := slices.Concat([]Result{checkEngine(ctx, e)}, containers(ctx, e, o), Host(o), Sources(o))
	return append(results, inUse(o, results))
}

func works(results []Result, name string) bool {
	return slices.ContainsFunc(results, func(r Result) bool { return r.Name == name && r.State == OK })
}

// Failure returns the first failed check as an error, nil if there is none.
func Failure(results []Result) error {
	for _, r := range results {
		if r.State == Failed {
			return fmt.Errorf("%s: %s; %s", r.Name, r.Detail, r.Remedy)
		}
	}
	return nil
}

// The names of the checks that inUse combines.
const (
	nameSockDiag = "sock_diag"
	nameDestroy  = "destroy notifications"
	nameEBPF     = "eBPF"
)

// inUse reports the sources that a run would use, by the results of the checks.
func inUse(o Options, checked []Result) Result {
	r := Result{Name: "sources", State: OK}
	sockDiag, eBPF := works(checked, nameSockDiag), o.Source != "netlink" && works(checked, nameEBPF)
	switch {
	case o.Source == "proc":
		r.Detail = "/proc, by --source"
	case o.Source == "netlink" && !sockDiag, o.Source == "ebpf" && !eBPF:
		r.State, r.Detail = Failed, "none: --source "+o.Source+" requires what does not work here"
		r.Remedy = "see the line that failed; --source auto uses what works"
	case eBPF && sockDiag:
		r.Detail = "eBPF, with a sock_diag scan every 30 s"
	case eBPF:
		r.State, r.Remedy = Degraded, "see "+nameSockDiag
		r.Detail = "eBPF, with scans of /proc instead of sock_diag: of ports that were open before, container and process may be unknown"
	case !sockDiag:
		r.State, r.Detail, r.Remedy = Degraded, "/proc alone: ports that are open for less than a scan interval are missed", "see "+nameSockDiag
	case works(checked, nameDestroy):
		r.Detail = "sock_diag scans for openings, destroy notifications for closes"
	default:
		r.Detail = "sock_diag scans"
	}
	return r
}

func checkEngine(ctx context.Context, e Engine) Result {
	r := Result{Name: "engine"}
	info, err := e.Info(ctx)
	if err != nil {
		r.State, r.Detail = Failed, err.Error()
		r.Remedy = "mount the socket (-v /var/run/docker.sock:/var/run/docker.sock:ro) or set DOCKER_HOST"
		return r
	}
	r.State = OK
	r.Detail = fmt.Sprintf("Docker Engine %s (API %s) on %s, %s, kernel %s",
		info.Version, info.APIVersion, info.Name, info.OperatingSystem, info.KernelVersion)
	return r
}
