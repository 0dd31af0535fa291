package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"portwatcher/internal/netns"
	"portwatcher/internal/probe"
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/testutil/truth"
)

// connectionsPatience bounds the wait for the first connections.
const connectionsPatience = 10 * time.Second

// connectionsPort is that of `workload connections`.
const connectionsPort = "22000"

// A connectionSample is a line of `workload connections`: what was done so far.
type connectionSample struct {
	Time        time.Time `json:"time"`
	Connections int64     `json:"connections"`
	Server      int64     `json:"server"` // CPU nanoseconds
	Client      int64     `json:"client"`
}

// connectionLoad is `workload connections` at work in a container.
type connectionLoad struct {
	stage   *stage
	process *exec.Cmd
	read    chan error
	mutex   sync.Mutex
	samples []connectionSample
}

// startConnections returns when connections are made. The caller stops it.
func startConnections(ctx context.Context, st *stage, arguments ...string) (*connectionLoad, error) {
	l := &connectionLoad{stage: st, read: make(chan error, 1)}
	l.process = st.engine.Command(context.Background(), append([]string{"exec", st.ids[0], truth.WorkloadPath, "connections"}, arguments...)...)
	l.process.Stderr = os.Stderr
	output, err := l.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.process.Start(); err != nil {
		return nil, err
	}
	go func() { l.read <- l.follow(bufio.NewScanner(output)) }()
	for deadline := time.Now().Add(connectionsPatience); ; {
		if l.made() > 0 {
			return l, nil
		}
		err := wait(ctx, 10*time.Millisecond)
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("no connection was made in %v", connectionsPatience)
		}
		if err != nil {
			_, stopErr := l.stop(ctx)
			return nil, errors.Join(err, stopErr)
		}
	}
}

func (l *connectionLoad) follow(lines *bufio.Scanner) error {
	for lines.Scan() {
		var s connectionSample
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return fmt.Errorf("line %q of the connections: %w", lines.Bytes(), err)
		}
		l.mutex.Lock()
		l.samples = append(l.samples, s)
		l.mutex.Unlock()
	}
	return lines.Err()
}

func (l *connectionLoad) made() int64 {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.samples) == 0 {
		return 0
	}
	return l.samples[len(l.samples)-1].Connections
}

// stop ends the program and returns all samples. Where it cannot be ended, as
// after an interrupt, the removal of the container does it.
func (l *connectionLoad) stop(ctx context.Context) ([]connectionSample, error) {
	_, err := l.stage.exec(ctx, l.stage.ids[0], "kill-port", "--port", connectionsPort)
	if err != nil {
		_ = l.process.Process.Kill() // it may have ended already
	}
	err = errors.Join(err, <-l.read)
	_ = l.process.Wait() // the status of a program that was ended means nothing
	return l.samples, err
}

// A connectionSpan is what was done in a span of time.
type connectionSpan struct {
	connectionSample
	span time.Duration
}

// between returns what was done between the first and the last sample of a
// span of time.
func between(samples []connectionSample, begin, end time.Time) (connectionSpan, error) {
	var first, last connectionSample
	for _, s := range samples {
		if s.Time.Before(begin) || s.Time.After(end) {
			continue
		}
		if last = s; first.Time.IsZero() {
			first = s
		}
	}
	d := connectionSpan{
		connectionSample{Connections: last.Connections - first.Connections, Server: last.Server - first.Server, Client: last.Client - first.Client},
		last.Time.Sub(first.Time),
	}
	if d.Connections <= 0 || d.span <= 0 {
		return d, fmt.Errorf("no connections between %v and %v", begin, end)
	}
	return d, nil
}

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
// connection pass: there is nothing to read. The caller closes the namespace when it is done.
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
// that follow one another so soon meet the same machine: their ratios show a much smaller
// difference than those of whole turns of portwatcher do. What is the title of the progress.
func measurePairs(ctx context.Context, s *settings, st *stage, what string, attach func() (end func() error, err error)) (pairs []pair, err error) {
	length := time.Duration(s.acceptPairs+1) * (2*pairSpan + time.Second)
	load, err := startConnections(ctx, st, "--rate", fmt.Sprint(pairRate), "--for", min(length, time.Hour).String(),
		"--cpu", fmt.Sprint(pairCPU), "--report-ms", "10")
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

// add waits for one span, and appends its samples.
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
