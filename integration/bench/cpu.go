package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the CPU time that a process has used so far, with all its
// threads, those that ended too, to the nanosecond. The clock's number is made
// as clock_getcpuclockid(3) does.
func cpuTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED, linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// cpuShare returns the share of one core that a process uses for time d.
func cpuShare(ctx context.Context, pid int, d time.Duration) (float64, error) {
	shares, err := cpuShares(ctx, d, pid)
	if err != nil {
		return 0, err
	}
	return shares[0], nil
}

// cpuShares is [cpuShare] for several processes at the same time.
func cpuShares(ctx context.Context, d time.Duration, pids ...int) ([]float64, error) {
	before := make([]time.Duration, len(pids))
	var err error
	begin := time.Now()
	for i, pid := range pids {
		if before[i], err = cpuTime(pid); err != nil {
			return nil, err
		}
	}
	if err := wait(ctx, d); err != nil {
		return nil, err
	}
	elapsed := time.Since(begin)
	shares := make([]float64, len(pids))
	for i, pid := range pids {
		after, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		shares[i] = float64(after-before[i]) / float64(elapsed)
	}
	return shares, nil
}

// engineProcess returns the pid of the default engine.
func engineProcess() (int, error) {
	const file = "/var/run/docker.pid"
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		return 0, fmt.Errorf("DOCKER_HOST is %s; only the process of the default engine is known, by %s", host, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("the engine's process is not known: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// wait waits for d, unless ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// until waits until the condition holds, or says what it said last.
func until(ctx context.Context, patience time.Duration, condition func() error) error {
	return untilEach(ctx, 10*time.Millisecond, patience, condition)
}

// slowly is the time between two looks at what takes long.
const slowly = 300 * time.Millisecond

// untilEach is [until] with the time between two looks at the condition.
func untilEach(ctx context.Context, between, patience time.Duration, condition func() error) error {
	for deadline := time.Now().Add(patience); ; {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v: %w", patience, err)
		}
		if err := wait(ctx, between); err != nil {
			return err
		}
	}
}
