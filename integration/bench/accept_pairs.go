package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"portwatcher/internal/probe"
)

const (
	// pairSpan is one span of the load, with the programs attached or without
	// them; pairSettle passes after each change.
	pairSpan   = 200 * time.Millisecond
	pairSettle = 50 * time.Millisecond
	// pairCPU is the CPU that server and client share, so that neither a wake-up
	// of the other one nor a move to it is measured.
	pairCPU = 0
	// pairRate leaves that CPU some time to rest.
	pairRate = acceptRate / 2
)

// A pair is what a connection costs server and client with the programs
// attached, and right before and after without them, in CPU seconds.
type pair struct{ with, without float64 }

// measurePairs attaches and detaches the eBPF programs again and again under one
// load. Spans that follow one another so soon meet the same machine: their
// ratios tell a much smaller difference than whole turns of portwatcher do.
func measurePairs(ctx context.Context, s *settings, st *stage) (pairs []pair, err error) {
	length := time.Duration(s.acceptPairs+1) * (2*pairSpan + time.Second)
	load, err := startConnections(ctx, st, "--rate", fmt.Sprint(pairRate), "--for", min(length, time.Hour).String(),
		"--cpu", fmt.Sprint(pairCPU), "--report", "10ms")
	if err != nil {
		return nil, err
	}
	var spans [][2]time.Time // without, with, without, ...
	span := func() error {
		if err := wait(ctx, pairSettle); err != nil {
			return err
		}
		begin := time.Now()
		err := wait(ctx, pairSpan)
		spans = append(spans, [2]time.Time{begin, time.Now()})
		return err
	}
	err = span()
	for i := 0; err == nil && i < s.acceptPairs; i++ {
		if i%20 == 0 {
			progress("accept: pair %d of %d", i+1, s.acceptPairs)
		}
		var programs *probe.Probe
		if programs, err = probe.Open(probe.Options{}); err == nil {
			err = errors.Join(span(), programs.Close())
		}
		if err == nil {
			err = span()
		}
	}
	samples, stopErr := load.stop(ctx)
	if err := errors.Join(err, stopErr); err != nil {
		return nil, err
	}
	return makePairs(spans, samples)
}

// makePairs compares each span with the programs with its two neighbours.
func makePairs(spans [][2]time.Time, samples []connectionSample) ([]pair, error) {
	var pairs []pair
	var costs []float64
	for _, s := range spans {
		made, err := between(samples, s[0], s[1])
		if err != nil {
			return nil, err
		}
		costs = append(costs, float64(made.Server+made.Client)/1e9/float64(made.Connections))
	}
	for i := 1; i+1 < len(costs); i += 2 {
		pairs = append(pairs, pair{with: costs[i], without: (costs[i-1] + costs[i+1]) / 2})
	}
	return pairs, nil
}

// added returns by which share the programs raise the cost: the median of the
// pairs' ratios less one, and an interval that holds the true median with a
// probability of 95 %, by the order statistics of the binomial distribution.
func added(pairs []pair) (share, low, high float64) {
	var ratios []float64
	for _, p := range pairs {
		ratios = append(ratios, p.with/p.without-1)
	}
	slices.Sort(ratios)
	n := float64(len(ratios))
	reach := 1.96 * math.Sqrt(n) / 2
	at := func(rank float64) float64 {
		return ratios[min(max(int(math.Round(rank)), 0), len(ratios)-1)]
	}
	return median(ratios), at(n/2 - reach - 1), at(n/2 + reach)
}
