package main

import (
	"bytes"
	"context"
	"regexp"
	"strconv"
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
	named          bool // with a process id
	port           int
	losses         int // as many as it admits: events, or gaps
}

// reported counts what was reported of one load.
type reported struct{ opened, closed, named int }

// A tally counts observations. It is safe for concurrent use.
type tally struct {
	mutex       sync.Mutex
	storm, held reported
	canary      bool // a line about the canary was seen
	losses      int
	last        time.Time // when the last line came
}

func (t *tally) add(o observation) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.last = time.Now()
	t.losses += o.losses
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

var (
	typeOpened = []byte(`"type":"opened"`)
	typeClosed = []byte(`"type":"closed"`)
	typeBurst  = []byte(`"type":"burst"`)
	typeGap    = []byte(`"type":"gap"`)
	counted    = []byte(`"transient":false,"opened":`)
	countedToo = []byte(`,"closed":`)
	withPID    = []byte(`"processes":[{"pid":`)
	portField  = []byte(`"port":`)
)

// parsePortwatcher reads an event without decoding all of it, which would take
// its share of the processor.
func parsePortwatcher(line []byte) (o observation) {
	if bytes.Contains(line, typeGap) {
		o.losses = 1
		return o
	}
	o.opened, o.closed = one(bytes.Contains(line, typeOpened)), one(bytes.Contains(line, typeClosed))
	if bytes.Contains(line, typeBurst) {
		o.opened, o.closed = numberAfter(line, counted), numberAfter(line, countedToo)
	}
	o.named = bytes.Contains(line, withPID)
	o.port = numberAfter(line, portField)
	return o
}

// numberAfter is the number between a text and the next comma; 0 where there is
// none.
func numberAfter(line, text []byte) int {
	_, rest, found := bytes.Cut(line, text)
	if !found {
		return 0
	}
	digits, _, _ := bytes.Cut(rest, []byte(","))
	return number(digits)
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
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

// number returns 0 for what is none.
func number(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0
	}
	return n
}
