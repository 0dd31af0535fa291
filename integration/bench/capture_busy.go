package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"portwatcher/integration/internal/docker"
	"portwatcher/internal/testutil/truth"
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
	// busyPatience bounds the wait for the end of the neighbours.
	busyPatience = time.Minute
)

// busyInstances are the portwatchers that watch at the same time.
var busyInstances = []string{"first", "second"}

// busyResult is what one of two instances reported.
type busyResult struct {
	source, instance string
	judgement        *truth.Judgement
	neighbours       uint64 // ports that they opened and closed
	whole            uint64 // of them those of which both are listed
	cpu              time.Duration
}

// captureBusy lets two portwatchers watch containers of which some storm, while loops take
// processor time.
func captureBusy(ctx context.Context, s *settings, r *report) error {
	return onStage(ctx, s, r, newStage("capture-busy", busyContainers, 1, "none"), func(st *stage) error {
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
	var seen []*account
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
		watchers, seen = append(watchers, w), append(seen, w.account())
	}
	before := make([]time.Duration, len(watchers))
	for i, w := range watchers {
		if before[i], err = cpuTime(w.process.Process.Pid); err != nil {
			return nil, err
		}
	}
	happened, err := stormBusily(ctx, st, count)
	if err != nil {
		return nil, err
	}
	for i, w := range watchers {
		if err := seen[i].await(ctx, w, happened, source); err != nil {
			return nil, err
		}
		after, err := cpuTime(w.process.Process.Pid)
		if err != nil {
			return nil, err
		}
		result := busyResult{source: source, instance: busyInstances[i], judgement: seen[i].judge(happened, source), cpu: after - before[i]}
		for _, id := range st.ids[busyStorming:] {
			listed := seen[i].of(id).Listed
			result.neighbours += happened[id].Opened
			result.whole += min(listed.Opened, listed.Closed, happened[id].Opened)
		}
		results = append(results, result)
	}
	return results, nil
}

// stormBusily makes the load, and returns what happened by container.
func stormBusily(ctx context.Context, st *stage, count int) (map[string]truth.Count, error) {
	_, endLoops, err := docker.Busy(busyLoops)
	if err != nil {
		return nil, err
	}
	defer endLoops()
	happened := map[string]truth.Count{}
	var mutex sync.Mutex
	run := func(id string, workload ...string) error {
		facts, err := st.exec(ctx, id, workload...)
		mutex.Lock()
		defer mutex.Unlock()
		happened[id] = happened[id].Add(truth.CountFacts(facts))
		return err
	}
	var neighbours, storms sync.WaitGroup
	failures := make([]error, len(st.ids))
	for i, id := range st.ids[busyStorming:] {
		neighbours.Go(func() {
			failures[busyStorming+i] = run(id, "burst", "--same-port", "--protocol", []string{"tcp", "udp"}[i%2], "--count", "1000",
				"--base-port", strconv.Itoa(neighbourPort), "--hold", neighbourHold.String(), "--interval", neighbourInterval.String())
		})
	}
	for i, id := range st.ids[:busyStorming] {
		storms.Go(func() {
			for _, protocol := range []string{"tcp", "udp"} {
				failures[i] = errors.Join(failures[i],
					run(id, "storm", "--protocol", protocol, "--port", strconv.Itoa(stormPort), "--count", strconv.Itoa(count)))
			}
		})
	}
	storms.Wait()
	for i, id := range st.ids[busyStorming:] {
		// Also after an interrupt: the wait is then for its end.
		err := untilEach(context.WithoutCancel(ctx), pollTime, busyPatience, func() error { return endWorkload(id, "burst") })
		failures[i] = errors.Join(failures[i], err)
	}
	neighbours.Wait()
	return happened, errors.Join(failures...)
}

// endWorkload ends a workload command in a container by SIGTERM. It returns an error
// where there is none.
func endWorkload(container, name string) error {
	folders, err := docker.Processes(container)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
		if arguments := strings.Split(string(line), "\x00"); err == nil && len(arguments) > 1 && arguments[1] == name {
			pid, _ := strconv.Atoi(filepath.Base(folder)) // the folder of a process is a number
			return syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	return fmt.Errorf("no workload %s runs in container %s", name, container[:min(12, len(container))])
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
			busyStorming, showCount(count), busyContainers-busyStorming, neighbourHold, busyLoops)},
	}
	for _, b := range all {
		j := b.judgement
		gaps := showCount(j.Gaps)
		if j.Unnumbered > 0 {
			gaps = fmt.Sprintf("%s, and %d gaps without a number", gaps, j.Unnumbered)
		}
		t.rows = append(t.rows, []string{fmt.Sprintf("portwatcher, %s, %s of two", b.source, b.instance), showCount(j.Happened), showCount(j.Listed),
			showCount(j.Bursts), gaps, showCount(j.Unaccounted()), showCount(b.whole), showCount(b.neighbours),
			showPrecise(b.cpu.Seconds() / float64(max(j.Happened, 1)))})
	}
	return t
}

func busyAims(all []busyResult) table {
	var aims []aim
	for _, b := range all {
		who := b.source + ", " + b.instance + ": "
		problems := b.judgement.Problems
		sums := aim{who + "unaccounted openings and closings", showCount(b.judgement.Unaccounted()), wantedSum(b.source), len(problems) == 0}
		if len(problems) > 0 {
			sums.measured += "; " + problems[0].String()
		}
		aims = append(aims, sums, aim{who + "neighbours' ports reported", fmt.Sprintf("%s of %s", showCount(b.whole), showCount(b.neighbours)), "all", b.whole == b.neighbours && b.neighbours > 0})
	}
	return aimTable("Aims on a busy machine", nil, aims)
}

// wantedSum is what may be in no account of a source.
func wantedSum(source string) string {
	if source == sourceNetlink {
		return "0, or a gap without a number"
	}
	return "0"
}
