package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// runVerify runs one workload in a container and compares what it did, from its
// own facts, with what portwatcher recorded and logged. It prints one line:
// "PASS" with what was compared, or "FAIL" with what is missing or wrong; a FAIL
// is an error.
func runVerify(ctx context.Context, args []string, _ *recorder) error {
	set := newFlags("verify-suite")
	docker := set.String("docker", "docker", "the Docker command")
	watcher := set.String("portwatcher", "", "name or id of portwatcher's container")
	target := set.String("container", "", "name of the container to run the workload in")
	name := set.String("name", "", "what the line calls this check")
	limit := set.span("wait", 10*time.Second, "how long to wait for the reports")
	settle := set.span("settle", time.Second, "how long to wait then for reports that should not come")
	end := set.Bool("kill-port", false, "end the workload by kill-port, once its opening is reported")
	workload := set.String("run", "", "workload command with its flags, separated by blanks")
	if err := set.parse(args); err != nil {
		return err
	}
	for flag, value := range map[string]string{"portwatcher": *watcher, "container": *target, "run": *workload} {
		if value == "" {
			return usagef("--%s: must be given", flag)
		}
	}
	v := &verification{docker: dockerCommand(*docker), watcher: *watcher, target: *target, limit: *limit, settle: *settle}
	result, err := v.check(ctx, strings.Fields(*workload), *end)
	if err != nil {
		fmt.Printf("FAIL  %s: %v\n", *name, err)
		return fmt.Errorf("%s: %w", *name, err)
	}
	if problems := result.problems(*limit); len(problems) > 0 {
		fmt.Printf("FAIL  %s: %s\n", *name, shorten(problems))
		return fmt.Errorf("%s: %d reports are missing or wrong; see `docker logs %s`", *name, len(problems), *watcher)
	}
	fmt.Printf("PASS  %s: %s%s\n", *name, result, v.remark)
	return nil
}

// problems lists what is wrong, and what has not come within limit.
func (c *comparison) problems(limit time.Duration) []string {
	problems := slices.Clone(c.wrong)
	for _, m := range c.missing {
		problems = append(problems, fmt.Sprintf("%s is not reported within %v", m, limit))
	}
	return problems
}

// mostProblems are named; the others are counted.
const mostProblems = 5

