package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// connectionStep is the time from one batch of connections to the next.
const connectionStep = time.Millisecond

// connectionOptions are the flags of `workload connections`.
type connectionOptions struct {
	rate   int
	reset  bool
	length time.Duration
	report time.Duration // from one line to the next
	cpu    int           // of both threads; -1 is any
}

// A connectionSample is what was done until a moment.
type connectionSample struct {
	Time        time.Time `json:"time"`
	Connections int64     `json:"connections"`
	Server      int64     `json:"server"` // CPU nanoseconds
	Client      int64     `json:"client"`
}

// runConnections is a server and its client on loopback: many short TCP connections at a
// steady rate, for the accept benchmark. It writes samples instead of facts.
func runConnections(ctx context.Context, args []string, facts *recorder) error {
	var o connectionOptions
	set := newFlags("connections")
	rate := set.number("rate", 10_000, 1000, 50_000, "connections a second, at most")
	set.BoolVar(&o.reset, "reset", false, "clients close with a reset (RST)")
	length := set.span("for", time.Minute, "how long")
	report := set.number("report-ms", 50, 1, 1000, "milliseconds between two lines")
	cpu := set.number("cpu", -1, -1, 1<<10, "CPU on which both threads run; -1 is any")
	if err := set.parse(args); err != nil {
		return err
	}
	o.rate, o.length, o.report, o.cpu = *rate, *length, time.Duration(*report)*time.Millisecond, *cpu
	return o.run(ctx, json.NewEncoder(facts.out))
}

// run returns at the first error, or when the time is over: its threads end with the
// process.
func (o connectionOptions) run(ctx context.Context, samples *json.Encoder) error {
	listener, to, err := listenForConnections()
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	var made atomic.Int64
	server := onThread(o.cpu, func() error { return acceptAll(listener, &made) }, failed)
	client := onThread(o.cpu, func() error { return dialAll(to, o.rate, o.reset) }, failed)
	serverClock, clientClock := <-server, <-client
	end := time.NewTimer(o.length)
	lines := time.NewTicker(o.report)
	for {
		select {
		case err := <-failed:
			return err
		case <-end.C:
			return nil
		case <-ctx.Done():
			return nil
		case <-lines.C:
			s := connectionSample{Time: time.Now(), Connections: made.Load()}
			if s.Server, err = threadTime(serverClock); err == nil {
				s.Client, err = threadTime(clientClock)
			}
			if err := errors.Join(err, samples.Encode(s)); err != nil {
				return err
			}
		}
	}
}

// onThread runs work on a thread of its own, on one CPU unless that is -1, and
// sends the thread's id first.
func onThread(cpu int, work func() error, failed chan<- error) <-chan int {
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

// threadTime reads the CPU clock of a thread, whose number is made as
// pthread_getcpuclockid(3) does.
func threadTime(thread int) (int64, error) {
	const perThread, scheduled = 4, 2 // linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^thread)<<3|perThread|scheduled, &t); err != nil {
		return 0, fmt.Errorf("CPU time of thread %d: %w", thread, err)
	}
	return t.Nano(), nil
}

func listenForConnections() (fd int, to *unix.SockaddrInet4, err error) {
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

// acceptAll accepts and closes.
func acceptAll(listener int, made *atomic.Int64) error {
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

// dialAll connects in small batches, reads the server's close and closes. As the
// server closes first, TIME_WAIT stays on its side, where a new connection from
// the same port takes its place: no port is used up. A machine that cannot keep
// up makes fewer connections.
func dialAll(to unix.Sockaddr, rate int, reset bool) error {
	batch := max(1, rate*int(connectionStep)/int(time.Second))
	fds := make([]int, 0, batch)
	buffer := make([]byte, 1)
	for next := time.Now(); ; {
		for range batch {
			fd, err := connectTo(to, reset)
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
		next = next.Add(connectionStep)
		if pause := time.Until(next); pause > 0 {
			sleep := unix.NsecToTimespec(int64(pause))
			// After an early end only this batch comes early.
			_ = unix.Nanosleep(&sleep, nil)
		} else if -pause > 100*connectionStep {
			next = time.Now()
		}
	}
}

func connectTo(to unix.Sockaddr, reset bool) (int, error) {
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
