package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"

	"golang.org/x/sys/unix"
)

// killGrace is how long a process has after SIGTERM before SIGKILL.
const killGrace = 2 * time.Second

func runKillPort(ctx context.Context, args []string, facts *recorder) error {
	set := newFlags("kill-port")
	protocol := set.protocol()
	port := set.port("port", 0, 1, "port whose processes to end")
	force := set.Bool("force", false, "end process 1 too, if it alone holds the port: that ends the container")
	if err := set.parse(args); err != nil {
		return err
	}
	pids, err := holders("/proc", *protocol, uint16(*port))
	if err != nil {
		return err
	}
	pids, refused, err := victims(pids, *protocol, *port, *force)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		f := truth.Fact{Action: truth.Terminated, Time: time.Now(), Protocol: *protocol, Port: uint16(*port), PID: pid}
		killed, err := end(ctx, pid, killGrace)
		if err != nil {
			return err
		}
		if killed {
			f.Action = truth.Killed
		}
		f.After = time.Now()
		if err := facts.record(f); err != nil {
			return err
		}
	}
	if refused {
		return fmt.Errorf("process 1 holds %s port %d too and was left alone, so the port stays open; run again with --force to end it, and the container", *protocol, *port)
	}
	return nil
}

// victims removes process 1 from the holders, as ending it ends the container, and reports
// whether it did. Forced, process 1 goes where it is the only holder.
func victims(holders []int, protocol model.Protocol, port int, force bool) (pids []int, refused bool, err error) {
	if len(holders) == 0 {
		return nil, false, fmt.Errorf("no process that can be seen here holds %s port %d", protocol, port)
	}
	if slices.Equal(holders, []int{1}) {
		if !force {
			return nil, false, fmt.Errorf("only process 1 holds %s port %d; ending it ends the container: give --force if that is meant", protocol, port)
		}
		return holders, false, nil
	}
	pids = slices.DeleteFunc(slices.Clone(holders), func(pid int) bool { return pid == 1 })
	return pids, len(pids) < len(holders), nil
}

// end sends SIGTERM, waits for at most grace, sends SIGKILL, and returns once
// the process is gone, with whether SIGKILL was needed. A pidfd keeps a reused
// process id from being hit.
func end(ctx context.Context, pid int, grace time.Duration) (killed bool, err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for _, step := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, grace}, {unix.SIGKILL, 5 * time.Second}} {
		if err := unix.PidfdSendSignal(fd, step.signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return false, fmt.Errorf("send %v to process %d: %w", step.signal, pid, err)
		}
		gone, err := waitGone(ctx, fd, step.wait)
		if err != nil {
			return false, fmt.Errorf("wait for process %d to end: %w", pid, err)
		}
		if gone {
			return step.signal == unix.SIGKILL, nil
		}
	}
	return false, fmt.Errorf("process %d has not ended 5 s after SIGKILL", pid)
}

// waitGone waits until the pidfd shows that the process ended.
func waitGone(ctx context.Context, pidfd int, limit time.Duration) (bool, error) {
	deadline := time.Now().Add(limit)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		left := min(time.Until(deadline), 100*time.Millisecond) // ctx is checked in between
		if left <= 0 {
			return false, nil
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		if ready > 0 {
			return true, nil
		}
	}
}
