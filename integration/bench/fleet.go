package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The aims with 100 containers of 10 ports each, at the default scan interval.
const (
	aimCPU      = 0.02 // of one core
	aimMemory   = 40_000_000
	aimComplete = 500 * time.Millisecond
	aimStop     = time.Second
)

const (
	// completePatience bounds the wait for the complete list.
	completePatience = time.Minute
	// fleetSettle passes between the complete list and the steady state.
	fleetSettle = 5 * time.Second
	// fleetIdle is how long the engine is measured without portwatcher.
	fleetIdle = 30 * time.Second
)

// runFleet measures portwatcher as a process of the host that watches many
// containers of a real engine.
func runFleet(ctx context.Context, s *settings, r *report) (err error) {
	if reason := noEngine(ctx); reason != "" {
		r.missing("fleet", reason)
		return nil
	}
	folder, err := os.MkdirTemp("", "portwatcher-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	binary, workload, err := buildBinaries(ctx, s.fleetPortwatcher, folder)
	if err != nil {
		return err
	}
	fleet := newFleet(s)
	defer func() { err = errors.Join(err, fleet.remove()) }()
	if err := fleet.start(ctx, workload); err != nil {
		return err
	}
	return measureFleet(ctx, s, r, fleet, binary)
}

// buildBinaries builds what is measured and what runs in the containers, with
// the versions of their own module, not of this one.
func buildBinaries(ctx context.Context, given, folder string) (binary, workload string, err error) {
	output, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "portwatcher").Output()
	if err != nil {
		return "", "", fmt.Errorf("find portwatcher's module (run this in integration/bench): %w", err)
	}
	root := strings.TrimSpace(string(output))
	build := func(target string) (string, error) {
		progress("fleet: go build %s", target)
		path := filepath.Join(folder, filepath.Base(target))
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, target)
		command.Dir, command.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if output, err := command.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build %s: %w: %s", target, err, output)
		}
		return path, nil
	}
	if binary = given; given == "" {
		if binary, err = build("./cmd/portwatcher"); err != nil {
			return "", "", err
		}
	}
	workload, err = build("./integration/workload")
	return binary, workload, err
}

func measureFleet(ctx context.Context, s *settings, r *report, f *fleet, binary string) (err error) {
	engine, engineMissing := engineProcess()
	if engineMissing != nil {
		r.missing("fleet, CPU of the engine", engineMissing.Error())
	}
	var idle float64
	if engineMissing == nil {
		progress("fleet: the engine without portwatcher, %v", fleetIdle)
		if idle, err = cpuShare(ctx, engine, fleetIdle); err != nil {
			return err
		}
	}
	var complete, stops []time.Duration
	for i := range s.fleetStarts - 1 {
		progress("fleet: start %d of %d", i+1, s.fleetStarts)
		w, err := startWatcher(ctx, binary, f)
		if err != nil {
			return err
		}
		stopped, err := w.stop()
		if err != nil {
			return err
		}
		complete, stops = append(complete, w.complete), append(stops, stopped)
	}
	progress("fleet: start %d of %d, then the steady state, %v", s.fleetStarts, s.fleetStarts, s.fleetSteady)
	w, err := startWatcher(ctx, binary, f)
	if err != nil {
		return err
	}
	steady, err := measureSteady(ctx, w, s.fleetSteady, engine)
	stopped, stopErr := w.stop()
	if err := errors.Join(err, stopErr); err != nil {
		return err
	}
	complete, stops = append(complete, w.complete), append(stops, stopped)
	progress("fleet: the same scans by bare system calls, %v", bareTime)
	if steady.bareCPU, err = bareShare(ctx, f); err != nil {
		return err
	}
	r.add(fleetTable(s, steady, idle, complete, stops))
	return nil
}

