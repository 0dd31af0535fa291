package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"portwatcher/internal/model"
)

// workloadPath is where the image has this program; its base is what the kernel
// calls the process.
const workloadPath = "/workload"

// A truth is what really happened in a container.
type truth struct {
	container string
	// facts are those of the workload that is verified, in their order.
	facts []fact
	// others are the ports that the container opens and closes by itself.
	others map[number]bool
	// exposure of a port of the container; empty where it is not known.
	exposure func(r report) model.Exposure
}

// A number is a port without an address.
type number struct {
	protocol string
	port     uint16
}

// A comparison is what portwatcher reported beside what really happened.
type comparison struct {
	// missing are reports that did not come, or not yet.
	missing []string
	// wrong are reports that should not be there, or say what is not so.
	wrong []string
	// reports is how many were compared; processes and exposures of how many these
	// were known on both sides.
	reports, processes, exposures int
	sources                       []model.Source
}

func (c *comparison) wrongf(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// String tells what was compared.
func (c *comparison) String() string {
	var sources []string
	for _, s := range c.sources {
		sources = append(sources, string(s))
	}
	return fmt.Sprintf("%d reports by %s, each once, in order, of the right container and in the log; process right in %d, "+
		"exposure in %d; nothing else reported", c.reports, strings.Join(sources, ", "), c.processes, c.exposures)
}

// compare looks at what was recorded, of all containers, in the order of ids.
func compare(t *truth, events []*model.Event) *comparison {
	c := &comparison{}
	mine, foreign := map[report][]*model.Event{}, map[report][]*model.Event{}
	for _, e := range events {
		switch {
		case e.Container == nil || !isOfOne(e):
		case e.Container.Name == t.container:
			mine[reportOf(e)] = append(mine[reportOf(e)], e)
		default:
			foreign[reportOf(e)] = append(foreign[reportOf(e)], e)
		}
	}
	changes := changes(t.facts)
	wanted := map[report]int{}
	var order []paired
	for _, f := range changes {
		r := f.report()
		if n := wanted[r]; n < len(mine[r]) {
			order = append(order, paired{f, mine[r][n]})
		}
		wanted[r]++
	}
	for r, n := range wanted {
		if len(mine[r]) == 0 {
			c.missing = append(c.missing, r.String())
		}
		if len(mine[r]) > n {
			c.wrongf("%s is reported %d times and happened %d times", r, len(mine[r]), n)
		}
		c.compareForeign(r, mine[r], foreign[r])
	}
	c.compareUnwanted(t, wanted, mine)
	c.compareOrder(order)
	for _, p := range order {
		c.compareDetails(t, p)
	}
	slices.Sort(c.missing)
	slices.Sort(c.wrong)
	slices.Sort(c.sources)
	c.sources = slices.Compact(c.sources)
	return c
}

// changes leaves out the facts that change nothing for others: a port is open
// while at least one socket is.
func changes(facts []fact) []fact {
	var all []fact
	open := map[report]int{} // by the report of the opening
	for _, f := range facts {
		endpoint := f.report()
		endpoint.action = actionOpened
		switch f.Action {
		case actionOpened:
			if open[endpoint]++; open[endpoint] == 1 {
				all = append(all, f)
			}
		case actionClosed:
			if open[endpoint]--; open[endpoint] == 0 {
				all = append(all, f)
			}
		}
	}
	return all
}

// compareForeign looks for the workload's ports in other containers. They may
// have the same ports, but not by the same process, nor in place of this one.
func (c *comparison) compareForeign(r report, mine, foreign []*model.Event) {
	for _, e := range foreign {
		same := slices.ContainsFunc(mine, func(other *model.Event) bool { return sharesProcess(e, other) })
		if len(mine) == 0 || same {
			c.wrongf("%s is reported of the container %s", r, e.Container.Name)
		}
	}
}

func sharesProcess(a, b *model.Event) bool {
	return slices.ContainsFunc(a.Processes, func(p model.Process) bool {
		return slices.ContainsFunc(b.Processes, func(q model.Process) bool { return p.PID == q.PID })
	})
}

// compareUnwanted looks for reports of what did not happen.
func (c *comparison) compareUnwanted(t *truth, wanted map[report]int, mine map[report][]*model.Event) {
	for r := range mine {
		if wanted[r] > 0 || t.others[number{r.protocol, r.port}] {
			continue
		}
		if r.action == string(model.Changed) && slices.ContainsFunc(t.facts, func(f fact) bool { return f.Action == actionHeld && f.Port == r.port }) {
			continue // a child took it over
		}
		c.wrongf("%s is reported and did not happen, unless something else ran in the container", r)
	}
}

// A paired is a fact and the event that reports it.
type paired struct {
	fact  fact
	event *model.Event
}

// compareOrder holds that a port opens before it closes, by id and by time, and
// that the times of eBPF, which are exact, are in the order of what happened.
func (c *comparison) compareOrder(order []paired) {
	opened := map[report]*model.Event{}
	var last *paired
	for i := range order {
		p := &order[i]
		endpoint := p.fact.report()
		endpoint.action = actionOpened
		if p.fact.Action == actionOpened {
			opened[endpoint] = p.event
		} else if o := opened[endpoint]; o != nil && (p.event.ID < o.ID || p.event.Time.Before(o.Time)) {
			c.wrongf("%s is reported before its opening", p.fact.report())
		}
		if p.event.Source != model.SourceEBPF {
			continue
		}
		if last != nil && !last.fact.After.After(p.fact.Time) && p.event.Time.Before(last.event.Time) {
			c.wrongf("%s has a time before that of %s, which happened earlier", p.fact.report(), last.fact.report())
		}
		last = p
	}
}

// compareDetails compares processes and exposure where both sides know them.
func (c *comparison) compareDetails(t *truth, p paired) {
	r, e := p.fact.report(), p.event
	c.reports++
	c.sources = append(c.sources, e.Source)
	c.compareProcesses(t, p)
	want := t.exposure(r)
	if e.IPv6Only || want == "" || e.Exposure == "" {
		return
	}
	c.exposures++
	if e.Exposure != want {
		c.wrongf("%s has the exposure %s, want %s", r, e.Exposure, want)
	}
}

func (c *comparison) compareProcesses(t *truth, p paired) {
	r, e := p.fact.report(), p.event
	if len(e.Processes) == 0 {
		if e.Source == model.SourceEBPF {
			c.wrongf("%s names no process, and eBPF knows it", r)
		}
		return
	}
	holders := holdersOf(t.facts, p.fact)
	known := false
	for _, process := range e.Processes {
		if process.Name != "" && process.Name != path.Base(workloadPath) {
			c.wrongf("%s names the process %s, want %s", r, process.Name, path.Base(workloadPath))
		}
		if process.ContainerPID == 0 {
			continue // it had ended before anybody could look
		}
		known = true
		if !slices.Contains(holders, process.ContainerPID) {
			c.wrongf("%s names the process %d of the container, want %v", r, process.ContainerPID, holders)
		}
	}
	if known {
		c.processes++
	}
}

// holdersOf are the processes, in the container, that had the port of a fact.
func holdersOf(facts []fact, of fact) []int {
	pids := []int{of.PID}
	for _, f := range facts {
		if f.Action == actionHeld && f.Protocol == of.Protocol && f.Address == of.Address && f.Port == of.Port {
			pids = append(pids, f.PID)
		}
	}
	return pids
}
