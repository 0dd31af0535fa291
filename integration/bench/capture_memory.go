package main

import (
	"context"
	"fmt"
	"time"
)

func residentMemory(pid int) (int64, error) {
	kilobytes, err := procField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	return kilobytes * 1024, err
}

// follow notes the idle figure after a moment, and then the highest one until
// the returned function is called.
func (m *memoryUse) follow(ctx context.Context, pid int) (end func() error, err error) {
	if err := wait(ctx, memorySettle); err != nil {
		return nil, err
	}
	if m.idle, err = residentMemory(pid); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		for {
			now, err := residentMemory(pid)
			if m.highest = max(m.highest, now); err != nil || wait(ctx, memoryInterval) != nil {
				failed <- err
				return
			}
		}
	}()
	return func() error { cancel(); return <-failed }, nil
}

// awaitRelease waits until the memory is back under the aim, or patience ends.
func (m *memoryUse) awaitRelease(ctx context.Context, pid int) (err error) {
	begin := time.Now()
	for {
		if m.after, err = residentMemory(pid); err != nil {
			return err
		}
		if m.back = time.Since(begin); m.released() || m.back > memoryPatience {
			return nil
		}
		if err := wait(ctx, memoryInterval); err != nil {
			return err
		}
	}
}

func (m *memoryUse) released() bool { return float64(m.after) < aimRelease*float64(m.idle) }
