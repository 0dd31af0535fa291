package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	outputRounds = 3
	outputPorts  = 600 // of each round
	// aimOutput is how much later a line may be with the server than without.
	aimOutput = 1.25
)

// outputDelays are the delays to standard output.
type outputDelays struct {
	without, with       []time.Duration
	withoutCPU, withCPU []time.Duration // for each event, one a round
}

// measure compares portwatcher with its server, which nobody asks, with one
// without, by turns.
func (o *outputDelays) measure(ctx context.Context, st *stage) error {
	for range outputRounds {
		for _, server := range []bool{false, true} {
			times, cost, err := printDelays(ctx, st, server)
			if err != nil {
				return err
			}
			if server {
				o.with, o.withCPU = append(o.with, times...), append(o.withCPU, cost)
			} else {
				o.without, o.withoutCPU = append(o.without, times...), append(o.withoutCPU, cost)
			}
		}
	}
	return nil
}

func printDelays(ctx context.Context, st *stage, server bool) (times []time.Duration, cost time.Duration, err error) {
	w, _, err := serve(ctx, st, sourceEBPF, server)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		_, stopErr := w.stop()
		err = errors.Join(err, stopErr)
	}()
	measured, err := measureProtocol(ctx, st, w, "tcp", outputPorts)
	if err != nil {
		return nil, 0, err
	}
	for _, d := range measured {
		times, cost = append(times, d.times...), d.cost
	}
	if len(times) == 0 {
		return nil, 0, errors.New("portwatcher has told of nothing")
	}
	return times, cost, nil
}

func (o *outputDelays) table() table {
	const wanted = 2 * outputPorts * outputRounds
	row := func(name string, times, cost []time.Duration) []string {
		return []string{name, showTime(quantile(times, 0.5)), showTime(quantile(times, 0.99)), showTime(quantile(times, 1)),
			showShare(len(times), wanted), showTime(median(cost))}
	}
	ratio := func(q float64) string {
		return showRatio(float64(quantile(o.with, q)) / float64(quantile(o.without, q)))
	}
	return table{
		title:   "What the server adds to the way to standard output",
		columns: []string{"portwatcher", "p50", "p99", "slowest", "told of", "CPU an event"},
		rows: [][]string{
			row("without --listen", o.without, o.withoutCPU), row("with --listen", o.with, o.withCPU),
			{"ratio", ratio(0.5), ratio(0.99), ratio(1), "", showRatio(float64(median(o.withCPU)) / float64(median(o.withoutCPU)))},
		},
		notes: []string{fmt.Sprintf("From the workload's call to the line on standard output, opened and closed, %d TCP ports a round, one each %v, by eBPF; "+
			"%d rounds of each by turns. Nobody asks the server meanwhile.", outputPorts, latencyInterval, outputRounds)},
	}
}
