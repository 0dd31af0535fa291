package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
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

// scanOrder is what the process in the namespace is to do.
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
		path, err := command(tool.program, tool.debianPackage)
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
		name := showCount(connections) + " connections"
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
	return []string{showTime(r.Median), showRatio(r.Ratio), showMean(r.Objects), showMean(r.Bytes), found}
}

func scanAims(cases [][]scanResult) table {
	var aims []aim
	for i, results := range cases {
		for _, result := range results {
			if result.Way != wayProduct || result.Missing != "" {
				continue
			}
			at := ", " + showCount(scanConnections[i]) + " connections"
			aims = append(aims,
				aim{"scan, times the bare system calls" + at, showRatio(result.Ratio),
					fmt.Sprintf("at most %.1f", aimRatio), result.Ratio <= aimRatio},
				aim{"allocations of a steady scan" + at, showMean(result.Objects), "0", result.Objects == 0})
		}
	}
	return aimTable("Aims of the scan", nil, aims)
}

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

// holderCommand is the argument that makes this program the holder of the
// sockets that are scanned.
const holderCommand = "internal-scan-holder"

// holderReady is written to standard output when all is open.
const holderReady = "ready"

// The ports lie below those that the kernel chooses for clients.
const (
	firstTCP = 8001
	firstUDP = 9001
)

// holdSockets opens the sockets and keeps them until its standard input ends.
func holdSockets(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("%s is started by the scan benchmark alone", holderCommand)
	}
	connections, err := strconv.Atoi(arguments[0])
	if err != nil {
		return err
	}
	descriptors := uint64(2*connections + 1000)
	if err := allowDescriptors(descriptors); err != nil {
		return err
	}
	server, err := openSockets()
	if err != nil {
		return err
	}
	if err := connect(server, connections); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString(holderReady); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func allowDescriptors(needed uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= needed {
		return nil
	}
	limit.Cur, limit.Max = needed, max(limit.Max, needed)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("allow %d open files: %w", needed, err)
	}
	return nil
}

// openSockets opens listeners and UDP sockets on addresses of all kinds, and
// returns the listener for the connections. They stay open as long as the
// process lives: nothing closes them.
func openSockets() (net.Listener, error) {
	addresses := []string{"127.0.0.1", "0.0.0.0", "[::]", "[::1]"}
	var config net.ListenConfig
	// MPTCP makes a second kernel socket for each listener.
	config.SetMultipathTCP(false)
	var server net.Listener
	for i := range scanTCP {
		listener, err := config.Listen(context.Background(), "tcp", fmt.Sprint(addresses[i%len(addresses)], ":", firstTCP+i))
		if err != nil {
			return nil, err
		}
		held = append(held, listener)
		if i == 0 {
			server = listener
		}
	}
	for i := range scanUDP {
		packets, err := config.ListenPacket(context.Background(), "udp", fmt.Sprint(addresses[i%len(addresses)], ":", firstUDP+i))
		if err != nil {
			return nil, err
		}
		held = append(held, packets)
	}
	return server, nil
}

// held keeps sockets from the garbage collector, which would close them.
var held []io.Closer

// connect establishes connections to the server, and keeps both ends.
func connect(server net.Listener, connections int) error {
	for range connections {
		client, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			return err
		}
		accepted, err := server.Accept()
		if err != nil {
			return err
		}
		held = append(held, client, accepted)
	}
	return nil
}
