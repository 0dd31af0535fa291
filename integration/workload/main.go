// Command workload opens and closes ports on purpose inside containers, and writes exactly
// when.
//
// The demo containers run it, and make targets, the integration tests and the benchmarks
// start it in containers, with docker exec, to compare portwatcher's reports with its facts.
// It is one static binary, so that an image needs nothing else.
//
// Each fact is one JSON object a line on standard output (see [truth.Fact]); errors
// are one line on standard error. Exit status 2 is a wrong argument, 1 a
// failure at run time, 0 an end that was asked for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
)

// A command parses its own arguments and runs until it is done or ctx ends.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args []string, facts *recorder) error
}

var commands = []command{
	{"listen", "open ports and hold them", runListen},
	{"burst", "open many ports one after another, each for a moment", runBurst},
	{"storm", "open and close one port without pause", runStorm},
	{"transient", "open one port for a moment", runTransient},
	{"http", "serve HTTP: 200 for any path", runHTTP},
	{"udp-client", "send datagrams from unbound sockets, as DNS clients do", runUDPClient},
	{"connect-refused", "connect to a port where nothing listens", runConnectRefused},
	{"accept-loop", "a server and its clients on loopback, at a bounded rate", runAcceptLoop},
	{"connections", "the same with a thread each for server and client, and the CPU time of both", runConnections},
	{"kill-port", "end the processes that hold a port", runKillPort},
	{"control", "first process of a container: reaps children; --demo opens ports on a schedule", runControl},
	{"own-namespace", "run another command in a network namespace of its own", runOwnNamespace},
	{"hold-namespace", "wait until SIGTERM, to keep a namespace for others", runPause},
	{"pause", "the same as hold-namespace", runPause},
	{holdCommand, "internal: hold inherited sockets for a parent", runHold},
}

// exitMainThread is the flag with which the main thread exits at the start, while others
// do the work.
const exitMainThread = "exit-main-thread"

func exitsMainThread() bool { return slices.Contains(os.Args, "--"+exitMainThread) }

func init() {
	if exitsMainThread() {
		runtime.LockOSThread() // main runs on the main thread
	}
}

func main() {
	work := func() {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		status := dispatch(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(status)
	}
	if exitsMainThread() {
		go work()
		_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0) // of this thread; it does not return
	}
	work()
}

// dispatch runs the command that args name and returns the exit status.
func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return 2
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stdout)
		return 0
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, args[1:], newRecorder(stdout))
		var wrong *usageError
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return 0
		case errors.As(err, &wrong):
			fmt.Fprintf(stderr, "workload %s: %v\n", c.name, err)
			return 2
		default:
			fmt.Fprintf(stderr, "workload %s: %v\n", c.name, err)
			return 1
		}
	}
	fmt.Fprintf(stderr, "workload: unknown command %q; `workload help` lists them\n", args[0])
	return 2
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: workload COMMAND [FLAG...]; `workload COMMAND --help` lists its flags")
	for _, c := range commands {
		if c.name != holdCommand {
			fmt.Fprintf(w, "  %-16s %s\n", c.name, c.summary)
		}
	}
}
