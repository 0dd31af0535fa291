package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What is open in the namespace that is scanned.
const (
	scanTCP = 20
	scanUDP = 10
)

// scanConnections are the cases: established connections over loopback, with
// both their ends in the namespace.
var scanConnections = []int{0, 9000}

// aimRatio bounds one scan by portwatcher, in times of the bare system calls.
const aimRatio = 1.5

const (
	wayBare     = "bare system calls, one reused buffer"
	wayProduct  = "portwatcher internal/sockdiag"
	waySS       = "ss -tulnpH"
	wayLsof     = "lsof -nP -i"
	wayProcfs   = "prometheus/procfs NetTCP, NetUDP"
	wayGopsutil = "gopsutil net.Connections"
	wayNetlink  = "vishvananda/netlink SocketDiagTCP, UDP"
	wayPortlist = "tailscale.com/portlist Poll"
)

// A scanResult is what one way needs for one scan of the namespace.
type scanResult struct {
	Way     string
	Median  time.Duration
	Ratio   float64 // to the bare system calls: the median of the rounds' ratios
	Program bool    // it starts a program, whose allocations are not known
	Objects float64 // allocations
	Bytes   float64 // allocated
	Found   int     // sockets that can be spoken to, of scanTCP+scanUDP
	Missing string  // why it could not be measured
}

// scanOrder is what the process in the namespace is told.
type scanOrder struct {
	Connections int
	Rounds      int
	SS, Lsof    string // paths; empty where missing
}

// runScan measures one scan of a network namespace by all ways.
func runScan(ctx context.Context, s *settings, r *report) error {
	order := scanOrder{Rounds: s.scanRounds}
	reasons := map[string]string{}
	for _, tool := range []struct {
		way, program, debianPackage string
		path                        *string
	}{
		{waySS, "ss", "iproute2", &order.SS},
		{wayLsof, "lsof", "lsof", &order.Lsof},
	} {
		path, err := command(ctx, tool.program, tool.debianPackage)
		if err != nil {
			reasons[tool.way] = err.Error()
		}
		*tool.path = path
	}
	if os.Geteuid() != 0 {
		r.missing("scan", "a network namespace of its own needs root")
		return nil
	}
	var cases [][]scanResult
	for _, connections := range scanConnections {
		order.Connections = connections
		results, err := scanNamespace(ctx, order)
		if err != nil {
			return err
		}
		cases = append(cases, results)
	}
	r.add(scanTable(cases))
	for _, result := range cases[0] {
		if result.Missing != "" {
			r.missing("scan, "+result.Way, result.Missing+": "+reasons[result.Way])
		}
	}
	r.add(scanAims(cases))
	return nil
}

// scanNamespace measures in a new network namespace, in a process of its own:
// so every thread is in it, and /proc/net too.
func scanNamespace(ctx context.Context, order scanOrder) ([]scanResult, error) {
	progress("scan: %d TCP listeners, %d UDP sockets, %d connections, %d rounds",
		scanTCP, scanUDP, order.Connections, order.Rounds)
	encoded, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	child := exec.CommandContext(ctx, "/proc/self/exe", namespaceCommand, string(encoded))
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	child.Stderr = os.Stderr
	// The child ends when its standard input does: when this process does.
	if _, err := child.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := child.Output()
	if err != nil {
		return nil, fmt.Errorf("measure in a new network namespace: %w", err)
	}
	var results []scanResult
	if err := json.Unmarshal(output, &results); err != nil {
		return nil, fmt.Errorf("results of the scan: %w: %q", err, output)
	}
	return results, nil
}

func scanTable(cases [][]scanResult) table {
	t := table{
		title:   "One scan of a network namespace",
		columns: []string{"Way"},
		notes: []string{
			fmt.Sprintf("%d TCP listeners and %d UDP sockets, and established TCP connections over loopback (both ends in "+
				"the namespace). All ways take turns, in which their scans alternate with those by the bare system calls, "+
				"which make the same four dumps with the same filters; a ratio is the median of the turns' ratios. "+
				"Allocations are those of one scan after the first; those of programs are not known. "+
				"\"Found\" counts the listeners and UDP sockets in the answer.", scanTCP, scanUDP),
		},
	}
	for _, connections := range scanConnections {
		name := grouped(int64(connections)) + " connections"
		if connections == 0 {
			name = "no connection"
		}
		t.columns = append(t.columns, name, "ratio", "allocations", "bytes", "found")
	}
	for i, first := range cases[0] {
		row := []string{first.Way}
		for _, results := range cases {
			row = append(row, scanCells(results[i])...)
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func scanCells(r scanResult) []string {
	if r.Missing != "" {
		return []string{"missing", "", "", "", ""}
	}
	found := strconv.Itoa(r.Found)
	if r.Program {
		return []string{showTime(r.Median), showRatio(r.Ratio), "", "", found}
	}
	return []string{showTime(r.Median), showRatio(r.Ratio), showCount(r.Objects), showCount(r.Bytes), found}
}

func scanAims(cases [][]scanResult) table {
	var aims []aim
	for i, results := range cases {
		for _, result := range results {
			if result.Way != wayProduct || result.Missing != "" {
				continue
			}
			at := ", " + grouped(int64(scanConnections[i])) + " connections"
			aims = append(aims,
				aim{"scan, times the bare system calls" + at, showRatio(result.Ratio),
					fmt.Sprintf("at most %.1f", aimRatio), result.Ratio <= aimRatio},
				aim{"allocations of a steady scan" + at, showCount(result.Objects), "0", result.Objects == 0})
		}
	}
	return aimTable("Aims of the scan", nil, aims)
}