func shorten(problems []string) string {
	text := strings.Join(problems[:min(len(problems), mostProblems)], "; ")
	if more := len(problems) - mostProblems; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// A verification is one workload and what it is compared with.
type verification struct {
	docker          dockerCommand
	watcher, target string
	limit, settle   time.Duration
	since           time.Time
	remark          string // about how the check was run
}

// check runs the workload and compares.
func (v *verification) check(ctx context.Context, workload []string, kill bool) (*comparison, error) {
	source, err := v.source(ctx)
	if err != nil {
		return nil, err
	}
	if source == model.SourceProc {
		var held bool
		if workload, held = holdLonger(workload); held {
			v.remark = fmt.Sprintf("; held for %v, since by /proc shorter ones are not seen", procHold)
		}
	}
	v.since = time.Now()
	if kill {
		return v.checkKill(ctx, workload)
	}
	facts, err := v.docker.workload(ctx, v.target, workload, nil)
	if err != nil {
		return nil, err
	}
	if len(changes(facts)) == 0 {
		return nil, fmt.Errorf("the workload %v opened no port", workload)
	}
	return v.await(ctx, facts, v.settle)
}

// checkKill starts the workload, waits for its openings to be reported, ends
// it by kill-port, and waits for the closings.
func (v *verification) checkKill(ctx context.Context, workload []string) (*comparison, error) {
	type result struct {
		facts []fact
		err   error
	}
	ended := make(chan result, 1)
	started := make(chan fact, 1)
	go func() {
		facts, err := v.docker.workload(ctx, v.target, workload, started)
		ended <- result{facts, err}
	}()
	var opened fact
	select {
	case opened = <-started:
	case r := <-ended:
		return nil, errors.Join(fmt.Errorf("the workload %v ended before it was killed", workload), r.err)
	}
	first, err := v.await(ctx, []fact{opened}, 0)
	_, killErr := v.docker.workload(ctx, v.target, []string{"kill-port", "--protocol", opened.Protocol, "--port", fmt.Sprint(opened.Port)}, nil)
	r := <-ended
	if err = errors.Join(err, killErr, r.err); err != nil || len(first.problems(v.limit)) > 0 {
		return first, err
	}
	return v.await(ctx, r.facts, v.settle)
}

// await compares until every report is there, or time is over; then once more
// after settle, for what came too often.
func (v *verification) await(ctx context.Context, facts []fact, settle time.Duration) (*comparison, error) {
	t := &truth{container: v.target, facts: facts}
	var err error
	if t.exposure, err = v.docker.exposure(ctx, v.target); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(v.limit)
	for {
		c, err := v.compare(ctx, t)
		if err != nil {
			return nil, err
		}
		wait := 200 * time.Millisecond
		if len(c.missing) == 0 || time.Now().After(deadline) {
			if wait = settle; settle == 0 {
				return c, nil
			}
			settle = 0
		}
		if !pause(ctx, wait) {
			return nil, ctx.Err()
		}
	}
}

// compare reads what there is now and compares.
func (v *verification) compare(ctx context.Context, t *truth) (*comparison, error) {
	var err error
	if t.others, err = v.docker.ownPorts(ctx, v.target, v.since); err != nil {
		return nil, err
	}
	events, err := v.docker.events(ctx, v.watcher, v.since)
	if err != nil {
		return nil, err
	}
	log, err := v.docker.log(ctx, v.watcher, v.target, v.since)
	if err != nil {
		return nil, err
	}
	c := compare(t, events)
	c.compareLog(t, log, events)
	return c, nil
}

// procHold is how long a port is held at least where only /proc tells of it:
// longer than the time between two looks, 1 s by default.
const procHold = 1500 * time.Millisecond

// source returns what the running portwatcher learns of ports from, as its
// latest events say. Where there are none yet, a port is opened for one.
func (v *verification) source(ctx context.Context) (model.Source, error) {
	since, err := v.docker.started(ctx, v.watcher)
	if err != nil {
		return "", err
	}
	// Not more than can be read at once.
	if recent := time.Now().Add(-10 * time.Minute); since.Before(recent) {
		since = recent
	}
	events, err := v.docker.events(ctx, v.watcher, since)
	if err != nil {
		return "", err
	}
	if s := latestSource(events); s != "" {
		return s, nil
	}
	hold := []string{"transient", "--port", "0", "--hold", procHold.String()}
	if _, err := v.docker.workload(ctx, v.target, hold, nil); err != nil {
		return "", err
	}
	deadline := time.Now().Add(v.limit)
	for {
		events, err := v.docker.events(ctx, v.watcher, since)
		if err != nil {
			return "", err
		}
		if s := latestSource(events); s != "" {
			return s, nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("%s reported nothing of a port that %s had open for %v: is it watched?", v.watcher, v.target, procHold)
		}
		if !pause(ctx, 200*time.Millisecond) {
			return "", ctx.Err()
		}
	}
}

// latestSource leaves out what tells nothing of the capture.
func latestSource(events []*model.Event) model.Source {
	for _, e := range slices.Backward(events) {
		switch e.Source {
		case model.SourceEBPF, model.SourceSockDiag, model.SourceDestroy, model.SourceProc:
			return e.Source
		}
	}
	return ""
}

// holdLonger makes a workload hold its ports for at least procHold, and says
// whether it did not.
func holdLonger(workload []string) (_ []string, changed bool) {
	workload = slices.Clone(workload)
	for i := range len(workload) - 1 {
		if flag := workload[i]; flag != "--hold" && flag != "--for" {
			continue
		}
		if d, err := time.ParseDuration(workload[i+1]); err == nil && d < procHold {
			workload[i+1], changed = procHold.String(), true
		}
	}
	return workload, changed
}
