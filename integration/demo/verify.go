package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// suite are the loads that verifySuite runs, in this order.
var suite = []string{"test-http", "test-udp", "test-tcp-burst", "test-udp-burst", "test-tcp-transient", "test-udp-transient", "kill-port"}

const (
	// verifyTime bounds the wait for the reports. settleTime passes then, for reports that
	// should not come.
	verifyTime = 10 * time.Second
	settleTime = time.Second
	// procHold is how long a port is held at least where only /proc is read: longer than the
	// default scan interval.
	procHold = 1500 * time.Millisecond
)

// verifySuite runs each load and compares its facts with what portwatcher recorded and
// printed. It prints a line for each, which begins with PASS or FAIL.
func (d *demo) verifySuite(ctx context.Context, source model.Source) error {
	remark := ""
	if source == model.SourceProc && d.settings.hold < procHold {
		d.settings.hold = procHold
		remark = fmt.Sprintf("; held for %v, since /proc alone does not show shorter ones", procHold)
	}
	failed := 0
	for _, name := range suite {
		v := &verification{demo: d, load: d.settings.loads(true)[name], limit: verifyTime, settle: settleTime}
		result, err := v.check(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			failed++
			fmt.Printf("FAIL  %s: %v\n", name, err)
		case len(result.Problems) > 0:
			failed++
			fmt.Printf("FAIL  %s: %s\n", name, shorten(result.Problems))
		default:
			fmt.Printf("PASS  %s: %s%s\n", name, describe(result), remark)
		}
	}
	if failed > 0 {
		return fmt.Errorf("verify-suite: %d of %d failed; portwatcher's own log: make logs FOLLOW=0", failed, len(suite))
	}
	fmt.Printf("verify-suite: %d of %d passed\n", len(suite), len(suite))
	return nil
}

func describe(r *truth.Result) string {
	var sources []string
	for _, s := range r.Sources {
		sources = append(sources, string(s))
	}
	return fmt.Sprintf("%d reports by %s, each once, in order, of the right container and in the log; process right in %d, "+
		"exposure in %d; nothing else reported", r.Reports, strings.Join(sources, ", "), r.Processes, r.Exposures)
}

// shorten names the first problems and counts the others.
func shorten(problems []truth.Problem) string {
	const most = 5
	var texts []string
	for _, p := range problems[:min(len(problems), most)] {
		texts = append(texts, p.String())
	}
	if more := len(problems) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

// A verification is one load and what it is compared with.
type verification struct {
	*demo
	load          load
	limit, settle time.Duration
	since         time.Time
}

// check runs the workload and compares.
func (v *verification) check(ctx context.Context) (*truth.Result, error) {
	v.since = time.Now()
	if v.load.kill {
		return v.checkKill(ctx)
	}
	output, err := v.engine.Run(ctx, v.exec(v.load.arguments)...)
	if err != nil {
		return nil, err
	}
	facts, err := truth.ReadFacts(output)
	if err == nil && len(truth.Changes(facts)) == 0 {
		err = fmt.Errorf("the workload %v opened no port", v.load.arguments)
	}
	if err != nil {
		return nil, err
	}
	return v.await(ctx, facts, v.settle)
}

// checkKill starts the workload, waits for its opening to be reported, ends it by
// kill-port, and waits for the closing.
func (v *verification) checkKill(ctx context.Context) (*truth.Result, error) {
	output := &firstLine{line: make(chan string, 1)}
	command := v.engine.Command(ctx, v.exec(v.load.arguments)...)
	command.Stdout, command.Stderr = output, os.Stderr
	if err := command.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	var opened []truth.Fact
	var err error
	select {
	case line := <-output.line:
		opened, err = truth.ReadFacts(line)
	case err = <-ended:
		return nil, errors.Join(fmt.Errorf("the workload %v ended before it was killed", v.load.arguments), err)
	}
	var first *truth.Result
	if err == nil {
		first, err = v.await(ctx, opened, 0)
	}
	_, killErr := v.engine.Run(ctx, v.exec([]string{"kill-port", "--port", fmt.Sprint(v.load.first)})...)
	if err = errors.Join(err, killErr, <-ended); err != nil || len(first.Problems) > 0 {
		return first, err
	}
	facts, err := truth.ReadFacts(output.all.String())
	if err != nil {
		return nil, err
	}
	return v.await(ctx, facts, v.settle)
}

// firstLine keeps what is written to it, and sends its first line.
type firstLine struct {
	all  bytes.Buffer
	line chan string // has room for one
	sent bool
}

func (w *firstLine) Write(p []byte) (int, error) {
	n, err := w.all.Write(p)
	if line, _, whole := strings.Cut(w.all.String(), "\n"); whole && !w.sent {
		w.sent = true
		w.line <- line
	}
	return n, err
}

// await compares until every report is there, or time is over; then again after settle, for
// what came too often.
func (v *verification) await(ctx context.Context, facts []truth.Fact, settle time.Duration) (*truth.Result, error) {
	networking, err := v.networking(ctx)
	if err != nil {
		return nil, err
	}
	c := &truth.Case{Container: v.container, Facts: facts, Precision: truth.Complete, Exposure: networking.exposure}
	for deadline := time.Now().Add(v.limit); ; {
		result, err := v.compare(ctx, c)
		if err != nil {
			return nil, err
		}
		pause := pollTime
		if !result.Missing() || time.Now().After(deadline) {
			if pause = settle; settle == 0 {
				return result, nil
			}
			settle = 0
		}
		if err := wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// compare reads what there is now and compares.
func (v *verification) compare(ctx context.Context, c *truth.Case) (*truth.Result, error) {
	events, err := v.events(ctx, v.since)
	if err != nil {
		return nil, err
	}
	log, err := v.log(ctx, v.since)
	if err != nil {
		return nil, err
	}
	// After the events: a port that the demo opens meanwhile is among its own.
	own, err := v.ownPorts(ctx, v.since)
	if err != nil {
		return nil, err
	}
	c.Ignore = func(at model.Endpoint) bool { return own[numbered{at.Protocol, at.Port}] }
	result := c.Compare(events)
	result.Problems = append(result.Problems, compareLog(c.Facts, log, events, v.container)...)
	return result, nil
}

// source returns what the running portwatcher reads ports from, as its latest events name
// it. Where there are none, a port is opened for one.
func (d *demo) source(ctx context.Context) (model.Source, error) {
	since, err := d.started(ctx)
	if err != nil {
		return "", err
	}
	// Not more than can be read at once.
	if recent := time.Now().Add(-10 * time.Minute); since.Before(recent) {
		since = recent
	}
	opened := false
	for deadline := time.Now().Add(verifyTime); ; {
		events, err := d.events(ctx, since)
		if err != nil {
			return "", err
		}
		if s := latestSource(events); s != "" {
			return s, nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("%s reported nothing of a port that %s had open for %v: is it watched?", d.watcher, d.container, procHold)
		}
		if !opened {
			opened = true
			if _, err := d.engine.Run(ctx, d.exec([]string{"transient", "--port", "0", "--hold", procHold.String()})...); err != nil {
				return "", err
			}
		}
		if err := wait(ctx, pollTime); err != nil {
			return "", err
		}
	}
}

// latestSource ignores sources that are not of the capture.
func latestSource(events []truth.Event) model.Source {
	for _, e := range slices.Backward(events) {
		switch e.Source {
		case model.SourceEBPF, model.SourceSockDiag, model.SourceDestroy, model.SourceProc:
			return e.Source
		}
	}
	return ""
}
