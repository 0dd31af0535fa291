package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	vishvananda "github.com/vishvananda/netns"

	"portwatcher/internal/netns"
)

// The aims with 100 containers of 10 ports each, at the default scan interval.
const (
	aimMemory   = 40_000_000
	aimComplete = 500 * time.Millisecond
	aimStop     = time.Second
)

// aimCPU bounds the share of one core, by source.
var aimCPU = map[string]float64{sourceEBPF: 0.001, sourceNetlink: 0.02}

const (
	// fleetSettle passes between the complete list and the steady state: portwatcher
	// gives back what its start took within it.
	fleetSettle = 16 * time.Second
	// fleetIdle is how long the engine is measured without portwatcher.
	fleetIdle = 15 * time.Second
)

// runFleet measures portwatcher as a process of the host that watches many
// containers of a real engine while nothing happens.
func runFleet(ctx context.Context, s *settings, r *report) error {
	st := newStage("fleet", s.fleetContainers, s.fleetPorts, s.fleetNetwork)
	return onStage(ctx, s, r, st, func(st *stage) error { return measureFleet(ctx, s, r, st) })
}

func measureFleet(ctx context.Context, s *settings, r *report, st *stage) error {
	engine, err := engineProcess()
	if err != nil {
		r.missing("fleet, CPU of the engine", err.Error())
	}
	var idle float64
	if engine > 0 {
		progress("fleet: the engine without portwatcher, %v", fleetIdle)
		if idle, err = cpuShare(ctx, engine, fleetIdle); err != nil {
			return err
		}
	}
	progress("fleet: the scans alone by bare system calls, %v", bareTime)
	bare, err := bareShare(ctx, st)
	if err != nil {
		return err
	}
	for _, source := range sources {
		result := fleetResult{source: source, bareCPU: bare, engineIdle: idle}
		if err := result.measure(ctx, s, st, engine); err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.missing("fleet, "+source, err.Error())
			continue
		}
		r.add(result.table(s))
	}
	return nil
}

// A fleetResult is what portwatcher needs with one source.
type fleetResult struct {
	source          string
	complete, stops []time.Duration
	steady          steadyState
	bareCPU         float64 // what the scans alone need, as a share of one core
	engineIdle      float64 // the engine's share without portwatcher
}

// measure starts portwatcher some times; the last stays for the steady state.
func (f *fleetResult) measure(ctx context.Context, s *settings, st *stage, engine int) error {
	for i := range s.fleetStarts {
		progress("fleet, %s: start %d of %d", f.source, i+1, s.fleetStarts)
		w, err := st.watch(ctx, f.source)
		if err != nil {
			return err
		}
		if i == s.fleetStarts-1 {
			progress("fleet, %s: the steady state, %v", f.source, s.fleetSteady)
			f.steady, err = measureSteady(ctx, st, w, s.fleetSteady, engine)
		}
		stopped, stopErr := w.stop()
		if err := errors.Join(err, stopErr); err != nil {
			return err
		}
		f.complete, f.stops = append(f.complete, w.complete), append(f.stops, stopped)
	}
	return nil
}

// A steadyState is what a process needs while nothing changes.
type steadyState struct {
	cpu, engineCPU    float64 // shares of one core; engineCPU -1: unknown
	resident, private int64   // bytes: VmRSS, Pss
	peak              int64   // bytes: VmHWM
	threads           int64
	events            int // printed meanwhile, where nothing happened
	foreign           int // events of the engine meanwhile: what others did there
}

func measureSteady(ctx context.Context, st *stage, w *watcher, d time.Duration, engine int) (s steadyState, err error) {
	if err := wait(ctx, fleetSettle); err != nil {
		return s, err
	}
	lines := w.lines.Load()
	s.engineCPU = -1
	pids := []int{w.process.Process.Pid}
	if engine > 0 {
		pids = append(pids, engine)
	}
	begin := time.Now()
	shares, err := cpuShares(ctx, d, pids...)
	if err != nil {
		return s, err
	}
	if s.foreign, err = st.engineEvents(ctx, begin, time.Now()); err != nil {
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

func (f *fleetResult) table(s *settings) table {
	cpu := aimCPU[f.source]
	complete, stops, steady := f.complete, f.stops, f.steady
	aims := []aim{{"CPU, share of one core", showPercent(steady.cpu), "under " + showPercent(cpu), steady.cpu < cpu}}
	if f.source == sourceNetlink { // eBPF hardly scans
		aims = append(aims,
			value("CPU of the same scans by bare system calls", showPercent(f.bareCPU)),
			value("CPU, times that of the bare system calls", showRatio(steady.cpu/f.bareCPU)))
	}
	aims = append(aims,
		aim{"resident memory (VmRSS)", showMegabytes(steady.resident), "under " + showMegabytes(aimMemory), steady.resident < aimMemory},
		value("of it its own (Pss)", showMegabytes(steady.private)),
		value("highest resident memory (VmHWM)", showMegabytes(steady.peak)),
		value("threads", fmt.Sprint(steady.threads)),
		aim{"events while nothing happened", fmt.Sprint(steady.events), "0", steady.events == 0},
		value("events of the engine meanwhile, of what others do there", fmt.Sprint(steady.foreign)),
		below("from start to the complete list, median", median(complete), aimComplete),
		value("from start to the complete list, fastest", showTime(quantile(complete, 0))),
		value("from start to the complete list, slowest", showTime(quantile(complete, 1))),
		below("from SIGTERM to the end, slowest", quantile(stops, 1), aimStop),
	)
	if steady.engineCPU >= 0 {
		aims = append(aims,
			value("CPU of the engine beside it, share of one core", showPercent(steady.engineCPU)),
			value("CPU of the engine without portwatcher", showPercent(f.engineIdle)))
	}
	return aimTable(
		fmt.Sprintf("%d idle containers of %d ports each, %s", s.fleetContainers, s.fleetPorts, f.source),
		[]string{fmt.Sprintf("`portwatcher run --format json --source %s` as a process of the host, otherwise with default settings, which is to "+
			"monitor these containers (network %s). The steady state lasts %v. CPU is the process's CPU clock; %d starts; "+
			"the list is complete with the last of the %s opened events on standard output. \"Engine\" is dockerd, with all that others ask of it. "+
			"What others do on the machine meanwhile counts: eBPF reports every port of the host, and the engine every container.",
			f.source, s.fleetNetwork, s.fleetSteady, s.fleetStarts, showCount(s.fleetContainers*s.fleetPorts))},
		aims)
}

// engineEvents counts what the engine reported in a span of time.
func (s *stage) engineEvents(ctx context.Context, begin, end time.Time) (int, error) {
	output, err := s.docker(ctx, "events", "--format", "{{.Action}}",
		"--since", begin.Format(time.RFC3339Nano), "--until", end.Format(time.RFC3339Nano))
	return len(strings.Fields(output)), err
}

const (
	// bareInterval is portwatcher's default scan interval.
	bareInterval = 500 * time.Millisecond
	bareTime     = 20 * time.Second
)

// bareShare returns the share of one core that the scans alone need: those of
// all the containers' namespaces by bare system calls, one after another, at
// the default interval. What they find is not used.
func bareShare(ctx context.Context, st *stage) (_ float64, err error) {
	pids, err := st.processes(ctx)
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
