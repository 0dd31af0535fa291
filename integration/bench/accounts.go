package main

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// happened counts openings and closings.
type happened struct{ opened, closed int }

func (h happened) plus(more happened) happened {
	return happened{h.opened + more.opened, h.closed + more.closed}
}

func (h happened) sum() int { return h.opened + h.closed }

// An account is what portwatcher reported of one container.
type account struct {
	listed, bursts happened // as events of their own, and counted
	lost           int      // by gaps that name the container
}

// accounts are those of all containers, by id. It is safe for concurrent use.
type accounts struct {
	mutex      sync.Mutex
	containers map[string]*account
	lost       int // by gaps that name no container
	unnumbered int // gaps that do not say how many they stand for
}

func newAccounts() *accounts { return &accounts{containers: map[string]*account{}} }

// add is an [observer].
func (a *accounts) add(line []byte, _ time.Time) {
	o := parsePortwatcher(line)
	a.mutex.Lock()
	defer a.mutex.Unlock()
	switch of := a.of(o.container); {
	case o.gap && o.losses == 0:
		a.unnumbered++
	case o.gap && o.container == "":
		a.lost += o.losses
	case o.gap:
		of.lost += o.losses
	case o.burst:
		of.bursts = of.bursts.plus(happened{o.opened, o.closed})
	default:
		of.listed = of.listed.plus(happened{o.opened, o.closed})
	}
}

func (a *accounts) of(container string) *account {
	if a.containers[container] == nil {
		a.containers[container] = &account{}
	}
	return a.containers[container]
}

// container returns the account of a container.
func (a *accounts) container(id string) account {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return *a.of(id)
}

// A balance holds accounts against what happened, in openings and closings.
type balance struct {
	happened, listed, bursts, gaps int
	unnumbered                     int // gaps without a number
	problems                       []string
	short                          []string // containers of which something is in no account that names them
}

// unaccounted is what is in no account; negative where more is than happened.
func (b *balance) unaccounted() int { return b.happened - b.listed - b.bursts - b.gaps }

// exact says that everything is accounted for, no more and no less.
func (b *balance) exact() bool { return len(b.problems) == 0 && b.unaccounted() == 0 }

// balance compares some containers, of which all is closed in the end. What it finds
// wrong in one of them is a problem. Of what the gaps stand for that name no container,
// as much counts as is missing otherwise: some may have happened elsewhere.
func (a *accounts) balance(truth map[string]happened) balance {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	b := balance{unnumbered: a.unnumbered}
	for id, did := range truth {
		its := *a.of(id)
		reported := its.listed.plus(its.bursts)
		b.happened += did.sum()
		b.listed += its.listed.sum()
		b.bursts += its.bursts.sum()
		b.gaps += its.lost
		switch {
		case reported.opened > did.opened || reported.closed > did.closed:
			b.problem(id, "%d openings and %d closings are reported, more than the %d and %d that happened", reported.opened, reported.closed, did.opened, did.closed)
		case its.lost > did.sum()-reported.sum():
			b.problem(id, "its gaps stand for %d, and only %d are missing", its.lost, did.sum()-reported.sum())
		case its.listed.opened != its.listed.closed:
			b.problem(id, "%d openings are listed and %d closings, although all is closed", its.listed.opened, its.listed.closed)
		case its.lost < did.sum()-reported.sum():
			b.short = append(b.short, fmt.Sprintf("container %s: %d of %d openings and %d of %d closings", id[:min(12, len(id))],
				reported.opened, did.opened, reported.closed, did.closed))
		}
	}
	b.gaps += min(a.lost, max(b.unaccounted(), 0))
	return b
}

func (b *balance) problem(container, format string, arguments ...any) {
	b.problems = append(b.problems, "container "+container[:min(12, len(container))]+": "+fmt.Sprintf(format, arguments...))
}

var (
	typeOpened  = []byte(`"type":"opened"`)
	typeClosed  = []byte(`"type":"closed"`)
	typeBurst   = []byte(`"type":"burst"`)
	typeGap     = []byte(`"type":"gap"`)
	counted     = []byte(`"transient":false,"opened":`)
	countedToo  = []byte(`,"closed":`)
	lostField   = []byte(`"lost":`)
	ofJournal   = []byte(`missing from the journal`) // and not from standard output
	withPID     = []byte(`"processes":[{"pid":`)
	portField   = []byte(`"port":`)
	ofContainer = []byte(`"container":{"id":"`)
)

// parsePortwatcher reads an event without decoding all of it, which would take
// its share of the processor.
func parsePortwatcher(line []byte) (o observation) {
	if _, rest, found := bytes.Cut(line, ofContainer); found {
		id, _, _ := bytes.Cut(rest, []byte(`"`))
		o.container = string(id)
	}
	if bytes.Contains(line, typeGap) {
		o.gap, o.losses = !bytes.Contains(line, ofJournal), numberAfter(line, lostField)
		if !o.gap {
			o.losses = 0
		}
		return o
	}
	o.opened, o.closed = one(bytes.Contains(line, typeOpened)), one(bytes.Contains(line, typeClosed))
	if o.burst = bytes.Contains(line, typeBurst); o.burst {
		o.opened, o.closed = numberAfter(line, counted), numberAfter(line, countedToo)
	}
	o.named = bytes.Contains(line, withPID)
	o.port = numberAfter(line, portField)
	return o
}

// numberAfter is the number that follows a text; 0 where there is none.
func numberAfter(line, text []byte) int {
	_, rest, found := bytes.Cut(line, text)
	if !found {
		return 0
	}
	end := bytes.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	return number(rest[:end])
}

// number returns 0 for what is none.
func number(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0
	}
	return n
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}
