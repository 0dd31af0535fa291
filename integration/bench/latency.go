package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"portwatcher/internal/model"
)

const (
	latencyPort     = 21000 // and those after it, below those the kernel chooses
	latencyInterval = 5 * time.Millisecond
	latencyHold     = 50 * time.Millisecond

	aimMedian = time.Millisecond
	aimP99    = 5 * time.Millisecond
)

// runLatency measures how late portwatcher reports single ports.
func runLatency(ctx context.Context, s *settings, r *report) error {
	return onStage(ctx, s, r, newStage("latency", 1, 1, "bridge"), func(st *stage) error {
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
	for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
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

// measureProtocol returns the delays of the openings and of the closings.
func measureProtocol(ctx context.Context, st *stage, w *watcher, protocol model.Protocol, count int) ([]delays, error) {
	before, err := cpuTime(w.process.Process.Pid)
	if err != nil {
		return nil, err
	}
	seen := &arrivals{}
	w.observe(seen.add)
	facts, err := st.exec(ctx, st.ids[0], "burst", "--protocol", protocol.String(), "--base-port", strconv.Itoa(latencyPort), "--count", strconv.Itoa(count),
		"--hold", latencyHold.String(), "--interval", latencyInterval.String())
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
	reported, err := firstArrivals(lines)
	if err != nil {
		return nil, err
	}
	opened, closed := delays{protocol: protocol, kind: model.Opened}, delays{protocol: protocol, kind: model.Closed}
	opened.add(facts, reported)
	closed.add(facts, reported)
	if len(lines) > 0 {
		opened.cost = (after - before) / time.Duration(len(lines))
		closed.cost = opened.cost
	}
	return []delays{opened, closed}, nil
}

func latencyTable(all []delays) table {
	t := table{
		title:   "From the call to the event on standard output",
		columns: []string{"Source", "p50", "p99", "slowest", "reported", "CPU an event"},
		notes: []string{fmt.Sprintf("Ports of one container, one each %v, held %v. From the workload's own time stamp right before listen, "+
			"bind (UDP) or close, until the line is read from portwatcher's standard output. With netlink an opening is observed by a scan, each 500 ms, "+
			"or by its close, whichever comes first: the held time bounds its delay. \"CPU an event\" is portwatcher's CPU clock for each event of "+
			"the protocol, the idle share of that time included.", latencyInterval, latencyHold)},
	}
	for _, d := range all {
		t.rows = append(t.rows, slices.Concat([]string{d.name()}, showTimes(d.times), []string{showShare(len(d.times), d.done), showTime(d.cost)}))
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
	a := aim{d.name() + ", " + what, "nothing was reported", "under " + showTime(limit), false}
	if len(d.times) > 0 {
		value := quantile(d.times, q)
		a.measured, a.met = showTime(value), value < limit
	}
	return a
}
