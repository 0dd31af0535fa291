package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"portwatcher/internal/model"

	"golang.org/x/sys/unix"
)

// The demo's ports. The HTTP server is a process of its own, so that it can be
// killed like any other and comes back.
const (
	demoHTTPPort    = "8080"
	demoUDPPort     = 5353
	demoTCPPort     = 9000
	demoRestartWait = 3 * time.Second
)

func runPause(ctx context.Context, args []string, _ *recorder) error {
	if err := newFlags("pause").parse(args); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func runControl(ctx context.Context, args []string, facts *recorder) error {
	set := newFlags("control")
	demo := set.Bool("demo", false, "serve HTTP on 8080, and open UDP 5353 and TCP 9000 now and then")
	if err := set.parse(args); err != nil {
		return err
	}
	// Before the first child, so that no death is missed.
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, unix.SIGCHLD)
	defer signal.Stop(deaths)
	if !*demo {
		return supervise(ctx, deaths, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	failures := make(chan error, len(demoSchedule))
	for _, s := range demoSchedule {
		wait.Go(func() {
			if err := s.run(ctx, facts); err != nil {
				failures <- err
				cancel()
			}
		})
	}
	self, err := os.Executable()
	if err == nil {
		err = supervise(ctx, deaths, []string{self, "http", "--port", demoHTTPPort})
	}
	cancel()
	wait.Wait()
	close(failures)
	for failure := range failures {
		err = errors.Join(err, failure)
	}
	return err
}

// supervise reaps every child that ends, those adopted from docker exec
// included, until ctx ends. It starts the service, if there is one, starts it
// again demoRestartWait after each end, and ends it at the end.
func supervise(ctx context.Context, deaths <-chan os.Signal, service []string) error {
	var pid int // of the service, 0 while it does not run
	restart := time.NewTimer(0)
	defer restart.Stop()
	if service == nil {
		restart.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return stopService(pid)
		case <-restart.C:
			started, err := syscall.ForkExec(service[0], service, &syscall.ProcAttr{
				Env: os.Environ(), Files: []uintptr{0, 1, 2},
			})
			if err != nil {
				return fmt.Errorf("start %v: %w", service, err)
			}
			pid = started
		case <-deaths:
			for _, dead := range reap() {
				if dead == pid {
					pid = 0
					restart.Reset(demoRestartWait)
				}
			}
		}
	}
}

// reap collects every child that has ended and returns their process ids.
func reap() []int {
	var dead []int
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid == 0 { // ECHILD: there is none
			return dead
		}
		dead = append(dead, pid)
	}
}

func stopService(pid int) error {
	if pid == 0 {
		return nil
	}
	if _, err := end(context.Background(), pid, killGrace); err != nil {
		return fmt.Errorf("stop the demo's HTTP server: %w", err)
	}
	reap()
	return nil
}

// A schedule is a port that opens again and again.
type schedule struct {
	protocol             model.Protocol
	port                 uint16
	first, open, between time.Duration
}

var demoSchedule = []schedule{
	{model.UDP, demoUDPPort, 3 * time.Second, 6 * time.Second, 14 * time.Second},
	{model.TCP, demoTCPPort, 5 * time.Second, 1500 * time.Millisecond, 8500 * time.Millisecond},
}

func (s schedule) run(ctx context.Context, facts *recorder) error {
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), s.port)
	for wait := s.first; pause(ctx, wait); wait = s.between {
		opened, err := openAndRecord(at, options{protocol: s.protocol}, facts)
		if errors.Is(err, unix.EADDRINUSE) {
			continue // someone tries the port by hand: leave it to them
		}
		if opened == nil {
			return err
		}
		if err == nil {
			pause(ctx, s.open)
		}
		if err = errors.Join(err, opened.closeAndRecord(facts)); err != nil {
			return err
		}
	}
	return nil
}
