package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// Of busyContainers the first busyStorming storm; the others are neighbours.
	busyContainers = 20
	busyStorming   = 5
	busyLoops      = 2
	// A neighbour opens neighbourPort again and again.
	neighbourPort     = 28080
	neighbourHold     = 300 * time.Millisecond
	neighbourInterval = 500 * time.Millisecond
	// busyPatience bounds the wait until all is reported.
	busyPatience = time.Minute
)

// busyInstances are the portwatchers that watch at the same time.
var busyInstances = []string{"first", "second"}

// busyResult is what one of two instances reported.
type busyResult struct {
	source, instance string
	balance          balance
	neighbours       int // ports that they opened and closed
	whole            int // of them those of which both are listed
	cpu              time.Duration
}

// captureBusy has two portwatchers watch containers of which some storm, while loops
// take the processors.
func captureBusy(ctx context.Context, s *settings, r *report) error {
	return onStage(ctx, s, r, newFleet("capture-busy", busyContainers, 1, "none"), func(st *stage) error {
		var all []busyResult
		for _, source := range sources {
			progress("capture: %s, %d storming containers, %d busy loops, two instances", source, busyStorming, busyLoops)
			results, err := measureBusy(ctx, st, source, s.captureCount/busyStorming)
			if ctx.Err() != nil {
				return err
			}
			if err != nil {
				r.missing("capture, busy, "+source, err.Error())
			}
			all = append(all, results...)
		}
		r.add(busyTable(all, s.captureCount/busyStorming))
		r.add(busyAims(all))
		return nil
	})
}

func measureBusy(ctx context.Context, st *stage, source string, count int) (results []busyResult, err error) {
	var watchers []*watcher
	var seen []*accounts
	defer func() {
		for _, w := range watchers {
			_, stopErr := w.stop()
			err = errors.Join(err, stopErr)
		}
	}()
	for range busyInstances {
		w, err := st.watch(ctx, source)
		if err != nil {
			return nil, err
		}
		a := newAccounts()
		w.observe(a.add)
		watchers, seen = append(watchers, w), append(seen, a)
	}
	before := make([]time.Duration, len(watchers))
	for i, w := range watchers {
		if before[i], err = cpuTime(w.process.Process.Pid); err != nil {
			return nil, err
		}
	}
	truth, err := stormBusily(ctx, st, count)
	if err != nil {
		return nil, err
	}
	for i, w := range watchers {
		if err := awaitAccounts(ctx, w, seen[i], truth); err != nil {
			return nil, err
		}
		after, err := cpuTime(w.process.Process.Pid)
		if err != nil {
			return nil, err
		}
		result := busyResult{source: source, instance: busyInstances[i], balance: seen[i].balance(truth), cpu: after - before[i]}
		for _, id := range st.ids[busyStorming:] {
			its := seen[i].container(id)
			result.neighbours += truth[id].opened
			result.whole += min(its.listed.opened, its.listed.closed, truth[id].opened)
		}
		results = append(results, result)
	}
	return results, nil
}

// awaitAccounts waits until everything is accounted for, or until no line has come for
// quietTime.
func awaitAccounts(ctx context.Context, w *watcher, seen *accounts, truth map[string]happened) error {
	lines, changed := w.lines.Load(), time.Now()
	return untilEach(ctx, slowly, busyPatience, func() error {
		b := seen.balance(truth)
		if now := w.lines.Load(); now != lines {
			lines, changed = now, time.Now()
		}
		if b.unaccounted() > 0 && time.Since(changed) < quietTime {
			return fmt.Errorf("portwatcher still reports, and %d openings and closings are not accounted for", b.unaccounted())
		}
		return nil
	})
}

// stormBusily makes the load, and returns what happened by container.
func stormBusily(ctx context.Context, st *stage, count int) (map[string]happened, error) {
	endLoops, err := startLoops()
	if err != nil {
		return nil, err
	}
	defer endLoops()
	truth := map[string]happened{}
	var mutex sync.Mutex
	did := func(id string, h happened, err error) error {
		mutex.Lock()
		defer mutex.Unlock()
		truth[id] = truth[id].plus(h)
		return err
	}
	var neighbours, storms sync.WaitGroup
	failures := make([]error, len(st.ids))
	for i, id := range st.ids[busyStorming:] {
		neighbours.Go(func() {
			output, err := docker(ctx, nil, "exec", id, "/workload", "burst", "--same-port", "--protocol", []string{"tcp", "udp"}[i%2], "--count", "1000",
				"--base-port", strconv.Itoa(neighbourPort), "--hold", neighbourHold.String(), "--interval", neighbourInterval.String())
			h, factsErr := countFacts(output)
			failures[busyStorming+i] = did(id, h, errors.Join(err, factsErr))
		})
	}
	for i, id := range st.ids[:busyStorming] {
		storms.Go(func() {
			for _, protocol := range []string{"tcp", "udp"} {
				_, err := docker(ctx, nil, "exec", id, "/workload", "storm", "--protocol", protocol, "--port", strconv.Itoa(stormPort), "--count", strconv.Itoa(count))
				failures[i] = errors.Join(failures[i], did(id, happened{count, count}, err))
			}
		})
	}
	storms.Wait()
	for i, id := range st.ids[busyStorming:] {
		// Also after an interrupt: what is waited for then is its end.
		err := untilEach(context.WithoutCancel(ctx), slowly, busyPatience, func() error { return endWorkload(id, "burst") })
		failures[i] = errors.Join(failures[i], err)
	}
	neighbours.Wait()
	return truth, errors.Join(failures...)
}

