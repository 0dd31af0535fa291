package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/browser"
)

const (
	// browserPorts open and close far enough from each other that each event
	// comes alone: the page draws once in 100 ms at most.
	browserPorts    = 150
	browserHold     = 170 * time.Millisecond
	browserInterval = 370 * time.Millisecond
	// browserClock is how far the browser's clock may be from this program's.
	browserClock = time.Millisecond

	aimBrowser = 50 * time.Millisecond
)

// browserScript notes when events arrive and when they are drawn.
//
//go:embed web_browser.js
var browserScript string

// browserDelays are the delays from the workload's call to three places.
type browserDelays struct {
	beside                  string // what portwatcher watches
	done                    int    // by the workload
	printed, arrived, drawn []time.Duration
}

// measureBrowser opens and closes ports while a browser shows the page.
func (n *webNumbers) measureBrowser(ctx context.Context, st *stage, beside string) (err error) {
	chromium, err := startBrowser(ctx)
	if err != nil {
		return err
	}
	defer chromium.Close()
	w, address, err := serve(ctx, st, sourceEBPF, true)
	if err != nil {
		return err
	}
	defer func() {
		_, stopErr := w.stop()
		err = errors.Join(err, stopErr)
	}()
	tab, err := chromium.Open(browserScript)
	if err != nil {
		return err
	}
	const ready = `document.querySelector('#connection')?.dataset.state === 'live' && document.querySelector('main').ariaBusy === 'false'`
	if err := errors.Join(tab.Visit("http://"+address+"/", ready), tab.Wait("bench.observing")); err != nil {
		return err
	}
	if err := compareClocks(tab); err != nil {
		return err
	}
	seen := &arrivals{}
	w.observe(seen.add)
	output, err := st.exec(ctx, "burst", "--base-port", strconv.Itoa(latencyPort), "--count", strconv.Itoa(browserPorts),
		"--hold", browserHold.String(), "--interval", browserInterval.String())
	if err != nil {
		return err
	}
	facts, err := readFacts(output)
	if err != nil {
		return err
	}
	lines, err := seen.await(ctx, 2*browserPorts)
	if err != nil {
		return err
	}
	printed, err := firstArrivals(lines)
	if err != nil {
		return err
	}
	arrived, drawn, err := readPage(ctx, tab, len(printed))
	if err != nil {
		return err
	}
	if err := compareClocks(tab); err != nil {
		return err
	}
	if problems := tab.Problems(); len(problems) > 0 {
		return fmt.Errorf("the page reported errors: %q", problems)
	}
	n.browser = append(n.browser, browserDelays{
		beside: beside, done: len(facts), printed: delaysOf(facts, printed), arrived: delaysOf(facts, arrived), drawn: delaysOf(facts, drawn),
	})
	return nil
}

// compareClocks returns an error where the browser's clock is not the host's.
func compareClocks(tab *browser.Tab) error {
	var worst time.Duration
	for range 50 {
		before := time.Now()
		milliseconds, err := browser.Eval[float64](tab, "performance.timeOrigin + performance.now()")
		if err != nil {
			return err
		}
		after := time.Now()
		at := time.UnixMicro(int64(milliseconds * 1000))
		outside := max(before.Sub(at), at.Sub(after))
		if outside <= browserClock {
			return nil
		}
		worst = max(worst, outside)
	}
	return fmt.Errorf("the browser's clock and this program's are %v apart: its delays would say nothing", worst)
}

// noted is an event as the page's script notes it: type, protocol, port and
// milliseconds since 1970.
type noted struct {
	Type, Protocol string
	Port           uint16
	At             float64
}

// readPage returns when events arrived in the page and were drawn, once there
// are as many as were printed, or no more come.
func readPage(ctx context.Context, tab *browser.Tab, printed int) (arrived, drawn map[change]time.Time, err error) {
	// What is missing is reported as not told of.
	var missing error
	err = until(ctx, latencyQuiet, func() error {
		// The page draws events of before, too.
		count, err := browser.Eval[int](tab, fmt.Sprintf("bench.drawn.filter(({ port }) => port >= %d).length", latencyPort))
		if err == nil && count < printed {
			err = fmt.Errorf("%d of %d events are drawn", count, printed)
		}
		missing = err
		return err
	})
	if ctx.Err() != nil {
		return nil, nil, err
	}
	if missing != nil {
		progress("web: %v", missing)
	}
	read := func(list string) (map[change]time.Time, error) {
		all, err := browser.Eval[[]noted](tab, "bench."+list)
		times := map[change]time.Time{}
		for _, one := range all {
			c := change{model.Type(one.Type), one.Protocol, one.Port}
			if _, known := times[c]; !known {
				times[c] = time.UnixMicro(int64(one.At * 1000))
			}
		}
		return times, err
	}
	if arrived, err = read("arrived"); err != nil {
		return nil, nil, err
	}
	drawn, err = read("drawn")
	return arrived, drawn, err
}

// delaysOf returns the delays of those facts that were told of.
func delaysOf(facts []fact, told map[change]time.Time) []time.Duration {
	var times []time.Duration
	for _, kind := range []model.Type{model.Opened, model.Closed} {
		d := delays{protocol: "tcp", kind: kind}
		d.add(facts, told)
		times = append(times, d.times...)
	}
	return times
}
