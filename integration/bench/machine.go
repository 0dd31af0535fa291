package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"portwatcher/internal/clock"

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
		return 0, fmt.Errorf("DOCKER_HOST is %s; only the process of the default engine is found, by %s", host, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("find the engine's process: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// wait waits for d, unless ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	if !clock.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// pollTime passes from one check of a condition to the next, where that is an expensive one.
const pollTime = 300 * time.Millisecond

// until waits until the condition holds, and returns its last error after patience.
func until(ctx context.Context, patience time.Duration, condition func() error) error {
	return untilEach(ctx, 10*time.Millisecond, patience, condition)
}

// untilEach is [until] with the time between two checks of the condition.
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

// procField reads a number from a file of "Name: number" lines of /proc, in
// the file's own unit.
func procField(path, name string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		found, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); found == name && len(fields) > 0 {
			return strconv.ParseInt(fields[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no field %s", path, name)
}

const (
	// memoryPatience bounds the wait for the resident memory to fall.
	memoryPatience = time.Minute
	// memoryInterval passes between two readings of it.
	memoryInterval = 20 * time.Millisecond
	// memorySettle passes between the complete list and the idle figure.
	memorySettle = 2 * time.Second
	// aimRelease bounds the resident memory after the load, in times of the idle.
	aimRelease = 1.5
)

// memoryUse is resident memory (VmRSS) in bytes.
type memoryUse struct {
	idle, highest, after int64
	back                 time.Duration // until it was under the aim, or given up
}

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

// enableProgramStatistics makes the kernel measure eBPF programs until end, or the end of
// this process: the only attribute of bpf(2) BPF_ENABLE_STATS is the kind of statistics.
func enableProgramStatistics() (end func() error, err error) {
	attributes := struct{ kind uint32 }{unix.BPF_STATS_RUN_TIME}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_ENABLE_STATS, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	if errno != 0 {
		return nil, fmt.Errorf("enable the kernel's statistics of eBPF programs: %w", errno)
	}
	return func() error { return unix.Close(int(fd)) }, nil
}

// programStatistics adds up how often the eBPF programs that a process holds
// ran, and how long, while statistics were on. Source: bpf_prog_show_fdinfo in
// kernel/bpf/syscall.c of Linux.
func programStatistics(pid int) (runs int64, runTime time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return 0, 0, err
	}
	programs := 0
	seen := map[int64]bool{}
	for _, file := range files {
		count, err := procField(file, "run_cnt")
		if err != nil {
			continue // no program, or closed meanwhile
		}
		id, err := procField(file, "prog_id")
		if err != nil || seen[id] {
			continue
		}
		nanoseconds, err := procField(file, "run_time_ns")
		if err != nil {
			return 0, 0, err
		}
		seen[id] = true
		programs++
		runs, runTime = runs+count, runTime+time.Duration(nanoseconds)
	}
	if programs == 0 {
		return 0, 0, fmt.Errorf("process %d holds no eBPF program", pid)
	}
	return runs, runTime, nil
}

// busyTime returns the CPU time of the whole machine that was not idle, to
// 10 ms. Source: proc_stat(5).
func busyTime() (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 in every Linux ABI
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal ...
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var busy time.Duration
	for _, i := range []int{1, 2, 3, 6, 7} {
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		busy += time.Duration(ticks) * tick
	}
	return busy, nil
}

// workerTime returns the CPU time of the kernel's workers that are bound to a CPU so far,
// in which the work runs that this CPU has put off. Source: kernel/workqueue.c of Linux,
// and sched-stats.rst.
func workerTime(cpu int) (sum time.Duration, err error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	found := false
	for _, folder := range folders {
		name, err := os.ReadFile(folder + "/comm")
		if err != nil || !strings.HasPrefix(string(name), fmt.Sprintf("kworker/%d:", cpu)) {
			continue // another, or it has ended
		}
		text, err := os.ReadFile(folder + "/schedstat")
		if err != nil {
			continue
		}
		nanoseconds, err := strconv.ParseInt(strings.Fields(string(text) + " -")[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s/schedstat: %w", folder, err)
		}
		found, sum = true, sum+time.Duration(nanoseconds)
	}
	if !found {
		return 0, fmt.Errorf("no worker of CPU %d shows its time in /proc/<pid>/schedstat", cpu)
	}
	return sum, nil
}
