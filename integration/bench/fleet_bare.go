package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	vishvananda "github.com/vishvananda/netns"

	"portwatcher/internal/netns"
)

const (
	// bareInterval is portwatcher's default scan interval.
	bareInterval = 500 * time.Millisecond
	bareTime     = 20 * time.Second
)

// bareShare returns the share of one core that the scans alone need: those of
// all the containers' namespaces by bare system calls, one after another, at
// the default interval, without a look at what they find.
func bareShare(ctx context.Context, f *fleet) (_ float64, err error) {
	pids, err := f.processes(ctx)
	if err != nil {
		return 0, err
	}
	var scanners []*bareScanner
	defer func() {
		for _, s := range scanners {
			err = errors.Join(err, s.close())
		}
	}()
	for _, pid := range pids {
		s, err := openBareIn(pid)
		if err != nil {
			return 0, err
		}
		scanners = append(scanners, s)
	}
	before, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	for next := begin.Add(bareInterval); time.Since(begin) < bareTime; next = next.Add(bareInterval) {
		for _, s := range scanners {
			if _, err := s.scan(); err != nil {
				return 0, err
			}
		}
		if err := wait(ctx, time.Until(next)); err != nil {
			return 0, err
		}
	}
	after, err := cpuTime(os.Getpid())
	return float64(after-before) / float64(time.Since(begin)), err
}

// openBareIn is [openBare] in the network namespace of a process.
func openBareIn(pid int) (_ *bareScanner, err error) {
	target, err := netns.Open("/proc", pid)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	runtime.LockOSThread()
	own, err := vishvananda.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open the own network namespace: %w", err)
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	if err := vishvananda.Set(vishvananda.NsHandle(target.FD())); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter the network namespace of process %d: %w", pid, err)
	}
	scanner, err := openBare()
	if err := vishvananda.Set(own); err != nil {
		// The thread stays locked, and ends with its goroutine.
		return nil, fmt.Errorf("return to the own network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return scanner, err
}
