package main

import (
	"fmt"
	"slices"
	"time"
)

func (n *webNumbers) report(r *report) {
	if len(n.browser) > 0 {
		r.add(n.browserTable())
	}
	if len(n.loads) > 0 {
		r.add(n.loadTable())
	}
	if len(n.streams) > 0 {
		r.add(n.streamTable())
	}
	if len(n.output.with) > 0 {
		r.add(n.output.table())
	}
	if aims := n.aims(); len(aims) > 0 {
		r.add(aimTable("Aims of what is served", nil, aims))
	}
}

func (n *webNumbers) browserTable() table {
	t := table{
		title:   "From the call to the event in the browser",
		columns: []string{"Where", "p50", "p99", "slowest", "reported"},
		notes: []string{fmt.Sprintf("%d TCP ports, one each %v, held %v, by eBPF; opened and closed. The page is shown by a headless Chromium on the same machine. "+
			"Arrived is when the page's stream hands the event to a script, drawn when the frame with the event in its time line was made. "+
			"An event reaches the stream once it is in the journal, which writes what came in 25 ms at once. The browser's clock was within %v of the host's.",
			browserPorts, browserInterval, browserHold, browserClock)},
	}
	for _, d := range n.browser {
		for _, at := range []struct {
			name  string
			times []time.Duration
		}{{"on standard output", d.printed}, {"arrived in the page", d.arrived}, {"drawn", d.drawn}} {
			t.rows = append(t.rows, slices.Concat([]string{d.beside + ", " + at.name}, showTimes(at.times), []string{showShare(len(at.times), d.done)}))
		}
	}
	return t
}

func (n *webNumbers) streamTable() table {
	t := table{
		title:   "Readers of the event stream",
		columns: []string{"Measured"},
		notes: []string{fmt.Sprintf("%s ports open and close, one each %v. The readers are this program's, which shares the cores with portwatcher: CPU is portwatcher's clock. "+
			"Slow readers take nothing after the start; they are cut off when their buffers are full for 5 s. Delays are from the call: to the line on standard output, and to one of the readers.",
			showCount(streamCount), streamInterval)},
	}
	for _, s := range n.streams {
		t.columns = append(t.columns, fmt.Sprintf("%d fast, %d slow", s.fast, s.slow))
	}
	add := func(name string, value func(s streamRun) string) {
		row := []string{name}
		for _, s := range n.streams {
			row = append(row, value(s))
		}
		t.rows = append(t.rows, row)
	}
	ofReaders := func(value func(s streamRun) string) func(s streamRun) string {
		return func(s streamRun) string {
			if s.fast == 0 || len(s.read) == 0 {
				return ""
			}
			return value(s)
		}
	}
	add("events a second", func(s streamRun) string { return showMean(s.perSecond) })
	add("reported on standard output", func(s streamRun) string { return showShare(len(s.printed), s.done) })
	add("CPU of portwatcher, cores", func(s streamRun) string { return showRatio(s.cpu) })
	add("resident memory (VmRSS) before", func(s streamRun) string { return showMegabytes(s.memory.idle) })
	add("resident memory at its highest", func(s streamRun) string { return showMegabytes(s.memory.highest) })
	add("to standard output, p50", func(s streamRun) string { return showTime(quantile(s.printed, 0.5)) })
	add("to standard output, p99", func(s streamRun) string { return showTime(quantile(s.printed, 0.99)) })
	add("to a reader, p50", ofReaders(func(s streamRun) string { return showTime(quantile(s.read, 0.5)) }))
	add("to a reader, p99", ofReaders(func(s streamRun) string { return showTime(quantile(s.read, 0.99)) }))
	add("last event in all readers, after its line", ofReaders(func(s streamRun) string { return showTime(s.behind) }))
	add("missed by fast readers", ofReaders(func(s streamRun) string { return showCount(s.missed) }))
	add("repeated to fast readers", ofReaders(func(s streamRun) string { return showCount(s.repeated) }))
	add("readers cut off", ofReaders(func(s streamRun) string { return showCount(s.cutOff) }))
	add("events lost by any queue", func(s streamRun) string { return showCount(s.lost) })
	return t
}

func (n *webNumbers) aims() (aims []aim) {
	for _, d := range n.browser {
		a := aim{d.beside + ", drawn, p50", "nothing was drawn", "under " + showTime(aimBrowser), false}
		if len(d.drawn) > 0 {
			a = below(a.what, quantile(d.drawn, 0.5), aimBrowser)
		}
		aims = append(aims, a)
	}
	for _, l := range n.loads {
		if l.concurrency == 1 {
			aims = append(aims, below("CPU of "+l.name(), l.perRequest(), aimRequest))
		}
	}
	for _, s := range n.streams {
		if s.fast > 0 {
			aims = append(aims,
				aim{"events missed by, or repeated to, fast readers", showCount(s.missed + s.repeated), "0", s.missed+s.repeated == 0},
				aim{"readers cut off", showCount(s.cutOff), fmt.Sprintf("the %d slow ones", s.slow), s.cutOff == s.slow})
		}
	}
	if len(n.output.with) > 0 {
		ratio := float64(quantile(n.output.with, 0.5)) / float64(quantile(n.output.without, 0.5))
		aims = append(aims, aim{"delay to standard output with the server, p50", showRatio(ratio) + " times that without", fmt.Sprintf("under %v times", aimOutput), ratio < aimOutput})
	}
	return aims
}

func (n *webNumbers) loadTable() table {
	t := table{
		title:   fmt.Sprintf("The API and the metrics with %s open ports", showCount(webContainers*webPorts)),
		columns: []string{"Request", "at once", "a second", "p50", "p99", "CPU a request", "size"},
		notes: []string{fmt.Sprintf("%d containers of %d ports. Each row is %v of requests without pause over kept connections by this program, which shares "+
			"the cores with portwatcher; a time ends when all of the answer is read. CPU is portwatcher's clock, its watching included.", webContainers, webPorts, loadTurn)},
	}
	for _, l := range n.loads {
		count := len(l.times)
		t.rows = append(t.rows, []string{l.name(), fmt.Sprint(l.concurrency), showMean(float64(count) / l.elapsed.Seconds()), showTime(quantile(l.times, 0.5)),
			showTime(quantile(l.times, 0.99)), showTime(l.perRequest()), showCount(l.size/1000) + " kB"})
	}
	return t
}

func (o *outputDelays) table() table {
	const expected = 2 * outputPorts * outputRounds
	row := func(name string, times, cost []time.Duration) []string {
		return slices.Concat([]string{name}, showTimes(times), []string{showShare(len(times), expected), showTime(median(cost))})
	}
	ratio := func(q float64) string {
		return showRatio(float64(quantile(o.with, q)) / float64(quantile(o.without, q)))
	}
	return table{
		title:   "What the server adds to the way to standard output",
		columns: []string{"portwatcher", "p50", "p99", "slowest", "reported", "CPU an event"},
		rows: [][]string{
			row("without --listen", o.without, o.withoutCPU), row("with --listen", o.with, o.withCPU),
			{"ratio", ratio(0.5), ratio(0.99), ratio(1), "", showRatio(float64(median(o.withCPU)) / float64(median(o.withoutCPU)))},
		},
		notes: []string{fmt.Sprintf("From the workload's call to the line on standard output, opened and closed, %d TCP ports a round, one each %v, by eBPF; "+
			"%d rounds of each by turns. The server has no request meanwhile.", outputPorts, latencyInterval, outputRounds)},
	}
}
