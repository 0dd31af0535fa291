package controller

import (
	"time"

	"portwatcher/internal/port"
	"portwatcher/internal/probe"
	"portwatcher/internal/process"
)

// Bounds on the facts that wait for their container to be announced. An engine
// announces a container within a second; a busy one may take longer.
const (
	maxPending  = 1 << 15
	pendingTime = 15 * time.Second
)

// pending holds facts of containers that the engine has not announced yet, in
// their order. The zero value is ready.
type pending struct {
	facts  []*fact
	opened map[socketID]struct{} // those that wait with their opening
	// overflow counts facts that were given up before their time.
	overflow int
}

type socketID struct{ netns, cookie uint64 }

// add keeps a fact; beyond the bounds, the oldest are given up.
func (p *pending) add(f *fact) {
	if p.opened == nil {
		p.opened = map[socketID]struct{}{}
	}
	drop := 0
	for drop < len(p.facts) && (len(p.facts)-drop >= maxPending || f.arrived.Sub(p.facts[drop].arrived) > pendingTime) {
		if f.arrived.Sub(p.facts[drop].arrived) <= pendingTime {
			p.overflow++
		}
		p.forget(p.facts[drop])
		drop++
	}
	p.facts = append(p.facts[drop:], f)
	if f.Kind == probe.Opened {
		p.opened[socketID{f.NetnsCookie, f.Socket.Cookie}] = struct{}{}
	}
}

func (p *pending) forget(f *fact) {
	if f.Kind == probe.Opened {
		delete(p.opened, socketID{f.NetnsCookie, f.Socket.Cookie})
	}
}

// has says whether a socket's opening waits.
func (p *pending) has(netns, cookie uint64) bool {
	_, ok := p.opened[socketID{netns, cookie}]
	return ok
}

// takeAll empties the list and returns what was in it.
func (p *pending) takeAll() []*fact {
	facts := p.facts
	p.clear()
	return facts
}

func (p *pending) clear() { p.facts, p.opened = nil, nil }

// processCache remembers for a moment what /proc told of a process: one that
// opens thousands of ports is read once a second. It belongs to one goroutine.
type processCache struct {
	finder *process.Finder
	known  map[processID]described
}

type processID struct {
	pid  int
	name string
}

type described struct {
	processes []port.Process
	at        time.Time
}

const (
	describedFor = time.Second
	maxDescribed = 1024
)

// describe returns a process as the only holder. Its pid and name are those of
// the event; what else there is, if it still lives and has not become another
// program, comes from /proc.
func (p *processCache) describe(pid int, name string) []port.Process {
	id := processID{pid, name}
	now := time.Now()
	if d, ok := p.known[id]; ok && now.Sub(d.at) < describedFor {
		return d.processes
	}
	if len(p.known) >= maxDescribed || p.known == nil {
		p.known = map[processID]described{}
	}
	told := p.finder.Describe(pid)
	if told.Name != name {
		told = port.Process{PID: pid, Name: name}
	}
	d := described{processes: []port.Process{told}, at: now}
	p.known[id] = d
	return d.processes
}
