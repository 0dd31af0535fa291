package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A peer is another tool, which is ended by SIGINT.
type peer struct {
	program, debianPackage string
	arguments              []string
	command                func(container int, program []string) []string
	parse                  func(line []byte) observation
}

// withTracefs gives a program the trace file system, where it is not mounted in
// a mount namespace of its own.
func withTracefs(_ int, program []string) []string {
	return append([]string{"unshare", "--mount", "sh", "-c",
		`[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"`, "sh"}, program...)
}

// inNamespace runs a program in the network namespace of a process.
func inNamespace(container int, program []string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", container)}, program...)
}

func startPeer(p peer) func(context.Context, *stage, *tally) (capturing, error) {
	return func(ctx context.Context, st *stage, t *tally) (capturing, error) {
		path, err := command(p.program, p.debianPackage)
		if err != nil {
			return capturing{}, err
		}
		pids, err := st.processes(ctx)
		if err != nil {
			return capturing{}, err
		}
		tool, err := startTool(p.command(pids[0], append([]string{path}, p.arguments...)), p.parse, t)
		if err != nil {
			return capturing{}, err
		}
		if err := tool.awaitCanary(ctx, st, t); err != nil {
			return capturing{}, errors.Join(err, tool.stop())
		}
		return capturing{tool.process.Process.Pid, tool.stop, tool.endedEarly}, nil
	}
}

// A tool is a running program of which each line is parsed into a tally.
type tool struct {
	process *exec.Cmd
	readers sync.WaitGroup
	gone    chan struct{} // closed once its output has ended
	mutex   sync.Mutex
	notes   []string // the last lines that are of no socket
	readErr error
}

func startTool(arguments []string, parse func([]byte) observation, t *tally) (*tool, error) {
	x := &tool{process: exec.Command(arguments[0], arguments[1:]...), gone: make(chan struct{})}
	// The terminal does not interrupt it.
	x.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	output, err := x.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	complaints, err := x.process.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := x.process.Start(); err != nil {
		return nil, err
	}
	for _, stream := range []io.Reader{output, complaints} {
		x.readers.Go(func() { x.read(stream, parse, t) })
	}
	go func() { x.readers.Wait(); close(x.gone) }()
	return x, nil
}

func (x *tool) read(stream io.Reader, parse func([]byte) observation, t *tally) {
	const keep = 5 // lines
	lines := bufio.NewScanner(stream)
	for lines.Scan() {
		o := parse(lines.Bytes())
		t.add(o)
		if o.port == 0 {
			x.mutex.Lock()
			x.notes = append(x.notes[max(0, len(x.notes)-keep+1):], lines.Text())
			x.mutex.Unlock()
		}
	}
	if err := lines.Err(); err != nil {
		x.mutex.Lock()
		x.readErr = errors.Join(x.readErr, err)
		x.mutex.Unlock()
	}
}

// awaitCanary makes sockets until the tool reports one. They are many, as some
// tools write only when their buffer is full.
func (x *tool) awaitCanary(ctx context.Context, st *stage, t *tally) error {
	for deadline := time.Now().Add(canaryPatience); !t.sawCanary(); {
		if err := x.endedEarly(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v it has reported nothing: %s", canaryPatience, x.lastLines())
		}
		if _, err := storm(ctx, st, canaryPort, canaryCount); err != nil {
			return err
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return t.await(ctx, func() bool { return false })
}

// endedEarly returns an error if the tool has ended by itself.
func (x *tool) endedEarly() error {
	select {
	case <-x.gone:
		return fmt.Errorf("it ended by itself: %s", x.lastLines())
	default:
		return nil
	}
}

func (x *tool) lastLines() string {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	return strings.Join(x.notes, "; ")
}

// stop ends the tool by SIGINT, at which it writes what it has buffered, and returns when all
// of that was read. Its exit status means nothing: tools differ.
func (x *tool) stop() error {
	kill := time.AfterFunc(stopPatience, func() { _ = x.process.Process.Kill() })
	defer kill.Stop()
	// It may have ended already: then there is nothing to signal.
	_ = x.process.Process.Signal(syscall.SIGINT)
	<-x.gone
	err := x.process.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	x.mutex.Lock()
	defer x.mutex.Unlock()
	return errors.Join(err, x.readErr)
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
	o.named, o.port = atoi(fields[1]) > 0, atoi(fields[4])
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
	o.opened = one(atoi(fields[2]) == stateListen)
	o.closed = one(atoi(fields[1]) == stateListen && atoi(fields[2]) == stateClose)
	o.port, o.named = atoi(fields[3]), atoi(fields[4]) > 0
	return o
}

// parseSS reads a line of ss -E: state, two queues, local address:port, remote.
// It shows what was destroyed, and no process.
func parseSS(line []byte) (o observation) {
	fields := bytes.Fields(line)
	if len(fields) < 5 {
		return o
	}
	o.closed = 1
	o.port = atoi(fields[3][bytes.LastIndexByte(fields[3], ':')+1:])
	return o
}

var lostEvents = regexp.MustCompile(`(?i)\blost (\d+) events`)

func parseLost(line []byte) (o observation) {
	if match := lostEvents.FindSubmatch(line); match != nil {
		o.losses = atoi(match[1])
	}
	return o
}

// atoi returns 0 for what is no number.
func atoi(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0
	}
	return n
}
