package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// captured is what one way reported of the load.
type captured struct {
	way         string
	source      string // empty but for portwatcher
	perSecond   float64
	storm, held reported
	losses      int           // as many as it admits
	unnumbered  int           // gaps without a number
	cpu         time.Duration // that the storm cost it
	memory      memoryUse
	ended       error  // it ended by itself meanwhile
	missing     string // why it could not be measured
}

// runCapture measures what portwatcher and other tools report of the same load, and what
// portwatcher reports on a machine that is busy.
func runCapture(ctx context.Context, s *settings, r *report) error {
	if err := captureAlone(ctx, s, r); err != nil {
		return err
	}
	return captureBusy(ctx, s, r)
}

// captureAlone lets the ways watch one container, one after another.
func captureAlone(ctx context.Context, s *settings, r *report) error {
	return onStage(ctx, s, r, newStage("capture", 1, 1, "bridge"), func(st *stage) error {
		var all []captured
		for _, way := range captureWays() {
			progress("capture: %s", way.name)
			c, err := measureCapture(ctx, st, way, s.captureCount)
			if ctx.Err() != nil {
				return err
			}
			if err != nil {
				c = captured{way: way.name, missing: err.Error()}
				r.missing("capture, "+way.name, err.Error())
			}
			all = append(all, c)
		}
		r.add(captureTable(all, s.captureCount))
		r.add(captureAims(all, s.captureCount))
		return nil
	})
}

func measureCapture(ctx context.Context, st *stage, way captureWay, count int) (c captured, err error) {
	c.way, c.source = way.name, way.source
	t := &tally{}
	running, err := way.start(ctx, st, t)
	if err != nil {
		return c, err
	}
	stopped := false
	stop := func() error { stopped = true; return running.stop() }
	defer func() {
		if !stopped {
			err = errors.Join(err, stop())
		}
	}()
	if err := c.storms(ctx, st, running.pid, t, count); err != nil {
		return c, err
	}
	if err := hold(ctx, st, t); err != nil {
		return c, err
	}
	if c.source != "" {
		if err := c.memory.awaitRelease(ctx, running.pid); err != nil {
			return c, err
		}
	}
	if running.ended != nil {
		c.ended = running.ended()
	}
	err = stop() // it writes now what it has buffered
	c.storm, c.held, c.losses = t.counts()
	c.unnumbered = t.unnumbered
	if c.source == "" { // its losses are of the whole host
		c.losses = min(c.losses, max(2*count-c.storm.opened-c.storm.closed, 0))
	}
	return c, err
}

// storms runs the load at full speed and waits until all of it is reported, or
// no more is.
func (c *captured) storms(ctx context.Context, st *stage, pid int, t *tally, count int) error {
	memory := func() error { return nil }
	var before time.Duration
	var err error
	if c.source != "" {
		if memory, err = c.memory.follow(ctx, pid); err != nil {
			return err
		}
	}
	if pid > 0 {
		if before, err = cpuTime(pid); err != nil {
			return errors.Join(err, memory())
		}
	}
	c.perSecond, err = storm(ctx, st, stormPort, count)
	if err == nil && pid > 0 {
		err = t.await(ctx, func() bool {
			storm, _, losses := t.counts()
			return storm.opened+storm.closed+storm.bursts+losses >= 2*count
		})
	}
	if err = errors.Join(err, memory()); err != nil || pid == 0 {
		return err
	}
	after, err := cpuTime(pid)
	c.cpu = after - before
	return err
}

// storm binds, listens and closes a port without pause, and returns how often
// it did so each second.
func storm(ctx context.Context, st *stage, port, count int) (perSecond float64, err error) {
	facts, err := st.exec(ctx, st.ids[0], "storm", "--port", strconv.Itoa(port), "--count", strconv.Itoa(count))
	if err != nil {
		return 0, err
	}
	if len(facts) != 1 || facts[0].Count != uint64(count) {
		return 0, fmt.Errorf("the storm was to make %d cycles; its facts are %v", count, facts)
	}
	return facts[0].PerSecond, nil
}

