package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// runVerify runs one workload in a container and compares what it did, from
// its own facts, with what portwatcher's container logged. It prints one line,
// "PASS" or "FAIL" with what is missing; a FAIL is an error.
func runVerify(ctx context.Context, args []string, _ *recorder) error {
	set := newFlags("verify-suite")
	docker := set.String("docker", "docker", "the Docker command")
	watcher := set.String("portwatcher", "", "name or id of portwatcher's container")
	target := set.String("container", "", "name of the container to run the workload in")
	name := set.String("name", "", "what the line calls this check")
	limit := set.span("wait", 10*time.Second, "how long to wait for the reports")
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
	v := &verification{docker: *docker, watcher: *watcher, target: *target, limit: *limit, since: time.Now()}
	missing, err := v.check(ctx, strings.Fields(*workload), *end)
	if err != nil {
		fmt.Printf("FAIL  %s: %v\n", *name, err)
		return fmt.Errorf("%s: %w", *name, err)
	}
	if len(missing) > 0 {
		fmt.Printf("FAIL  %s: not reported within %v: %s\n", *name, *limit, strings.Join(missing, ", "))
		return fmt.Errorf("%s: %d reports missing; see `docker logs %s`", *name, len(missing), *watcher)
	}
	fmt.Printf("PASS  %s\n", *name)
	return nil
}

// A verification is one workload and the log it is compared with.
type verification struct {
	docker, watcher, target string
	limit                   time.Duration
	since                   time.Time
}

// check returns the reports that should have come and did not.
func (v *verification) check(ctx context.Context, workload []string, kill bool) ([]string, error) {
	if kill {
		return v.checkKill(ctx, workload)
	}
	facts, err := v.exec(ctx, workload)
	if err != nil {
		return nil, err
	}
	want := expected(facts)
	if len(want) == 0 {
		return nil, fmt.Errorf("the workload %v opened no port", workload)
	}
	return v.await(ctx, want)
}

// checkKill starts the workload, waits for its openings to be reported, ends
// it by kill-port, and waits for the closings.
func (v *verification) checkKill(ctx context.Context, workload []string) ([]string, error) {
	type result struct {
		facts []fact
		err   error
	}
	ended := make(chan result, 1)
	started := &firstLine{line: make(chan fact, 1)}
	go func() {
		facts, err := v.execTo(ctx, workload, started)
		ended <- result{facts, err}
	}()
	var opened fact
	select {
	case opened = <-started.line:
	case r := <-ended:
		return nil, fmt.Errorf("the workload %v ended before it was killed: %w", workload, r.err)
	}
	missing, err := v.await(ctx, expected([]fact{opened}))
	_, killErr := v.exec(ctx, []string{"kill-port", "--protocol", opened.Protocol, "--port", fmt.Sprint(opened.Port)})
	r := <-ended
	if err = errors.Join(err, killErr, r.err); err != nil || len(missing) > 0 {
		return missing, err
	}
	return v.await(ctx, expected(r.facts))
}

// await reads the log until it holds every wanted report, or time is over.
func (v *verification) await(ctx context.Context, want map[report]bool) ([]string, error) {
	deadline := time.Now().Add(v.limit)
	for {
		seen, err := v.reports(ctx)
		if err != nil {
			return nil, err
		}
		missing := absent(want, seen)
		if len(missing) == 0 || time.Now().After(deadline) {
			return missing, nil
		}
		if !pause(ctx, 200*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
}

// reports reads portwatcher's standard output since the check began.
func (v *verification) reports(ctx context.Context) (map[report]bool, error) {
	cmd := exec.CommandContext(ctx, v.docker, "logs", "--since", v.since.UTC().Format(time.RFC3339Nano), v.watcher)
	var stderr bytes.Buffer // portwatcher's own log: of use only if this fails
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read the log of %s: %w: %s", v.watcher, err, strings.TrimSpace(stderr.String()))
	}
	return parseReports(bytes.NewReader(out), v.target)
}

func (v *verification) exec(ctx context.Context, workload []string) ([]fact, error) {
	return v.execTo(ctx, workload, nil)
}

// execTo runs the workload in the container, and returns its facts at its end.
func (v *verification) execTo(ctx context.Context, workload []string, first *firstLine) ([]fact, error) {
	cmd := exec.CommandContext(ctx, v.docker, append([]string{"exec", v.target, "/workload"}, workload...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if first != nil {
		first.all = &out
		cmd.Stdout = first
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run workload %v in %s: %w", workload, v.target, err)
	}
	return parseFacts(out.Bytes())
}

// A firstLine keeps what is written to it, and hands the first fact on.
type firstLine struct {
	all  *bytes.Buffer
	line chan fact // buffered: one fact
	done bool
}

func (w *firstLine) Write(p []byte) (int, error) {
	n, err := w.all.Write(p)
	if end := bytes.IndexByte(w.all.Bytes(), '\n'); !w.done && end >= 0 {
		facts, parseErr := parseFacts(w.all.Bytes()[:end+1])
		if parseErr != nil {
			return n, parseErr
		}
		w.line <- facts[0]
		w.done = true
	}
	return n, err
}

func parseFacts(lines []byte) ([]fact, error) {
	var facts []fact
	for line := range bytes.Lines(lines) {
		var f fact
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, fmt.Errorf("read the workload's line %q: %w", line, err)
		}
		facts = append(facts, f)
	}
	return facts, nil
}