// endWorkload ends a workload command in a container by SIGTERM. It returns an error
// where there is none.
func endWorkload(container, name string) error {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
	}
	for _, file := range files {
		cgroup, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(cgroup, []byte(container)) {
			continue // another's, or it has ended
		}
		folder := filepath.Dir(file)
		line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
		if arguments := strings.Split(string(line), "\x00"); err == nil && len(arguments) > 1 && arguments[1] == name {
			return syscall.Kill(number([]byte(filepath.Base(folder))), syscall.SIGTERM)
		}
	}
	return fmt.Errorf("no workload %s runs in container %s", name, container[:min(12, len(container))])
}

// startLoops has loops take processor time, each at most 10 minutes of it.
func startLoops() (end func(), err error) {
	var loops []*exec.Cmd
	end = func() {
		for _, loop := range loops {
			_ = loop.Process.Kill()
			_ = loop.Wait() // says that it was killed
		}
	}
	for range busyLoops {
		loop := exec.Command("sh", "-c", "ulimit -t 600; while :; do :; done")
		if err := loop.Start(); err != nil {
			end()
			return nil, err
		}
		loops = append(loops, loop)
	}
	return end, nil
}

func busyTable(all []busyResult, count int) table {
	t := table{
		title: fmt.Sprintf("%d storming containers among %d, on a busy machine", busyStorming, busyContainers),
		columns: []string{"Who watches", "openings and closings", "listed", "in bursts", "in gaps", "unaccounted",
			"neighbours' ports reported", "of", "CPU an event"},
		notes: []string{fmt.Sprintf("Each of the %d opens and closes a TCP port, and then a UDP port, %s times without pause, all at the same time. "+
			"Each of the %d neighbours opens one port again and again, held %v. %d loops take both processors' time, and two portwatchers watch at the same time. "+
			"A neighbour's port is reported where its opening and its closing are events of their own. "+
			"\"CPU an event\" is portwatcher's CPU clock for each opening and closing that happened.",
			busyStorming, grouped(int64(count)), busyContainers-busyStorming, neighbourHold, busyLoops)},
	}
	for _, b := range all {
		gaps := showSum(b.balance.gaps)
		if b.balance.unnumbered > 0 {
			gaps = fmt.Sprintf("%s, and %d gaps without a number", gaps, b.balance.unnumbered)
		}
		t.rows = append(t.rows, []string{fmt.Sprintf("portwatcher, %s, %s of two", b.source, b.instance), showSum(b.balance.happened), showSum(b.balance.listed),
			showSum(b.balance.bursts), gaps, showSum(b.balance.unaccounted()), showSum(b.whole), showSum(b.neighbours),
			showPrecise(b.cpu.Seconds() / float64(max(b.balance.happened, 1)))})
	}
	return t
}

func busyAims(all []busyResult) table {
	var aims []aim
	for _, b := range all {
		who := b.source + ", " + b.instance + ": "
		sums := aim{who + "unaccounted openings and closings", showSum(b.balance.unaccounted()), "0", b.balance.exact()}
		if b.source == sourceNetlink {
			sums.aim = "0, or a gap without a number"
			sums.met = len(b.balance.problems) == 0 && (b.balance.unaccounted() == 0 || b.balance.unnumbered > 0)
		}
		if len(b.balance.problems) > 0 {
			sums.measured += "; " + b.balance.problems[0]
		}
		aims = append(aims, sums, aim{who + "neighbours' ports reported", fmt.Sprintf("%s of %s", showSum(b.whole), showSum(b.neighbours)), "all", b.whole == b.neighbours && b.neighbours > 0})
	}
	return aimTable("Aims on a busy machine", nil, aims)
}
