// Command connections is a server and its client on loopback: many short TCP
// connections at a steady rate, each thread's CPU time told as it goes.
//
// It runs inside a container of the accept benchmark. Every so often it writes one
// JSON line to standard output: the time, and the connections made and the CPU
// nanoseconds of the server's thread and of the client's so far.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// step is the time from one batch of connections to the next.
const step = time.Millisecond

// options are the flags.
type options struct {
	rate   int
	reset  bool
	length time.Duration
	report time.Duration // from one line to the next
	cpu    int           // of both threads; -1 is any
}

type sample struct {
	Time        time.Time `json:"time"`
	Connections int64     `json:"connections"`
	Server      int64     `json:"server"` // CPU nanoseconds
	Client      int64     `json:"client"`
}

func main() {
	var o options
	flag.IntVar(&o.rate, "rate", 10_000, "connections a second, at most (1000 to 50,000)")
	flag.BoolVar(&o.reset, "reset", false, "clients close with a reset (RST)")
	flag.DurationVar(&o.length, "for", time.Minute, "how long (1s to 1h)")
	flag.DurationVar(&o.report, "report", 50*time.Millisecond, "time between two lines (1ms to 1s)")
	flag.IntVar(&o.cpu, "cpu", -1, "CPU on which both threads run; -1 is any")
	flag.Parse()
	if o.rate < 1000 || o.rate > 50_000 || o.length < time.Second || o.length > time.Hour || o.report < time.Millisecond ||
		o.report > time.Second || o.cpu < -1 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "connections: want --rate 1000 to 50000, --for 1s to 1h, --report 1ms to 1s, --cpu -1 or more, and nothing else")
		os.Exit(2)
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "connections:", err)
		os.Exit(1)
	}
}

// run returns at the first error, or when the time is over: with the process
// its threads end.
func run(o options) error {
	listener, to, err := listen()
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	var made atomic.Int64
	server := thread(o.cpu, func() error { return serve(listener, &made) }, failed)
	client := thread(o.cpu, func() error { return dial(to, o.rate, o.reset) }, failed)
	serverClock, clientClock := <-server, <-client
	end := time.NewTimer(o.length)
	lines := time.NewTicker(o.report)
	encoder := json.NewEncoder(os.Stdout)
	for {
		select {
		case err := <-failed:
			return err
		case <-end.C:
			return nil
		case <-lines.C:
			s := sample{Time: time.Now(), Connections: made.Load()}
			if s.Server, err = cpuTime(serverClock); err == nil {
				s.Client, err = cpuTime(clientClock)
			}
			if err := errors.Join(err, encoder.Encode(s)); err != nil {
				return err
			}
		}
	}
}

// thread runs work on a thread of its own, on one CPU unless that is -1, and
// sends the thread's id first.
func thread(cpu int, work func() error, failed chan<- error) <-chan int {
	id := make(chan int, 1)
	go func() {
		runtime.LockOSThread()
		id <- unix.Gettid()
		if err := pin(cpu); err != nil {
			failed <- err
			return
		}
		failed <- work()
	}()
	return id
}

func pin(cpu int) error {
	if cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run on CPU %d: %w", cpu, err)
	}
	return nil
}

// cpuTime reads the CPU clock of a thread, whose number is made as
// pthread_getcpuclockid(3) does.
func cpuTime(thread int) (int64, error) {
	const perThread, scheduled = 4, 2 // linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^thread)<<3|perThread|scheduled, &t); err != nil {
		return 0, fmt.Errorf("CPU time of thread %d: %w", thread, err)
	}
	return t.Nano(), nil
}

func listen() (fd int, to *unix.SockaddrInet4, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, nil, fmt.Errorf("open the server's socket: %w", err)
	}
	// Those in TIME_WAIT of a run before hold the port, too.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, nil, fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	to = &unix.SockaddrInet4{Port: 22000, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(fd, to); err != nil {
		return -1, nil, fmt.Errorf("bind 127.0.0.1:%d: %w", to.Port, err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return -1, nil, fmt.Errorf("listen on 127.0.0.1:%d: %w", to.Port, err)
	}
	return fd, to, nil
}

// serve accepts and closes.
func serve(listener int, made *atomic.Int64) error {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close an accepted connection: %w", err)
		}
		made.Add(1)
	}
}

// dial connects in small batches, reads the server's close and closes. As the
// server closes first, TIME_WAIT stays on its side, where a new connection from
// the same port takes its place: no port is used up. A machine that cannot keep
// up makes fewer connections.
func dial(to unix.Sockaddr, rate int, reset bool) error {
	batch := max(1, rate*int(step)/int(time.Second))
	fds := make([]int, 0, batch)
	buffer := make([]byte, 1)
	for next := time.Now(); ; {
		for range batch {
			fd, err := connect(to, reset)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
		}
		for _, fd := range fds {
			if _, err := unix.Read(fd, buffer); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("read the server's close: %w", err)
			}
			if err := unix.Close(fd); err != nil {
				return fmt.Errorf("close a connection: %w", err)
			}
		}
		fds = fds[:0]
		next = next.Add(step)
		if pause := time.Until(next); pause > 0 {
			sleep := unix.NsecToTimespec(int64(pause))
			// An early end of the sleep changes nothing: next rules.
			_ = unix.Nanosleep(&sleep, nil)
		} else if -pause > 100*step {
			next = time.Now()
		}
	}
}

func connect(to unix.Sockaddr, reset bool) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a client's socket: %w", err)
	}
	if reset {
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return -1, fmt.Errorf("set SO_LINGER: %w", err)
		}
	}
	if err := unix.Connect(fd, to); err != nil {
		return -1, fmt.Errorf("connect to the server: %w", err)
	}
	return fd, nil
}
