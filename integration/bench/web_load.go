package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"portwatcher/internal/server/api"
)

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
	w, address, err := serve(ctx, st, sourceEBPF, true)
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
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+api.PathPorts, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var open struct{ Ports []json.RawMessage }
	if err := json.NewDecoder(response.Body).Decode(&open); err != nil {
		return fmt.Errorf("%s: %s: %w", api.PathPorts, response.Status, err)
	}
	if len(open.Ports) != want {
		return fmt.Errorf("%s tells of %d ports, want %d", api.PathPorts, len(open.Ports), want)
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

func (n *webNumbers) loadTable() table {
	t := table{
		title:   fmt.Sprintf("The API and the metrics with %s open ports", grouped(webContainers*webPorts)),
		columns: []string{"Request", "at once", "a second", "p50", "p99", "CPU a request", "size"},
		notes: []string{fmt.Sprintf("%d containers of %d ports. Each row is %v of requests without pause over kept connections by this program, which shares "+
			"the cores with portwatcher; a time ends when all of the answer is read. CPU is portwatcher's clock, its watching included.", webContainers, webPorts, loadTurn)},
	}
	for _, l := range n.loads {
		count := len(l.times)
		t.rows = append(t.rows, []string{l.name(), fmt.Sprint(l.concurrency), showCount(float64(count) / l.elapsed.Seconds()), showTime(quantile(l.times, 0.5)),
			showTime(quantile(l.times, 0.99)), showTime(l.perRequest()), grouped(l.size/1000) + " kB"})
	}
	return t
}
