// Package preflight finds out what works on this host before anything is
// watched, and what to do about the rest.
package preflight

import (
	"context"
	"fmt"
	"slices"

	"portwatcher/internal/engine"
	"portwatcher/internal/port"
)

// State is how a check ended.
type State string

const (
	OK State = "ok"
	// Degraded: portwatcher works, with less.
	Degraded State = "degraded"
	// Failed: nothing can be watched.
	Failed State = "failed"
	// Unknown: there was nothing to try it on.
	Unknown State = "unknown"
)

// Result is one check.
type Result struct {
	Name   string // of what was checked: "engine", "capabilities", …
	State  State
	Detail string // what was found
	Remedy string // what to do; empty if OK
}

// Engine is what the checks ask of the Docker Engine.
type Engine interface {
	Info(ctx context.Context) (engine.Info, error)
	List(ctx context.Context) ([]*port.Container, error)
}

// Options say where to look.
type Options struct {
	ProcRoot   string
	CgroupRoot string
	// Source is "auto", "ebpf", "netlink" or "proc", as in the setting: what is
	// insisted on must work.
	Source string
}

// Host checks what does not depend on the engine, and is cheap.
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

// All checks everything, the engine first.
func All(ctx context.Context, e Engine, o Options) []Result {
	if r := procRoot(o); r.State != OK {
		return []Result{checkEngine(ctx, e), r}
	}
	results := slices.Concat([]Result{checkEngine(ctx, e)}, containers(ctx, e, o), Host(o), Sources(o))
	together(o, results)
	return append(results, inUse(o, results))
}

// together corrects what works by itself alone: eBPF is not used without
// sock_diag, which tells what was open before.
func together(o Options, results []Result) {
	if o.Source == "proc" || o.Source == "netlink" || works(results, nameSockDiag) {
		return
	}
	for i := range results {
		if r := &results[i]; r.Name == nameEBPF && r.State == OK {
			r.State, r.Detail, r.Remedy = Degraded, "the programs can be loaded, but are not used without sock_diag", "see "+nameSockDiag
		}
	}
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

// The names of the checks that inUse looks at.
const (
	nameSockDiag = "sock_diag"
	nameDestroy  = "destroy notifications"
	nameEBPF     = "eBPF"
)

// inUse names the sources that a run would use, by what the checks have found.
func inUse(o Options, checked []Result) Result {
	r := Result{Name: "sources", State: OK}
	switch sockDiag, eBPF := works(checked, nameSockDiag), works(checked, nameEBPF); {
	case o.Source == "proc":
		r.Detail = "/proc, as --source says"
	case o.Source == "netlink" && !sockDiag, o.Source == "ebpf" && !(sockDiag && eBPF):
		r.State, r.Detail = Failed, "none: --source "+o.Source+" insists on what does not work here"
		r.Remedy = "see the line that failed; --source auto takes what works"
	case !sockDiag:
		r.State, r.Detail, r.Remedy = Degraded, "/proc alone: ports that live shorter than a scan interval are missed", "see "+nameSockDiag
	case o.Source != "netlink" && eBPF:
		r.Detail = "eBPF, with a sock_diag scan every 30 s"
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
