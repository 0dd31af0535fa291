package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"portwatcher/internal/netns"
	"portwatcher/internal/probe"
	"portwatcher/internal/sockdiag"
)

const (
	// pairSpan is one span of the load, with something that watches or without;
	// pairSettle passes after each change.
	pairSpan   = 200 * time.Millisecond
	pairSettle = 50 * time.Millisecond
	// pairCPU is the CPU that server and client share, so that neither a wake-up
	// of the other one nor a move to it is measured.
	pairCPU = 0
	// pairRate leaves that CPU some time to rest.
	pairRate = acceptRate / 2
)

// A pair is what a connection costs with something that watches, and right before and
// after without it, in CPU seconds.
type pair struct{ with, without float64 }

// attachPrograms attaches portwatcher's eBPF programs until end.
func attachPrograms() (end func() error, err error) {
	programs, err := probe.Open(probe.Options{})
	if err != nil {
		return nil, err
	}
	return programs.Close, nil
}

// subscribeIn returns a function that subscribes to the destroy notifications of the
// network namespace of a process, with portwatcher's filter, which lets none of a
// connection pass: nobody has to read. The caller closes the namespace when it is done.
func subscribeIn(pid int) (subscribe func() (end func() error, err error), closeNamespace func() error, err error) {
	namespace, err := netns.Open("/proc", pid)
	if err != nil {
		return nil, nil, err
	}
	subscribe = func() (func() error, error) {
		listener, err := sockdiag.Listen(namespace.FD(), 0)
		if err != nil {
			return nil, err
		}
		return listener.Close, nil
	}
	return subscribe, namespace.Close, nil
}

// A pairSample is the CPU time of the kernel's workers of pairCPU at a moment.
type pairSample struct {
	at      time.Time
	workers time.Duration
}

// pairSpans are the spans in turn: without, with, without, and so on.
type pairSpans [][2]pairSample

// measurePairs attaches and detaches what watches again and again under one load. Spans
// that follow one another so soon meet the same machine: their ratios tell a much smaller
// difference than whole turns of portwatcher do. What is the title of the progress.
func measurePairs(ctx context.Context, s *settings, st *stage, what string, attach func() (end func() error, err error)) (pairs []pair, err error) {
	length := time.Duration(s.acceptPairs+1) * (2*pairSpan + time.Second)
	load, err := startConnections(ctx, st, "--rate", fmt.Sprint(pairRate), "--for", min(length, time.Hour).String(),
		"--cpu", fmt.Sprint(pairCPU), "--report", "10ms")
	if err != nil {
		return nil, err
	}
	var spans pairSpans
	err = spans.add(ctx)
	for i := 0; err == nil && i < s.acceptPairs; i++ {
		if i%20 == 0 {
			progress("accept, %s: pair %d of %d", what, i+1, s.acceptPairs)
		}
		var end func() error
		if end, err = attach(); err == nil {
			err = errors.Join(spans.add(ctx), end())
		}
		if err == nil {
			err = spans.add(ctx)
		}
	}
	samples, stopErr := load.stop(ctx)
	if err := errors.Join(err, stopErr); err != nil {
		return nil, err
	}
	return makePairs(spans, samples)
}

// add has a span pass.
func (p *pairSpans) add(ctx context.Context) (err error) {
	if err := wait(ctx, pairSettle); err != nil {
		return err
	}
	var span [2]pairSample
	if span[0], err = readPairSample(); err != nil {
		return err
	}
	if err := wait(ctx, pairSpan); err != nil {
		return err
	}
	span[1], err = readPairSample()
	*p = append(*p, span)
	return err
}

func readPairSample() (s pairSample, err error) {
	s.workers, err = workerTime(pairCPU)
	s.at = time.Now()
	return s, err
}

// makePairs compares each span with something that watches with its two neighbours. To a
// connection's cost belongs what the kernel's workers of that CPU do: they make the
// notifications, and free the socket then. A pair of which a span had no connections, as
// on a machine that is too busy, is left out.
func makePairs(spans pairSpans, samples []connectionSample) ([]pair, error) {
	var pairs []pair
	var costs []float64
	var last error
	for _, s := range spans {
		made, err := between(samples, s[0].at, s[1].at)
		if err != nil {
			costs, last = append(costs, math.NaN()), err
			continue
		}
		workers := float64(s[1].workers-s[0].workers) * float64(made.span) / float64(s[1].at.Sub(s[0].at))
		costs = append(costs, (float64(made.Server+made.Client)+workers)/1e9/float64(made.Connections))
	}
	for i := 1; i+1 < len(costs); i += 2 {
		p := pair{with: costs[i], without: (costs[i-1] + costs[i+1]) / 2}
		if !math.IsNaN(p.with) && !math.IsNaN(p.without) {
			pairs = append(pairs, p)
		}
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("there is no pair of spans with connections: %w", last)
	}
	return pairs, nil
}

// added returns by which share what watches raises the cost: the median of the pairs'
// ratios less one, and an interval that holds the true median with a probability of 95 %.
func added(pairs []pair) (share, low, high float64) {
	return middle(pairs, func(p pair) float64 { return p.with/p.without - 1 })
}

// addedTime is [added] in CPU seconds of a connection.
func addedTime(pairs []pair) (seconds, low, high float64) {
	return middle(pairs, func(p pair) float64 { return p.with - p.without })
}

// middle returns the median, and its interval by the order statistics of the binomial
// distribution.
func middle(pairs []pair, value func(pair) float64) (mid, low, high float64) {
	var values []float64
	for _, p := range pairs {
		values = append(values, value(p))
	}
	slices.Sort(values)
	n := float64(len(values))
	reach := 1.96 * math.Sqrt(n) / 2
	at := func(rank float64) float64 {
		return values[min(max(int(math.Round(rank)), 0), len(values)-1)]
	}
	return median(values), at(n/2 - reach - 1), at(n/2 + reach)
}
