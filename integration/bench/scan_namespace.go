package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
)

// namespaceCommand is the argument that makes this program the process in the
// namespace that is scanned.
const namespaceCommand = "internal-scan-namespace"

const (
	// turnTime and turnScans bound one way's turn in a round; it is one scan
	// at least, after this many by the bare system calls.
	turnTime  = 20 * time.Millisecond
	turnScans = 100
	bareScans = 10
	// A way whose scan takes longer than slowTime has a turn in each third
	// round only.
	slowTime   = 200 * time.Millisecond
	slowRounds = 3
	// Allocations are counted this often, each time over so many scans, or
	// those of so long a time.
	allocationCounts = 5
	allocationScans  = 300
	allocationTime   = 100 * time.Millisecond
)

// A way scans the namespace that its process is in.
type way struct {
	name string
	// scan returns how many sockets it found that can be spoken to.
	scan    func() (int, error)
	program bool   // it starts a program
	missing string // why it cannot be measured
}

// measureNamespace is the process in the namespace: it has the sockets opened
// and writes the results of all ways to standard output as JSON.
func measureNamespace(arguments []string) error {
	var order scanOrder
	if len(arguments) != 1 {
		return fmt.Errorf("%s is started by the scan benchmark alone", namespaceCommand)
	}
	if err := json.Unmarshal([]byte(arguments[0]), &order); err != nil {
		return err
	}
	endWithInput()
	if err := raiseLoopback(); err != nil {
		return err
	}
	holder, err := startHolder(order.Connections)
	if err != nil {
		return err
	}
	results, err := measureWays(order)
	if err := errors.Join(err, holder.end()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

func raiseLoopback() error {
	loopback, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	return nil
}

// endWithInput ends this process when the one that started it has ended, by
// whatever cause.
func endWithInput() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // any error means the same
		os.Exit(1)
	}()
}

func measureWays(order scanOrder) ([]scanResult, error) {
	ways, closeWays, err := openWays(order)
	if err != nil {
		return nil, err
	}
	defer closeWays()
	results := make([]scanResult, len(ways))
	for i, w := range ways {
		results[i] = scanResult{Way: w.name, Program: w.program, Missing: w.missing}
		if w.missing != "" {
			continue
		}
		if results[i].Found, err = w.scan(); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	if err := timeWays(ways, results, order.Rounds); err != nil {
		return nil, err
	}
	for i, w := range ways {
		if w.program || w.missing != "" {
			continue
		}
		if results[i].Objects, results[i].Bytes, err = allocations(w); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// timeWays gives every way a turn in each round, in random order. In it, its
// scans alternate with those by the bare system calls, the first way, so that
// the machine's other load meets both alike.
func timeWays(ways []way, results []scanResult, rounds int) error {
	all := make([][]time.Duration, len(ways))
	ratios := make([][]float64, len(ways))
	for round := range rounds {
		for _, i := range rand.Perm(len(ways)) {
			slow := len(all[i]) > 0 && all[i][0] > slowTime
			if ways[i].missing != "" || slow && round%slowRounds != 0 {
				continue
			}
			bare, turn, err := timeTurn(ways[0], ways[i])
			if err != nil {
				return err
			}
			all[i] = append(all[i], turn...)
			ratios[i] = append(ratios[i], float64(median(turn))/float64(median(bare)))
		}
	}
	for i, w := range ways {
		if w.missing == "" {
			results[i].Median, results[i].Ratio = median(all[i]), median(ratios[i])
		}
	}
	return nil
}

// timeTurn returns the time of each scan of one turn, and of those by the bare
// system calls: some before, and one before each.
func timeTurn(bare, w way) (bareTimes, times []time.Duration, err error) {
	for range bareScans {
		if bareTimes, err = timeScan(bareTimes, bare); err != nil {
			return nil, nil, err
		}
	}
	for begin := time.Now(); len(times) == 0 || len(times) < turnScans && time.Since(begin) < turnTime; {
		if bareTimes, err = timeScan(bareTimes, bare); err != nil {
			return nil, nil, err
		}
		if times, err = timeScan(times, w); err != nil {
			return nil, nil, err
		}
	}
	return bareTimes, times, nil
}

// timeScan appends the time of one scan.
func timeScan(times []time.Duration, w way) ([]time.Duration, error) {
	begin := time.Now()
	if _, err := w.scan(); err != nil {
		return nil, fmt.Errorf("%s: %w", w.name, err)
	}
	return append(times, time.Since(begin)), nil
}

// allocations returns how many objects and bytes one scan allocates: the
// median of several counts, because the runtime allocates now and then too.
func allocations(w way) (objects, bytes float64, err error) {
	var allObjects, allBytes []float64
	for range allocationCounts {
		var before, after runtime.MemStats
		if _, err := w.scan(); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", w.name, err)
		}
		runtime.ReadMemStats(&before)
		scans := 0
		for begin := time.Now(); scans == 0 || scans < allocationScans && time.Since(begin) < allocationTime; scans++ {
			if _, err := w.scan(); err != nil {
				return 0, 0, fmt.Errorf("%s: %w", w.name, err)
			}
		}
		runtime.ReadMemStats(&after)
		allObjects = append(allObjects, float64(after.Mallocs-before.Mallocs)/float64(scans))
		allBytes = append(allBytes, float64(after.TotalAlloc-before.TotalAlloc)/float64(scans))
	}
	return median(allObjects), median(allBytes), nil
}

// A holder is the process that has the sockets open: the process that
// measures would be slowed by so many descriptors when it starts a program.
type holder struct {
	process *exec.Cmd
	input   io.Closer
}

// startHolder returns when the sockets are open.
func startHolder(connections int) (*holder, error) {
	process := exec.Command("/proc/self/exe", holderCommand, fmt.Sprint(connections))
	process.Stderr = os.Stderr
	input, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	h := &holder{process, input}
	ready := make([]byte, len(holderReady))
	if _, err := io.ReadFull(output, ready); err != nil {
		return nil, errors.Join(fmt.Errorf("the sockets to scan could not be opened: %w", err), h.end())
	}
	return h, nil
}

// end ends the holder, and waits until it has.
func (h *holder) end() error {
	if err := h.input.Close(); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := h.process.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}
