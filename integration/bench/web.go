package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/browser"
)

const (
	webContainers = 100
	webPorts      = 30 // of each: 3,000 in all
)

// webNumbers are what runWeb measures.
type webNumbers struct {
	browser []browserDelays
	loads   []load
	streams []streamRun
	output  outputDelays
}

// runWeb measures what is served: how late an event is in a browser, how fast
// the API and the metrics answer, what many readers of the event stream cost,
// and what all this adds to the way to standard output.
func runWeb(ctx context.Context, s *settings, r *report) error {
	n := &webNumbers{}
	part := func(name string, measure func() error) error {
		progress("web: %s", name)
		err := measure()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.missing("web, "+name, err.Error())
		}
		return nil
	}
	err := onStage(ctx, s, r, newStage("web", 1, 1, "bridge"), func(st *stage) error {
		return errors.Join(
			part("the browser beside one container", func() error { return n.measureBrowser(ctx, st, "one container") }),
			part("standard output", func() error { return n.output.measure(ctx, st) }),
			part("the stream without readers", func() error { return n.measureStream(ctx, st, 0, 0) }),
			part("the stream with readers", func() error { return n.measureStream(ctx, st, streamFast, streamSlow) }),
		)
	})
	if err != nil {
		return err
	}
	err = onStage(ctx, s, r, newStage("web", webContainers, webPorts, "none"), func(st *stage) error {
		fleet := fmt.Sprintf("%d containers, %s ports", st.containers, showCount(st.endpoints()))
		return errors.Join(
			part("the API", func() error { return n.measureLoads(ctx, st) }),
			part("the browser beside "+fleet, func() error { return n.measureBrowser(ctx, st, fleet) }),
		)
	})
	n.report(r)
	return err
}

// serve starts portwatcher with its server at an address of the loopback. The caller stops
// it.
func (s *stage) serve(ctx context.Context, source string) (w *watcher, address string, err error) {
	if address, err = freeAddress(); err != nil {
		return nil, "", err
	}
	// The list is complete after the server has taken its address.
	w, err = s.watch(ctx, source, "--listen", address)
	return w, address, err
}

// freeAddress returns an address of the loopback on which nothing listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

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
	path, err := browser.Path()
	if err != nil {
		return err
	}
	chromium, err := browser.Start(path)
	if err != nil {
		return err
	}
	defer chromium.Close()
	w, address, err := st.serve(ctx, sourceEBPF)
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
	facts, err := st.exec(ctx, st.ids[0], "burst", "--base-port", strconv.Itoa(latencyPort), "--count", strconv.Itoa(browserPorts),
		"--hold", browserHold.String(), "--interval", browserInterval.String())
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
	return fmt.Errorf("the browser's clock and this program's are %v apart: its delays would mean nothing", worst)
}

// noted is an event as the page's script notes it: type, protocol, port and
// milliseconds since 1970.
type noted struct {
	Type     model.Type
	Protocol model.Protocol
	Port     uint16
	At       float64
}