// hold opens some ports for 50 ms each.
func hold(ctx context.Context, st *stage, t *tally) error {
	_, err := st.exec(ctx, st.ids[0], "burst", "--base-port", strconv.Itoa(heldPort), "--count", strconv.Itoa(heldCount),
		"--hold", "50ms", "--interval", "10ms")
	if err != nil {
		return err
	}
	return t.await(ctx, func() bool {
		_, held, _ := t.counts()
		return held.opened >= heldCount && held.closed >= heldCount
	})
}

const (
	// canaryPatience bounds the wait until a tool reports its first socket.
	canaryPatience = 30 * time.Second
	// canaryCount sockets fill the buffer of a tool's standard output.
	canaryCount = 500
)

// A captureWay is one way to learn of ports. Its start returns when it observes what
// happens, and adds to the tally all that it reports from then on.
type captureWay struct {
	name   string
	source string // of portwatcher; empty for the others
	start  func(context.Context, *stage, *tally) (capturing, error)
}

// capturing is a way at work. stop returns when all that it reported is in the
// tally; ended returns why it ended before, and may be nil.
type capturing struct {
	pid   int // 0: there is no process
	stop  func() error
	ended func() error
}

const (
	// wayNothing is the load alone, to compare its speed with.
	wayNothing = "nothing"
	// wayBpftrace is the one whose CPU time is the aim.
	wayBpftrace = "bpftrace, inet_sock_set_state"
)

func captureWays() []captureWay {
	ways := []captureWay{{name: wayNothing, start: func(context.Context, *stage, *tally) (capturing, error) {
		return capturing{stop: func() error { return nil }}, nil
	}}}
	for _, source := range sources {
		ways = append(ways, captureWay{"portwatcher, " + source, source, startProduct(source)})
	}
	return append(ways,
		captureWay{name: "tcpstates (libbpf-tools)", start: startPeer(peer{
			program: "tcpstates", debianPackage: "libbpf-tools", command: withTracefs, parse: parseTCPStates})},
		captureWay{name: wayBpftrace, start: startPeer(peer{
			program: "bpftrace", debianPackage: "bpftrace", arguments: []string{"-e", bpftraceProgram}, command: withTracefs, parse: parseBpftrace})},
		captureWay{name: "ss -E -t, in the namespace", start: startPeer(peer{
			program: "ss", debianPackage: "iproute2", arguments: []string{"-E", "-H", "-t", "-n"}, command: inNamespace, parse: parseSS})},
	)
}

func startProduct(source string) func(context.Context, *stage, *tally) (capturing, error) {
	return func(ctx context.Context, st *stage, t *tally) (capturing, error) {
		w, err := st.watch(ctx, source)
		if err != nil {
			return capturing{}, err
		}
		var reader truth.Reader
		w.observe(func(line []byte, _ time.Time) {
			if event, err := reader.Read(string(line)); err == nil { // what is lost so is unaccounted
				t.add(observe(&event))
			}
		})
		return capturing{pid: w.process.Process.Pid, stop: func() error { _, err := w.stop(); return err }}, nil
	}
}

func captureTable(all []captured, count int) table {
	t := table{
		title: "What is caught of the same load",
		columns: []string{"Who watches", "cycles a second", "listed", "in bursts", "in gaps", "unaccounted", "with pid", "CPU an event",
			"held 50 ms: opened", "closed", "with pid"},
		notes: []string{fmt.Sprintf("%s times bind, listen and close of one TCP port in one container, without pause: %s openings and closings; then %d ports, "+
			"one each 10 ms, held 50 ms; one way after another. \"Listed\" are reported one by one, \"in bursts\" counted, \"in gaps\" admitted to be lost; "+
			"\"unaccounted\" is the rest. \"With pid\" are listed openings that name the process. \"CPU an event\" is the CPU clock of the watching process, for each opening and closing that happened. "+
			"The other tools watch the whole host, but for ss, and name no containers: of their losses as many count as are missing. ss reports closings alone. "+
			"All write into a pipe that is read at once.", showCount(count), showCount(2*count), heldCount)},
	}
	for _, c := range all {
		t.rows = append(t.rows, c.cells(count))
	}
	return t
}