// A steadyState is what a process needs while nothing changes.
type steadyState struct {
	cpu, engineCPU    float64 // shares of one core; engineCPU -1: not known
	bareCPU           float64 // what the scans alone need
	resident, private int64   // bytes: VmRSS, Pss
	peak              int64   // bytes: VmHWM
	threads           int64
	events            int // printed meanwhile, where nothing happened
}

func measureSteady(ctx context.Context, w *watcher, d time.Duration, engine int) (s steadyState, err error) {
	if err := wait(ctx, fleetSettle); err != nil {
		return s, err
	}
	lines := w.lines.Load()
	s.engineCPU = -1
	pids := []int{w.process.Process.Pid}
	if engine > 0 {
		pids = append(pids, engine)
	}
	shares, err := cpuShares(ctx, d, pids...)
	if err != nil {
		return s, err
	}
	if s.cpu = shares[0]; engine > 0 {
		s.engineCPU = shares[1]
	}
	s.events = int(w.lines.Load() - lines)
	return s, s.readMemory(pids[0])
}

func (s *steadyState) readMemory(pid int) (err error) {
	folder := fmt.Sprintf("/proc/%d/", pid)
	for _, number := range []struct {
		file, field string
		unit        int64
		value       *int64
	}{
		{"status", "VmRSS", 1024, &s.resident},
		{"status", "VmHWM", 1024, &s.peak},
		{"smaps_rollup", "Pss", 1024, &s.private},
		{"status", "Threads", 1, &s.threads},
	} {
		if *number.value, err = procField(folder+number.file, number.field); err != nil {
			return err
		}
		*number.value *= number.unit
	}
	return nil
}

func fleetTable(s *settings, steady steadyState, idle float64, complete, stops []time.Duration) table {
	aims := []aim{
		{"CPU, share of one core", showPercent(steady.cpu), "under " + showPercent(aimCPU), steady.cpu < aimCPU},
		{"CPU of the same scans by bare system calls", showPercent(steady.bareCPU), "", false},
		{"CPU, times that of the bare system calls", showRatio(steady.cpu / steady.bareCPU), "", false},
		{"resident memory (VmRSS)", showMegabytes(steady.resident), "under " + showMegabytes(aimMemory), steady.resident < aimMemory},
		{"of it its own (Pss)", showMegabytes(steady.private), "", false},
		{"highest resident memory (VmHWM)", showMegabytes(steady.peak), "", false},
		{"threads", fmt.Sprint(steady.threads), "", false},
		{"events while nothing happened", fmt.Sprint(steady.events), "0", steady.events == 0},
		{"from start to the complete list, median", showTime(median(complete)), "under " + showTime(aimComplete), median(complete) < aimComplete},
		{"from start to the complete list, fastest", showTime(quantile(complete, 0)), "", false},
		{"from start to the complete list, slowest", showTime(quantile(complete, 1)), "", false},
		{"from SIGTERM to the end, slowest", showTime(quantile(stops, 1)), "under " + showTime(aimStop), quantile(stops, 1) < aimStop},
	}
	if steady.engineCPU >= 0 {
		aims = append(aims,
			aim{"CPU of the engine beside it, share of one core", showPercent(steady.engineCPU), "", false},
			aim{"CPU of the engine without portwatcher", showPercent(idle), "", false})
	}
	return aimTable(
		fmt.Sprintf("%d containers of %d ports each", s.fleetContainers, s.fleetPorts),
		[]string{fmt.Sprintf("`portwatcher run --format json` as a process of the host, otherwise with default settings, told to "+
			"monitor these containers (network %s). The steady state lasts %v. CPU is the process's CPU clock; %d starts; "+
			"the list is complete with the last of the %s opened events on standard output. \"Engine\" is dockerd, with all that others ask of it.",
			s.fleetNetwork, s.fleetSteady, s.fleetStarts, grouped(int64(s.fleetContainers*s.fleetPorts)))},
		aims)
}

func showPercent(share float64) string { return fmt.Sprintf("%.2f %%", share*100) }
