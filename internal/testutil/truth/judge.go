package truth

import (
	"fmt"
	"maps"
	"slices"

	"portwatcher/internal/model"
)

// Precision is how much of what happened a source can report.
type Precision int

const (
	// Sampled: what is open at the moment of a scan (/proc). Nothing is reported twice.
	Sampled Precision = iota
	// Complete: each opening and closing is an event, or counted in a burst or a gap. A
	// gap may have no number, or count notifications that are of no port (netlink).
	Complete
	// Exact: Complete, with the process and the time of each event, and the exact number
	// of each gap (eBPF).
	Exact
)

// PrecisionOf returns the precision of a source, as --source forces it.
func PrecisionOf(source string) Precision {
	return map[string]Precision{"ebpf": Exact, "netlink": Complete}[source]
}

// Kind names what is wrong.
type Kind string

const (
	Broken       Kind = "broken event"      // it breaks the contract
	Missing      Kind = "missing"           // it happened and is not reported, or not yet
	Unexpected   Kind = "unexpected"        // it is reported and did not happen, or too often
	Unordered    Kind = "wrong order"       // it is reported before what happened earlier
	WrongTime    Kind = "wrong time"        // it did not happen then
	WrongProcess Kind = "wrong process"     // another process did it
	WrongPlace   Kind = "wrong container"   // it happened in another container
	WrongReach   Kind = "wrong exposure"    // others can reach it than is reported
	WrongSource  Kind = "wrong source"      // another source has to report it
	LeftOpen     Kind = "left open"         // it is closed, and its closing is not reported
	Overcounted  Kind = "counted too often" // more is reported, or in gaps, than happened
	Unaccounted  Kind = "unaccounted"       // in no event, no burst and no gap
)

// Problem is something that was reported wrongly.
type Problem struct {
	Kind      Kind
	Container string // id, or empty
	Text      string
}

// String returns the name, as in messages.
func (p Problem) String() string {
	if p.Container == "" {
		return fmt.Sprintf("%s: %s", p.Kind, p.Text)
	}
	return fmt.Sprintf("%s: container %.12s: %s", p.Kind, p.Container, p.Text)
}

// Judgement compares the sums of a ledger with what happened, in numbers of openings
// and closings.
type Judgement struct {
	Happened, Listed, Bursts uint64
	// Gaps is what of the gaps stands for something that is missing otherwise.
	Gaps uint64
	// Unnumbered is how many gaps have no number.
	Unnumbered int
	Problems   []Problem
	// Short are the containers of which something is in no account of their own.
	Short []string
}

// Unaccounted is how much is in no account; negative where more is than happened.
func (j *Judgement) Unaccounted() int64 { return int64(j.Happened - j.Listed - j.Bursts - j.Gaps) }

func (j *Judgement) found(kind Kind, container, format string, arguments ...any) {
	j.Problems = append(j.Problems, Problem{kind, container, fmt.Sprintf(format, arguments...)})
}

// othersLost is how many notifications of a container's gaps may be of no port: those of
// clients, and of other programs that dump the sockets of the namespace.
const othersLost = 32

// Judge compares the accounts with what really happened in each container by its id.
// Everything in these containers must be closed. Accounts of others are ignored, and a
// gap that names no container may be of others.
func (l *Ledger) Judge(happened map[string]Count, precision Precision) *Judgement {
	j := &Judgement{Unnumbered: l.Unnumbered}
	open := map[string][]string{}
	for at := range l.Open {
		open[at.Container] = append(open[at.Container], fmt.Sprintf("%d/%s on %s", at.Port, at.Protocol, at.Address))
	}
	for _, id := range slices.Sorted(maps.Keys(happened)) {
		if len(open[id]) > 0 {
			j.found(LeftOpen, id, "%q", open[id])
		}
		j.judge(id, l.Account(id), happened[id], precision)
	}
	j.Gaps += min(l.Lost, uint64(max(j.Unaccounted(), 0)))
	if missing := j.Unaccounted(); missing > 0 && (precision == Exact || precision == Complete && l.Unnumbered == 0) {
		j.found(Unaccounted, "", "%d openings and closings, of %d; something is missing of %q", missing, j.Happened, j.Short)
	}
	return j
}

// judge compares one account.
func (j *Judgement) judge(id string, its *Account, happened Count, precision Precision) {
	reported := its.reported()
	j.Happened += happened.Sum()
	j.Listed += its.Listed.Sum()
	j.Bursts += its.Bursts.Sum()
	// At the edges of a burst the times are not exact.
	if precision == Exact && len(its.Early) > 0 && its.Bursts == (Count{}) {
		j.found(WrongTime, id, "events are earlier than those before them, by %v", its.Early)
	}
	if reported.Opened > happened.Opened || reported.Closed > happened.Closed {
		j.found(Overcounted, id, "%v are reported, more than the %v that happened", reported, happened)
	}
	missing := happened.Sum() - min(reported.Sum(), happened.Sum())
	tolerance := uint64(othersLost)
	if precision == Exact {
		tolerance = 0
	}
	if its.Lost > missing+tolerance {
		j.found(Overcounted, id, "its gaps stand for %d, and only %d are missing", its.Lost, missing)
	}
	j.Gaps += min(its.Lost, missing)
	if its.Lost < missing {
		j.Short = append(j.Short, fmt.Sprintf("%.12s: %d of %d openings and %d of %d closings",
			id, reported.Opened, happened.Opened, reported.Closed, happened.Closed))
	}
}

// workloadName is what the kernel calls a process of the workload. WorkloadPath is where
// its images have the program.
const (
	workloadName = "workload"
	WorkloadPath = "/" + workloadName
)

// sharesProcess reports whether two events name a common process.
func sharesProcess(a, b *Event) bool {
	return slices.ContainsFunc(a.Processes, func(p model.Process) bool {
		return slices.ContainsFunc(b.Processes, func(q model.Process) bool { return p.PID == q.PID })
	})
}