// readPage returns when events arrived in the page and were drawn, once there
// are as many as were printed, or no more come.
func readPage(ctx context.Context, tab *browser.Tab, printed int) (arrived, drawn map[change]time.Time, err error) {
	// The table shows what is missing.
	var missing error
	err = until(ctx, quietTime, func() error {
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
			c := change{one.Type, one.Protocol, one.Port}
			if _, found := times[c]; !found {
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

const (
	loadTurn    = 3 * time.Second
	pathMetrics = "/metrics"

	// aimRequest is the CPU of a request.
	aimRequest = 10 * time.Millisecond
)

var loadConcurrency = []int{1, 8}

// A load is one path, asked without pause.
type load struct {
	path        string
	gzip        bool
	concurrency int

	elapsed, cpu time.Duration
	times        []time.Duration // of each request
	size         int64           // bytes of one body, as it was sent
}

// measureLoads asks for what is open, and for the metrics.
func (n *webNumbers) measureLoads(ctx context.Context, st *stage) (err error) {
	w, address, err := st.serve(ctx, sourceEBPF)
	if err != nil {
		return err
	}
	defer func() {
		_, stopErr := w.stop()
		err = errors.Join(err, stopErr)
	}()
	if err := until(ctx, completePatience, func() error { return countPorts(ctx, address, st.endpoints()) }); err != nil {
		return err
	}
	for _, path := range []string{api.PathPorts, pathMetrics} {
		for _, gzip := range []bool{false, true} {
			for _, concurrency := range loadConcurrency {
				l := load{path: path, gzip: gzip, concurrency: concurrency}
				if err := l.measure(ctx, address, w.process.Process.Pid); err != nil {
					return err
				}
				n.loads = append(n.loads, l)
			}
		}
	}
	return nil
}

// countPorts returns an error unless so many ports are open by the API.
func countPorts(ctx context.Context, address string, want int) error {
	var open struct{ Ports []json.RawMessage }
	if err := askJSON(ctx, address, api.PathPorts, &open); err != nil {
		return err
	}
	if len(open.Ports) != want {
		return fmt.Errorf("%s lists %d ports, want %d", api.PathPorts, len(open.Ports), want)
	}
	return nil
}

func (l *load) measure(ctx context.Context, address string, pid int) error {
	transport := &http.Transport{MaxIdleConnsPerHost: l.concurrency, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: loadTurn + 10*time.Second}
	if _, err := l.ask(ctx, client, address); err != nil { // so that all have been asked once
		return err
	}
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	var workers sync.WaitGroup
	times := make([][]time.Duration, l.concurrency)
	sizes := make([]int64, l.concurrency)
	failures := make([]error, l.concurrency)
	begin := time.Now()
	for i := range l.concurrency {
		workers.Go(func() {
			for time.Since(begin) < loadTurn && failures[i] == nil {
				start := time.Now()
				sizes[i], failures[i] = l.ask(ctx, client, address)
				times[i] = append(times[i], time.Since(start))
			}
		})
	}
	workers.Wait()
	l.elapsed = time.Since(begin)
	for i := range times {
		l.times = append(l.times, times[i]...)
		l.size = max(l.size, sizes[i])
	}
	after, err := cpuTime(pid)
	l.cpu = after - before
	return errors.Join(append(failures, err)...)
}

// ask asks once, reads all of the answer and returns its size.
func (l *load) ask(ctx context.Context, client *http.Client, address string) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+l.path, nil)
	if err != nil {
		return 0, err
	}
	if l.gzip {
		request.Header.Set("Accept-Encoding", "gzip")
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	size, err := io.Copy(io.Discard, response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || (response.Header.Get("Content-Encoding") == "gzip") != l.gzip) {
		err = fmt.Errorf("%s: %s, Content-Encoding %q", l.path, response.Status, response.Header.Get("Content-Encoding"))
	}
	return size, err
}

func (l *load) name() string {
	if l.gzip {
		return l.path + ", gzip"
	}
	return l.path
}

// perRequest is the CPU of a request.
func (l *load) perRequest() time.Duration { return l.cpu / time.Duration(max(len(l.times), 1)) }

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

// measure compares portwatcher with its server, which serves no request, with one
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
	start := func() (w *watcher, address string, err error) {
		w, err = st.watch(ctx, sourceEBPF)
		return w, "", err
	}
	if server {
		start = func() (*watcher, string, error) { return st.serve(ctx, sourceEBPF) }
	}
	w, _, err := start()
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		_, stopErr := w.stop()
		err = errors.Join(err, stopErr)
	}()
	measured, err := measureProtocol(ctx, st, w, model.TCP, outputPorts)
	if err != nil {
		return nil, 0, err
	}
	for _, d := range measured {
		times, cost = append(times, d.times...), d.cost
	}
	if len(times) == 0 {
		return nil, 0, errReportedNothing
	}
	return times, cost, nil
}
