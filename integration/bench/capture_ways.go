package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// canaryPatience bounds the wait until a tool reports its first socket.
	canaryPatience = 30 * time.Second
	// canaryCount sockets fill the buffer of a tool's standard output.
	canaryCount = 500
)

// A captureWay is one way to be told of ports. Its start returns when it sees
// what happens, and adds to the tally all that it reports from then on.
type captureWay struct {
	name   string
	source string // of portwatcher; empty for the others
	start  func(context.Context, *stage, *tally) (capturing, error)
}

// capturing is a way at work. stop returns when all that it reported is in the
// tally; ended tells why it ended before, and may be nil.
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
		w.observe(func(line []byte, _ time.Time) { t.add(parsePortwatcher(line)) })
		return capturing{pid: w.process.Process.Pid, stop: func() error { _, err := w.stop(); return err }}, nil
	}
}

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
		path, err := command(ctx, p.program, p.debianPackage)
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
	said    []string // the last lines that told of no socket
	readErr error
}

func startTool(arguments []string, parse func([]byte) observation, t *tally) (*tool, error) {
	x := &tool{process: exec.Command(arguments[0], arguments[1:]...), gone: make(chan struct{})}
	// The bench, not the terminal, tells it to stop.
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
			x.said = append(x.said[max(0, len(x.said)-keep+1):], lines.Text())
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
			return fmt.Errorf("after %v it has reported nothing: %s", canaryPatience, x.words())
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
		return fmt.Errorf("it ended by itself: %s", x.words())
	default:
		return nil
	}
}

func (x *tool) words() string {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	return strings.Join(x.said, "; ")
}

// stop ends the tool by SIGINT, at which it writes what it has kept back, and
// returns when all of that was read. How it ends says nothing: tools differ.
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
