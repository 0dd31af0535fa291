package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"portwatcher/internal/model"
)

const (
	latencyPort     = 21000 // and those after it, below those the kernel chooses
	latencyInterval = 5 * time.Millisecond
	latencyHold     = 50 * time.Millisecond
	// latencyQuiet without an event is the end: netlink looks each 500 ms.
	latencyQuiet = 2 * time.Second
	// latencyPatience bounds the wait for the events.
	latencyPatience = 30 * time.Second

	aimMedian = time.Millisecond
	aimP99    = 5 * time.Millisecond
)

// A change is what the workload did, or what an event tells of, once a run.
type change struct {
	kind     model.Type
	protocol string
	port     uint16
}

// delays are from the call to the line on standard output.
type delays struct {
	source, protocol string
	kind             model.Type
	done             int // by the workload
	times            []time.Duration
	cost             time.Duration // CPU of portwatcher for each event of the protocol
}

// runLatency measures how late portwatcher tells of single ports.
func runLatency(ctx context.Context, s *settings, r *report) error {
	return onStage(ctx, s, r, newFleet("latency", 1, 1, "bridge"), func(st *stage) error {
		var all []delays
		for _, source := range sources {
			measured, err := measureLatency(ctx, st, source, s.latencyCount)
			if ctx.Err() != nil {
				return err
			}
			if err != nil {
				r.missing("latency, "+source, err.Error())
				continue
			}
			all = append(all, measured...)
		}
		r.add(latencyTable(all))
		r.add(latencyAims(all))
		return nil
	})
}

func measureLatency(ctx context.Context, st *stage, source string, count int) (all []delays, err error) {
	w, err := st.watch(ctx, source)
	if err != nil {
		return nil, err
	}
	defer func() {
		_, stopErr := w.stop()
		err = errors.Join(err, stopErr)
	}()
	for _, protocol := range []string{"tcp", "udp"} {
		progress("latency: %s, %s", source, protocol)
		measured, err := measureProtocol(ctx, st, w, protocol, count)
		if err != nil {
			return nil, err
		}
		for i := range measured {
			measured[i].source = source
		}
		all = append(all, measured...)
	}
	return all, nil
}

// An arrival is a line of standard output and when it was read.
type arrival struct {
	line []byte
	at   time.Time
}

// arrivals collects the lines of openings and closings. Its owner may read it
// when portwatcher says no more, or under the mutex.
type arrivals struct {
	mutex sync.Mutex
	lines []arrival
}

func (a *arrivals) add(line []byte, at time.Time) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.lines = append(a.lines, arrival{bytes.Clone(line), at})
}

// await waits for so many lines, or until it is quiet.
func (a *arrivals) await(ctx context.Context, count int) ([]arrival, error) {
	begin := time.Now()
	for {
		a.mutex.Lock()
		lines, last := a.lines, begin
		a.mutex.Unlock()
		if len(lines) > 0 && lines[len(lines)-1].at.After(begin) {
			last = lines[len(lines)-1].at
		}
		if len(lines) >= count || time.Since(last) > latencyQuiet || time.Since(begin) > latencyPatience {
			return lines, nil
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// measureProtocol returns the delays of the openings and of the closings.
func measureProtocol(ctx context.Context, st *stage, w *watcher, protocol string, count int) ([]delays, error) {
	before, err := cpuTime(w.process.Process.Pid)
	if err != nil {
		return nil, err
	}
	seen := &arrivals{}
	w.observe(seen.add)
	output, err := st.exec(ctx, "burst", "--protocol", protocol, "--base-port", strconv.Itoa(latencyPort), "--count", strconv.Itoa(count),
		"--hold", latencyHold.String(), "--interval", latencyInterval.String())
	if err != nil {
		return nil, err
	}
	facts, err := readFacts(output)
	if err != nil {
		return nil, err
	}
	lines, err := seen.await(ctx, 2*count)
	if err != nil {
		return nil, err
	}
	after, err := cpuTime(w.process.Process.Pid)
	if err != nil {
		return nil, err
	}
	told, err := firstArrivals(lines)
	if err != nil {
		return nil, err
	}
	opened, closed := delays{protocol: protocol, kind: model.Opened}, delays{protocol: protocol, kind: model.Closed}
	opened.add(facts, told)
	closed.add(facts, told)
	if len(lines) > 0 {
		opened.cost = (after - before) / time.Duration(len(lines))
		closed.cost = opened.cost
	}
	return []delays{opened, closed}, nil
}

// firstArrivals returns when each change was told of first.
func firstArrivals(lines []arrival) (map[change]time.Time, error) {
	told := map[change]time.Time{}
	for _, l := range lines {
		var e model.Event
		if err := json.Unmarshal(l.line, &e); err != nil {
			return nil, fmt.Errorf("event %q: %w", l.line, err)
		}
		c := change{e.Type, e.Protocol.String(), e.Port}
		if _, known := told[c]; !known {
			told[c] = l.at
		}
	}
	return told, nil
}

// add compares the workload's facts with what was told. The times are of the
// same clock: that of the host.
func (d *delays) add(facts []fact, told map[change]time.Time) {
	for _, f := range facts {
		if f.Action != string(d.kind) || f.Protocol != d.protocol {
			continue
		}
		d.done++
		if at, known := told[change{d.kind, f.Protocol, f.Port}]; known {
			d.times = append(d.times, at.Sub(f.Time))
		}
	}
}

func latencyTable(all []delays) table {
	t := table{
		title:   "From the call to the event on standard output",
		columns: []string{"Source", "p50", "p99", "slowest", "told of", "CPU an event"},
		notes: []string{fmt.Sprintf("Ports of one container, one each %v, held %v. From the workload's own time stamp right before listen, "+
			"bind (UDP) or close, until the line is read from portwatcher's standard output. With netlink an opening is seen by a scan, each 500 ms, "+
			"or by its close, whichever comes first: the held time bounds its delay. \"CPU an event\" is portwatcher's CPU clock for each event of "+
			"the protocol, the idle share of that time included.", latencyInterval, latencyHold)},
	}
	for _, d := range all {
		row := []string{d.name(), "", "", "", "0.00 %", ""}
		if len(d.times) > 0 {
			row = []string{d.name(), showTime(quantile(d.times, 0.5)), showTime(quantile(d.times, 0.99)), showTime(quantile(d.times, 1)),
				showShare(len(d.times), d.done), showTime(d.cost)}
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func (d *delays) name() string { return fmt.Sprintf("%s, %s %s", d.source, d.protocol, d.kind) }

// latencyAims leaves out the openings with netlink, which wait for a scan.
func latencyAims(all []delays) table {
	var aims []aim
	for _, d := range all {
		if d.source == sourceNetlink && d.kind == model.Opened {
			continue
		}
		aims = append(aims, d.aim("p50", 0.5, aimMedian), d.aim("p99", 0.99, aimP99))
	}
	return aimTable("Aims of the delay", nil, aims)
}

func (d *delays) aim(what string, q float64, limit time.Duration) aim {
	a := aim{d.name() + ", " + what, "nothing was told", "under " + showTime(limit), false}
	if len(d.times) > 0 {
		value := quantile(d.times, q)
		a.measured, a.met = showTime(value), value < limit
	}
	return a
}
