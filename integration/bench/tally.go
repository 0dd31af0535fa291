package main

import (
	"bytes"
	"context"
	"regexp"
	"sync"
	"time"
)

// The ports of the load lie below those that the kernel chooses for clients,
// and apart from those of other themes.
const (
	canaryPort = 29300
	stormPort  = 29311
	heldPort   = 29400 // and those after it
	heldCount  = 20
)

// quietTime without a new line is taken for the end of what a way reports.
const quietTime = 2 * time.Second

// An observation is what one line of a way says about one port.
type observation struct {
	opened, closed int
	burst          bool // they were counted, not listed
	named          bool // with a process id
	port           int
	losses         int // as many as it admits
	gap            bool
	container      string // portwatcher's lines only
}

// reported counts what was reported of one load.
type reported struct {
	opened, closed, named int // listed one by one
	bursts                int // openings and closings that were counted
}

// A tally counts observations. It is safe for concurrent use.
type tally struct {
	mutex       sync.Mutex
	storm, held reported
	canary      bool      // a line about the canary was seen
	losses      int       // as many as were admitted
	unnumbered  int       // gaps that do not say how many
	last        time.Time // when the last line came
}

func (t *tally) add(o observation) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.last = time.Now()
	t.losses += o.losses
	t.unnumbered += one(o.gap && o.losses == 0)
	var load *reported
	switch {
	case o.port == stormPort:
		load = &t.storm
	case o.port >= heldPort && o.port < heldPort+heldCount:
		load = &t.held
	case o.port == canaryPort:
		t.canary = true
		return
	default:
		return
	}
	if o.burst {
		load.bursts += o.opened + o.closed
		return
	}
	load.opened += o.opened
	load.closed += o.closed
	if o.named {
		load.named += o.opened
	}
}

func (t *tally) counts() (storm, held reported, losses int) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.storm, t.held, t.losses
}

func (t *tally) sawCanary() bool {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.canary
}

// await waits until done says so, or until no line has come for quietTime.
func (t *tally) await(ctx context.Context, done func() bool) error {
	begin := time.Now()
	for !done() {
		t.mutex.Lock()
		last := t.last
		t.mutex.Unlock()
		if last.Before(begin) {
			last = begin
		}
		if time.Since(last) > quietTime {
			return nil
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// parseTCPStates reads a line of tcpstates: socket, pid, command, local
// address and port, remote address and port, old state, "->", new state, time.
func parseTCPStates(line []byte) (o observation) {
	fields := bytes.Fields(line)
	if len(fields) != 11 {
		return parseLost(line)
	}
	o.opened = one(string(fields[9]) == "LISTEN")
	o.closed = one(string(fields[7]) == "LISTEN" && string(fields[9]) == "CLOSE")
	o.named, o.port = number(fields[1]) > 0, number(fields[4])
	return o
}

// bpftraceProgram prints old state, new state, port and pid of each change to
// and from LISTEN.
const bpftraceProgram = `tracepoint:sock:inet_sock_set_state /args->oldstate == 10 || args->newstate == 10/ ` +
	`{ printf("state %d %d %d %d\n", args->oldstate, args->newstate, args->sport, pid); }`

func parseBpftrace(line []byte) (o observation) {
	fields := bytes.Fields(line)
	if len(fields) != 5 || string(fields[0]) != "state" {
		return parseLost(line)
	}
	o.opened = one(number(fields[2]) == stateListen)
	o.closed = one(number(fields[1]) == stateListen && number(fields[2]) == stateClose)
	o.port, o.named = number(fields[3]), number(fields[4]) > 0
	return o
}

// parseSS reads a line of ss -E: state, two queues, local address:port, remote.
// It tells of what was destroyed, and of no process.
func parseSS(line []byte) (o observation) {
	fields := bytes.Fields(line)
	if len(fields) < 5 {
		return o
	}
	o.closed = 1
	o.port = number(fields[3][bytes.LastIndexByte(fields[3], ':')+1:])
	return o
}

var lostEvents = regexp.MustCompile(`(?i)\blost (\d+) events`)

func parseLost(line []byte) (o observation) {
	if match := lostEvents.FindSubmatch(line); match != nil {
		o.losses = number(match[1])
	}
	return o
}
