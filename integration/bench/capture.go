package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// memoryPatience bounds the wait for the resident memory to fall.
	memoryPatience = time.Minute
	// memoryInterval passes between two looks at it.
	memoryInterval = 20 * time.Millisecond
	// memorySettle passes between the complete list and the idle figure.
	memorySettle = 2 * time.Second
	// aimRelease bounds the resident memory after the load, in times of the idle.
	aimRelease = 1.5
)

// captured is what one way reported of the load.
type captured struct {
	way         string
	source      string // empty but for portwatcher
	perSecond   float64
	storm, held reported
	losses      int           // as many as it admits
	unnumbered  int           // gaps that do not say how many
	cpu         time.Duration // that the storm cost it
	memory      memoryUse
	ended       error  // it ended by itself meanwhile
	missing     string // why it could not be measured
}

// memoryUse is resident memory (VmRSS) in bytes.
type memoryUse struct {
	idle, highest, after int64
	back                 time.Duration // until it was under the aim, or given up
}

// runCapture measures what portwatcher and other tools catch of the same load, and
// what portwatcher does on a machine that is busy.
func runCapture(ctx context.Context, s *settings, r *report) error {
	if err := captureAlone(ctx, s, r); err != nil {
		return err
	}
	return captureBusy(ctx, s, r)
}

// captureAlone has the ways watch one container, one after another.
func captureAlone(ctx context.Context, s *settings, r *report) error {
	return onStage(ctx, s, r, newFleet("capture", 1, 1, "bridge"), func(st *stage) error {
		var all []captured
		for _, way := range captureWays() {
			progress("capture: %s", way.name)
			c, err := measureCapture(ctx, st, way, s.captureCount)
			if ctx.Err() != nil {
				return err
			}
			if err != nil {
				c = captured{way: way.name, missing: err.Error()}
				r.missing("capture, "+way.name, err.Error())
			}
			all = append(all, c)
		}
		r.add(captureTable(all, s.captureCount))
		r.add(captureAims(all, s.captureCount))
		return nil
	})
}

func measureCapture(ctx context.Context, st *stage, way captureWay, count int) (c captured, err error) {
	c.way, c.source = way.name, way.source
	t := &tally{}
	running, err := way.start(ctx, st, t)
	if err != nil {
		return c, err
	}
	stopped := false
	stop := func() error { stopped = true; return running.stop() }
	defer func() {
		if !stopped {
			err = errors.Join(err, stop())
		}
	}()
	if err := c.storms(ctx, st, running.pid, t, count); err != nil {
		return c, err
	}
	if err := hold(ctx, st, t); err != nil {
		return c, err
	}
	if c.source != "" {
		if err := c.memory.awaitRelease(ctx, running.pid); err != nil {
			return c, err
		}
	}
	if running.ended != nil {
		c.ended = running.ended()
	}
	err = stop() // what it holds back it writes now
	c.storm, c.held, c.losses = t.counts()
	c.unnumbered = t.unnumbered
	if c.source == "" { // its losses are of the whole host
		c.losses = min(c.losses, max(2*count-c.storm.opened-c.storm.closed, 0))
	}
	return c, err
}

// storms runs the load at full speed and waits until all of it is reported, or
// no more is.
func (c *captured) storms(ctx context.Context, st *stage, pid int, t *tally, count int) error {
	memory := func() error { return nil }
	var before time.Duration
	var err error
	if c.source != "" {
		if memory, err = c.memory.follow(ctx, pid); err != nil {
			return err
		}
	}
	if pid > 0 {
		if before, err = cpuTime(pid); err != nil {
			return errors.Join(err, memory())
		}
	}
	c.perSecond, err = storm(ctx, st, stormPort, count)
	if err == nil && pid > 0 {
		err = t.await(ctx, func() bool {
			storm, _, losses := t.counts()
			return storm.opened+storm.closed+storm.bursts+losses >= 2*count
		})
	}
	if err = errors.Join(err, memory()); err != nil || pid == 0 {
		return err
	}
	after, err := cpuTime(pid)
	c.cpu = after - before
	return err
}

// storm binds, listens and closes a port without pause, and returns how often
// it did so each second.
func storm(ctx context.Context, st *stage, port, count int) (perSecond float64, err error) {
	output, err := st.exec(ctx, "storm", "--port", strconv.Itoa(port), "--count", strconv.Itoa(count))
	if err != nil {
		return 0, err
	}
	facts, err := readFacts(output)
	if err != nil {
		return 0, err
	}
	if len(facts) != 1 || facts[0].Count != count {
		return 0, fmt.Errorf("the storm was to make %d cycles; it says %q", count, output)
	}
	return facts[0].PerSecond, nil
}

// hold opens some ports for 50 ms each.
func hold(ctx context.Context, st *stage, t *tally) error {
	_, err := st.exec(ctx, "burst", "--base-port", strconv.Itoa(heldPort), "--count", strconv.Itoa(heldCount), "--hold", "50ms", "--interval", "10ms")
	if err != nil {
		return err
	}
	return t.await(ctx, func() bool {
		_, held, _ := t.counts()
		return held.opened >= heldCount && held.closed >= heldCount
	})
}

// A fact is what the workload says about what it did, as far as it is used.
type fact struct {
	Action    string    `json:"action"`
	Time      time.Time `json:"time"` // right before the call
	Protocol  string    `json:"protocol"`
	Port      uint16    `json:"port"`
	Count     int       `json:"count"`
	PerSecond float64   `json:"per_second"`
}

func readFacts(output string) ([]fact, error) {
	var facts []fact
	for line := range strings.Lines(output) {
		var f fact
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			return nil, fmt.Errorf("the workload's line %q: %w", line, err)
		}
		facts = append(facts, f)
	}
	return facts, nil
}

// countFacts counts what a workload says that it opened and closed.
func countFacts(output string) (did happened, err error) {
	facts, err := readFacts(output)
	for _, f := range facts {
		switch f.Action {
		case "opened":
			did.opened++
		case "closed":
			did.closed++
		case "summary":
			did = did.plus(happened{f.Count, f.Count})
		}
	}
	return did, err
}
