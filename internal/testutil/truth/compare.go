package truth

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"portwatcher/internal/model"
)

// Case is what the workload did in one container, to be compared with single events.
type Case struct {
	// Container is the container's id or name.
	Container string
	// Facts are those of the workload, in their order.
	Facts     []Fact
	Precision Precision
	// Ignore reports whether an endpoint is none of the workload's. Nil ignores nothing.
	Ignore func(model.Endpoint) bool
	// Exposure is that of an endpoint, and empty where it is not known. Nil compares none.
	Exposure func(model.Endpoint) model.Exposure
}

// Result is what [Case.Compare] found.
type Result struct {
	Problems []Problem
	// Reports is how many facts have an event. Of so many of these the process, and the
	// exposure, is known on both sides.
	Reports, Processes, Exposures int
	// Sources are those of the events, each once.
	Sources []model.Source
}

func (r *Result) found(kind Kind, format string, arguments ...any) {
	r.Problems = append(r.Problems, Problem{Kind: kind, Text: fmt.Sprintf(format, arguments...)})
}

// Missing reports whether an event is missing, which may come later.
func (r *Result) Missing() bool {
	return slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Kind == Missing })
}

// pair is a fact with the event that reports it.
type pair struct {
	fact  Fact
	event *Event
}

// Compare compares the facts with all events of portwatcher meanwhile, in the order of
// their ids. Events of other containers are compared only where they are of the same
// endpoint.
func (c *Case) Compare(events []Event) *Result {
	r := &Result{}
	changes := map[model.Endpoint][]Fact{}
	for _, f := range Changes(c.Facts) {
		changes[f.Endpoint()] = append(changes[f.Endpoint()], f)
	}
	mine, foreign := c.split(r, events, changes)
	var pairs []pair
	for _, at := range slices.SortedFunc(maps.Keys(changes), model.Endpoint.Compare) {
		pairs = append(pairs, c.pair(r, at, changes[at], mine[at])...)
		compareForeign(r, mine[at], foreign[at])
	}
	for _, at := range slices.SortedFunc(maps.Keys(mine), model.Endpoint.Compare) {
		if changes[at] == nil && (c.Ignore == nil || !c.Ignore(at)) {
			r.found(Unexpected, "%s is reported and did not happen, unless something else ran in the container", describe(mine[at][0]))
		}
	}
	for i := range pairs {
		c.compareDetails(r, &pairs[i])
	}
	compareOrder(r, pairs)
	r.Reports = len(pairs)
	slices.Sort(r.Sources)
	r.Sources = slices.Compact(r.Sources)
	return r
}

// split returns the openings and closings of the container, and those of others on the
// endpoints of the facts. It finds what is neither.
func (c *Case) split(r *Result, events []Event, changes map[model.Endpoint][]Fact) (mine, foreign map[model.Endpoint][]*Event) {
	mine, foreign = map[model.Endpoint][]*Event{}, map[model.Endpoint][]*Event{}
	for i := range events {
		e := &events[i]
		if e.Container == nil || e.Type == model.Gap || e.Type == model.Drifted {
			continue
		}
		at := e.Endpoint()
		at.Container = ""
		switch its := e.Container.ID == c.Container || e.Container.Name == c.Container; {
		case !its && changes[at] != nil:
			foreign[at] = append(foreign[at], e)
		case !its:
		case e.Type == model.Bursts:
			r.found(Unexpected, "want an event each, and not a burst: %s", e.Line)
		case e.Type == model.Changed && e.Change == model.ChangeExposure:
			c.compareExposure(r, describe(e), e)
		case e.Type == model.Changed:
			held := func(f Fact) bool { return f.Action == Held && f.Endpoint() == at }
			if c.Precision != Sampled && !slices.ContainsFunc(c.Facts, held) && (c.Ignore == nil || !c.Ignore(at)) {
				r.found(Unexpected, "%s is reported and did not happen", describe(e))
			}
		default:
			mine[at] = append(mine[at], e)
		}
	}
	return mine, foreign
}

// pair returns the events of one endpoint with their facts. Scans may miss an opening
// together with its closing.
func (c *Case) pair(r *Result, at model.Endpoint, facts []Fact, events []*Event) (pairs []pair) {
	if c.Precision == Sampled && len(events) < len(facts) && len(events)%2 == 0 {
		return nil
	}
	for i := range max(len(facts), len(events)) {
		switch {
		case i >= len(events):
			r.found(Missing, "%s", &facts[i])
		case i >= len(facts):
			r.found(Unexpected, "%s is reported for the %d. time, and happened less often", describe(events[i]), i+1)
		case string(facts[i].Action) != string(events[i].Type):
			r.found(Unordered, "%s is reported where %s happened", describe(events[i]), &facts[i])
			return pairs
		default:
			pairs = append(pairs, pair{facts[i], events[i]})
			if last := len(pairs) - 2; facts[i].Action == Closed && last >= 0 && events[i].Transient != pairs[last].event.Transient {
				r.found(Broken, "only one of the opening and the closing of %d/%s is a transient", at.Port, at.Protocol)
			}
		}
	}
	return pairs
}

