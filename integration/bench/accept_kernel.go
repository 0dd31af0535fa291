package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bpfEnableStats makes the bpf(2) call BPF_ENABLE_STATS, whose only attribute
// is the kind of statistics; they end when the descriptor is closed.
func bpfEnableStats() (int, error) {
	attributes := struct{ kind uint32 }{unix.BPF_STATS_RUN_TIME}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_ENABLE_STATS, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
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