func (c *captured) cells(count int) []string {
	row := make([]string, 11)
	row[0] = c.way
	if c.missing != "" {
		row[1] = "missing"
		return row
	}
	row[1] = showCount(int64(c.perSecond))
	if c.way == wayNothing {
		return row
	}
	copy(row[2:], []string{showCount(c.storm.opened + c.storm.closed), showCount(c.storm.bursts), c.showLosses(), showCount(c.unaccounted(count)),
		showShare(c.storm.named, max(c.storm.opened, 1)), showPrecise(c.perEvent(count)),
		showShare(c.held.opened, heldCount), showShare(c.held.closed, heldCount), showShare(c.held.named, heldCount)})
	return row
}

// unaccounted is what of the storm is in no account; negative where more is than
// happened.
func (c *captured) unaccounted(count int) int {
	return 2*count - c.storm.opened - c.storm.closed - c.storm.bursts - c.losses
}

// accounted reports whether all of the storm is; a gap without a number may stand for the rest.
func (c *captured) accounted(count int) bool {
	missing := c.unaccounted(count)
	return missing == 0 || missing > 0 && c.unnumbered > 0 && c.source == sourceNetlink
}

func (c *captured) showLosses() string {
	switch {
	case c.ended != nil:
		return "it ended"
	case c.unnumbered > 0:
		return fmt.Sprintf("%s, and %d gaps without a number", showCount(c.losses), c.unnumbered)
	}
	return showCount(c.losses)
}

// perEvent is the CPU time of one opening or closing, in seconds.
func (c *captured) perEvent(count int) float64 { return c.cpu.Seconds() / float64(2*count) }

// captureAims are those of portwatcher alone. More than all is no success either: something
// is reported that did not happen.
func captureAims(all []captured, count int) table {
	var other float64 // bpftrace's CPU an event
	for _, c := range all {
		if c.way == wayBpftrace && c.missing == "" && c.ended == nil {
			other = c.perEvent(count)
		}
	}
	var aims []aim
	for _, c := range all {
		if c.source == "" || c.missing != "" {
			continue
		}
		held := reported{opened: heldCount, closed: heldCount, named: heldCount}
		if c.source == sourceNetlink {
			held.named = c.held.named
		}
		cost := value(c.source+": CPU an event", showPrecise(c.perEvent(count)))
		if other > 0 {
			cost.aim, cost.met = "at most bpftrace's "+showPrecise(other), c.perEvent(count) <= other
		}
		aims = append(aims,
			aim{c.source + ": unaccounted of the " + showCount(2*count) + " openings and closings", showCount(c.unaccounted(count)),
				wantedSum(c.source), c.accounted(count)},
			cost,
			aim{c.source + ": of the ports held 50 ms", fmt.Sprintf("%d and %d", c.held.opened, c.held.closed), "all", c.held == held},
			value(c.source+": resident memory before", showMegabytes(c.memory.idle)),
			value(c.source+": highest meanwhile", showMegabytes(c.memory.highest)),
			aim{c.source + ": afterwards", showMegabytes(c.memory.after), "under " + showMegabytes(int64(aimRelease*float64(c.memory.idle))),
				c.memory.released()},
			value(c.source+": time until then", showTime(c.memory.back)))
	}
	return aimTable("Aims of the capture", []string{
		fmt.Sprintf("Memory is VmRSS: before is %v after the complete list, with one port open; afterwards begins when all is reported, "+
			"and is read until it is under the aim, at most %v.", memorySettle, memoryPatience)}, aims)
}

// The ports of the load lie below those that the kernel chooses for clients,
// and apart from those of other themes.
const (
	canaryPort = 29300
	heldPort   = 29400 // and those after it
	heldCount  = 20
)

// An observation is what one line of a way reports of one port.
type observation struct {
	opened, closed int
	burst          bool // they were counted, not listed
	named          bool // with a process id
	port           int
	losses         int // as many as it admits
	gap            bool
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
	unnumbered  int       // gaps without a number
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

// await waits until done returns true, or until no line has come for quietTime.
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

// observe reads an event of portwatcher.
func observe(e *truth.Event) (o observation) {
	o.port, o.named = int(e.Port), len(e.Processes) > 0
	switch e.Type {
	case model.Gap:
		if o.gap = !e.OfOtherConsumer(); o.gap {
			o.losses = int(e.Lost)
		}
	case model.Bursts:
		o.burst, o.opened, o.closed = true, int(e.Burst.Opened), int(e.Burst.Closed)
	default:
		o.opened, o.closed = one(e.Type == model.Opened), one(e.Type == model.Closed)
	}
	return o
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}