// compareForeign finds the workload's ports in other containers. They may have the same
// ports, but neither by the same process nor in place of this one.
func compareForeign(r *Result, mine, foreign []*Event) {
	for _, e := range foreign {
		if !e.ofOneEndpoint() {
			continue
		}
		same := slices.ContainsFunc(mine, func(other *Event) bool { return sharesProcess(e, other) })
		if len(mine) == 0 || same {
			r.found(WrongPlace, "%s is reported of the container %s", describe(e), e.Container.Name)
		}
	}
}

// compareOrder checks that a port opens before it closes, by id and by time, and that the
// times of eBPF, which are exact, are in the order of what happened.
func compareOrder(r *Result, pairs []pair) {
	pairs = slices.Clone(pairs)
	slices.SortStableFunc(pairs, func(a, b pair) int { return a.fact.Time.Compare(b.fact.Time) })
	opened := map[model.Endpoint]*Event{}
	var last *pair
	for i := range pairs {
		p := &pairs[i]
		if o := opened[p.fact.Endpoint()]; p.fact.Action == Opened {
			opened[p.fact.Endpoint()] = p.event
		} else if o != nil && (p.event.ID < o.ID || p.event.Time.Before(o.Time)) {
			r.found(Unordered, "%s is reported before its opening", &p.fact)
		}
		if p.event.Source != model.SourceEBPF {
			continue
		}
		if last != nil && !last.fact.After.After(p.fact.Time) && p.event.Time.Before(last.event.Time) {
			r.found(Unordered, "%s has a time before that of %s, which happened earlier", &p.fact, &last.fact)
		}
		last = p
	}
}

// compareDetails compares source, time, processes and exposure of an event with its fact.
func (c *Case) compareDetails(r *Result, p *pair) {
	e := p.event
	r.Sources = append(r.Sources, e.Source)
	switch byEBPF := e.Source == model.SourceEBPF; {
	case c.Precision == Exact && !byEBPF:
		r.found(WrongSource, "want the source ebpf: %s", e.Line)
	case byEBPF && !p.fact.holds(e.Time):
		r.found(WrongTime, "%s: %v after the call: %s", &p.fact, e.Time.Sub(p.fact.After), e.Line)
	case p.fact.Action == Closed && e.Time.Before(p.fact.Time.Add(-clockPrecision)):
		r.found(WrongTime, "%s: %v before the call: %s", &p.fact, p.fact.Time.Sub(e.Time), e.Line)
	}
	c.compareProcesses(r, p)
	c.compareExposure(r, p.fact.String(), e)
}

// compareExposure compares the exposure of an event with what it must be.
func (c *Case) compareExposure(r *Result, what string, e *Event) {
	if c.Exposure == nil || e.IPv6Only || e.Exposure == "" {
		return
	}
	at := e.Endpoint()
	at.Container = ""
	if want := c.Exposure(at); want != "" {
		r.Exposures++
		if e.Exposure != want {
			r.found(WrongReach, "%s has the exposure %s, want %s", what, e.Exposure, want)
		}
	}
}

// compareProcesses compares the processes of an event with those that had the port.
func (c *Case) compareProcesses(r *Result, p *pair) {
	e := p.event
	if len(e.Processes) == 0 {
		if e.Source == model.SourceEBPF {
			r.found(WrongProcess, "%s names no process, and the source is eBPF", &p.fact)
		}
		return
	}
	holders := map[int]*uint32{p.fact.PID: p.fact.UID}
	for _, f := range c.Facts {
		if f.Action == Held && f.Endpoint() == p.fact.Endpoint() {
			holders[f.PID] = f.UID
		}
	}
	if len(e.Processes) > len(holders) {
		r.found(WrongProcess, "%s names %d processes, want %d at most: %s", &p.fact, len(e.Processes), len(holders), e.Line)
	}
	known := false
	for _, process := range e.Processes {
		if problem := CheckWorkload(&process); problem != "" {
			r.found(WrongProcess, "%s: %s: %s", &p.fact, problem, e.Line)
		}
		if process.ContainerPID == 0 {
			continue // it had ended before it could be read
		}
		known = true
		if uid, holds := holders[process.ContainerPID]; !holds {
			r.found(WrongProcess, "%s names the process %d of the container, want %v", &p.fact, process.ContainerPID, slices.Sorted(maps.Keys(holders)))
		} else if uid != nil && process.UID != nil && *uid != *process.UID {
			r.found(WrongProcess, "%s names the user %d, want %d", &p.fact, *process.UID, *uid)
		}
	}
	if known {
		r.Processes++
	}
}

// CheckWorkload returns what in a process is not of the workload, or "". What is read of
// a process that may have ended can be absent, but not wrong.
func CheckWorkload(p *model.Process) string {
	switch {
	case p.PID == 0:
		return "a process without a pid"
	case cmp.Or(p.Name, workloadName) != workloadName:
		return fmt.Sprintf("the process %s, want %s", p.Name, workloadName)
	case cmp.Or(p.Executable, WorkloadPath) != WorkloadPath:
		return fmt.Sprintf("the executable %s, want %s", p.Executable, WorkloadPath)
	}
	return ""
}

// describe names what an event reports.
func describe(e *Event) string {
	return fmt.Sprintf("%s %d/%s on %s", e.Type, e.Port, e.Protocol, e.Address)
}
