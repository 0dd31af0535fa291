package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	acceptRate = 10_000 // connections a second
	// acceptSettle passes after portwatcher's start, and before the first turn.
	acceptSettle = 300 * time.Millisecond
	// unsubscribePatience bounds the wait until portwatcher has found that a server is so busy
	// that notifications cost too much: twice as long as it measures, and more.
	unsubscribePatience = 40 * time.Second
	// aimAccept bounds the CPU added to server and client, as a share of theirs.
	aimAccept = 0.01
)

// The turns of one round. The second one without portwatcher shows how much of
// a difference is noise.
const (
	turnWithout = "without portwatcher"
	turnAgain   = "without portwatcher, again"
)

var acceptTurns = []string{turnWithout, sourceEBPF, turnAgain, sourceNetlink}

// A turn is a span in which one thing watched, or nothing. Where there are so many
// connections, portwatcher without eBPF soon ends its subscription to notifications: its
// turn begins then.
type turn struct {
	name       string
	begin, end time.Time
	machine    time.Duration // CPU of the whole machine
	own        time.Duration // of it portwatcher's
}

// runAccept measures what portwatcher costs a busy server, of which it has nothing to
// report.
func runAccept(ctx context.Context, s *settings, r *report) error {
	return onStage(ctx, s, r, newStage("accept", 1, 1, "bridge"), func(st *stage) error {
		length := time.Duration(s.acceptRounds*len(acceptTurns)+1) * (s.acceptTurn + 15*time.Second)
		load, err := startConnections(ctx, st, "--rate", fmt.Sprint(acceptRate), "--for", min(length, time.Hour).String())
		if err != nil {
			return err
		}
		costs, programs, err := measureAccept(ctx, s, st)
		samples, loadErr := load.stop(ctx)
		if err := errors.Join(err, loadErr); err != nil {
			return err
		}
		a := acceptResult{turns: s.acceptTurn, programs: programs}
		for _, t := range costs {
			if err := a.add(t, samples); err != nil {
				return err
			}
		}
		if a.resets, err = measureResets(ctx, s, st); err != nil {
			return err
		}
		if a.programPairs, err = measurePairs(ctx, s, st, "eBPF programs", attachPrograms); err != nil {
			return err
		}
		if a.noticePairs, err = measureSubscription(ctx, s, st); err != nil {
			return err
		}
		r.add(a.table(s))
		r.add(a.aims())
		return nil
	})
}

// measureSubscription measures by pairs what a subscription to destroy notifications
// costs. Portwatcher ends its own where there are so many connections.
func measureSubscription(ctx context.Context, s *settings, st *stage) (pairs []pair, err error) {
	pids, err := st.processes(ctx)
	if err != nil {
		return nil, err
	}
	subscribe, closeNamespace, err := subscribeIn(pids[0])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeNamespace()) }()
	return measurePairs(ctx, s, st, "destroy notifications", subscribe)
}

// measureAccept returns the turns, round by round in another order, and what
// the eBPF programs need by the kernel's own account.
func measureAccept(ctx context.Context, s *settings, st *stage) (turns []turn, programs programCost, err error) {
	for round := range s.acceptRounds {
		progress("accept: round %d of %d", round+1, s.acceptRounds)
		names := slices.Concat(acceptTurns[round%len(acceptTurns):], acceptTurns[:round%len(acceptTurns)])
		for _, name := range names {
			t, err := st.turn(ctx, name, s.acceptTurn, func(ctx context.Context, _ int, d time.Duration) error { return wait(ctx, d) })
			if err != nil {
				return nil, programs, err
			}
			turns = append(turns, t)
		}
	}
	programs.turn, err = st.turn(ctx, sourceEBPF, s.acceptTurn, programs.measure)
	return turns, programs, err
}

// measureResets returns the share of one core that portwatcher needs, by
// source, where the clients close with a reset: that takes the remote port away
// from a connection, by which it differs from a listener.
func measureResets(ctx context.Context, s *settings, st *stage) (shares map[string]float64, err error) {
	progress("accept: clients that close with a reset")
	load, err := startConnections(ctx, st, "--rate", fmt.Sprint(acceptRate), "--for", (time.Minute + 2*s.acceptTurn).String(), "--reset")
	if err != nil {
		return nil, err
	}
	defer func() {
		_, stopErr := load.stop(ctx)
		err = errors.Join(err, stopErr)
	}()
	shares = map[string]float64{}
	for _, source := range sources {
		t, err := st.turn(ctx, source, 2*s.acceptTurn, func(ctx context.Context, _ int, d time.Duration) error { return wait(ctx, d) })
		if err != nil {
			return nil, err
		}
		shares[source] = t.own.Seconds() / t.end.Sub(t.begin).Seconds()
	}
	return shares, nil
}

// turn lets portwatcher run with the source that name is, if it is one, and
// calls work with its pid or 0.
func (s *stage) turn(ctx context.Context, name string, d time.Duration,
	work func(context.Context, int, time.Duration) error) (t turn, err error) {
	t.name = name
	pid := 0
	if slices.Contains(sources, name) {
		w, address, err := s.serve(ctx, name)
		if err != nil {
			return t, err
		}
		pid = w.process.Process.Pid
		defer func() {
			_, stopErr := w.stop()
			err = errors.Join(err, stopErr)
		}()
		if name == sourceNetlink {
			if err := awaitUnsubscribed(ctx, address); err != nil {
				return t, err
			}
		}
	}
	if err := wait(ctx, acceptSettle); err != nil {
		return t, err
	}
	machine, own, err := machineTimes(pid)
	if err != nil {
		return t, err
	}
	t.begin = time.Now()
	if err := work(ctx, pid, d); err != nil {
		return t, err
	}
	t.end = time.Now()
	machineAfter, ownAfter, err := machineTimes(pid)
	t.machine, t.own = machineAfter-machine, ownAfter-own
	return t, err
}

// awaitUnsubscribed waits until portwatcher receives no destroy notifications any more:
// there are too many connections.
func awaitUnsubscribed(ctx context.Context, address string) error {
	return untilEach(ctx, pollTime, unsubscribePatience, func() error {
		status, err := askStatus(address)
		if err != nil {
			return err
		}
		for _, w := range status.Watchers {
			if w.Destroy {
				return errors.New("portwatcher receives the destroy notifications of a busy server")
			}
		}
		return nil
	})
}

// machineTimes returns the CPU time of the machine and of a process so far.
func machineTimes(pid int) (machine, own time.Duration, err error) {
	if machine, err = busyTime(); err == nil && pid > 0 {
		own, err = cpuTime(pid)
	}
	return machine, own, err
}

// programCost is what the kernel's statistics show of the eBPF programs.
type programCost struct {
	turn    turn
	runs    int64
	runTime time.Duration
}

// measure switches the statistics on for a while. They cost time themselves,
// which counts here; the way into a program and back does not.
func (p *programCost) measure(ctx context.Context, pid int, d time.Duration) error {
	end, err := enableProgramStatistics()
	if err != nil {
		return err
	}
	runs, runTime, err := programStatistics(pid)
	if err == nil {
		err = wait(ctx, d)
	}
	if err == nil {
		p.runs, p.runTime, err = programStatistics(pid)
		p.runs, p.runTime = p.runs-runs, p.runTime-runTime
	}
	return errors.Join(err, end())
}

// acceptResult has one value for each round and kind of turn.
type acceptResult struct {
	turns    time.Duration
	programs programCost
	resets   map[string]float64 // portwatcher's share of one core, by source
	// What a connection costs with the eBPF programs, and with a subscription to destroy
	// notifications.
	programPairs, noticePairs []pair
	samples                   []connectionSample
	server                    map[string][]float64 // CPU seconds for each connection
	client                    map[string][]float64
	machine                   map[string][]float64
	own                       map[string][]float64 // share of one core
	rate                      map[string][]float64
}

func (a *acceptResult) add(t turn, samples []connectionSample) error {
	if a.samples = samples; a.server == nil {
		a.server, a.client, a.machine = map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		a.own, a.rate = map[string][]float64{}, map[string][]float64{}
	}
	made, err := between(samples, t.begin, t.end)
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	n, span := float64(made.Connections), t.end.Sub(t.begin).Seconds()
	rate := n / made.span.Seconds()
	a.server[t.name] = append(a.server[t.name], float64(made.Server)/1e9/n)
	a.client[t.name] = append(a.client[t.name], float64(made.Client)/1e9/n)
	a.machine[t.name] = append(a.machine[t.name], t.machine.Seconds()/span/rate)
	a.own[t.name] = append(a.own[t.name], t.own.Seconds()/span)
	a.rate[t.name] = append(a.rate[t.name], rate)
	return nil
}

// ratios are those of a way's turns to the turns without portwatcher of the
// same rounds.
func (a *acceptResult) ratios(name string, values ...map[string][]float64) []float64 {
	var ratios []float64
	for round := range values[0][name] {
		var with, without float64
		for _, v := range values {
			with, without = with+v[name][round], without+v[turnWithout][round]
		}
		ratios = append(ratios, with/without)
	}
	return ratios
}

func (a *acceptResult) table(s *settings) table {
	t := table{
		title: "A server that accepts and closes 10,000 connections a second",
		columns: []string{"Turns", "connections a second", "server's CPU a connection", "client's", "both, ratio", "from", "to",
			"server alone, ratio", "whole machine, ratio", "portwatcher's CPU"},
		notes: []string{fmt.Sprintf("Server and client are two threads in one container, over loopback: connect, accept, close. CPU is that of "+
			"the threads by their own clocks, medians of %d rounds, in each of which every kind has a turn of %v, in another order each time. "+
			"A ratio is that to the turn without portwatcher of the same round: the median, and the lowest and highest for both threads. "+
			"What lies within those of the second turn without portwatcher is noise. The whole machine includes portwatcher, what the kernel "+
			"does later in threads of its own, and all else that runs.", s.acceptRounds, s.acceptTurn)},
	}
	for _, name := range acceptTurns {
		both := a.ratios(name, a.server, a.client)
		t.rows = append(t.rows, []string{name, showCount(int64(median(a.rate[name]))),
			showPrecise(median(a.server[name])), showPrecise(median(a.client[name])),
			showFine(median(both)), showFine(quantile(both, 0)), showFine(quantile(both, 1)),
			showFine(median(a.ratios(name, a.server))), showFine(median(a.ratios(name, a.machine))), showPercent(median(a.own[name]))})
	}
	return t
}

// aims gives the added share: of eBPF's programs and of a subscription to notifications
// as pairs show it, of the rest as turns do.
func (a *acceptResult) aims() table {
	limit := "under " + showPercent(aimAccept)
	share, low, high := added(a.programPairs)
	notice, noticeLow, noticeHigh := added(a.noticePairs)
	each, eachLow, eachHigh := addedTime(a.noticePairs)
	netlink := a.ratios(sourceNetlink, a.server, a.client)
	aims := []aim{
		{"ebpf: CPU that the programs add to server and client",
			fmt.Sprintf("%s (%s to %s)", showSigned(share), showSigned(low), showSigned(high)), limit, share < aimAccept},
		value("ebpf: the same from whole turns of portwatcher", showAdded(a.ratios(sourceEBPF, a.server, a.client))),
		{"netlink: CPU added to server and client, from whole turns", showAdded(netlink), limit, median(netlink)-1 < aimAccept},
		value("netlink: CPU that a subscription to destroy notifications adds",
			fmt.Sprintf("%s (%s to %s)", showSigned(notice), showSigned(noticeLow), showSigned(noticeHigh))),
		value("netlink: the same for each connection", fmt.Sprintf("%s (%s to %s)", showPrecise(each), showPrecise(eachLow), showPrecise(eachHigh))),
		value("netlink: openings of connections a second at which that is 1 % of a core", showRate(each/connectionEnds)),
	}
	aims = append(aims, value("the same between the turns without portwatcher: the noise", showAdded(a.ratios(turnAgain, a.server, a.client))))
	for _, source := range sources {
		aims = append(aims, value(source+": portwatcher's CPU where the clients close with a reset, share of one core", showPercent(a.resets[source])))
	}
	made, err := between(a.samples, a.programs.turn.begin, a.programs.turn.end)
	if err == nil {
		n := float64(made.Connections) * a.programs.turn.end.Sub(a.programs.turn.begin).Seconds() / made.span.Seconds()
		each := a.programs.runTime.Seconds() / n
		share := each / (median(a.server[turnWithout]) + median(a.client[turnWithout]))
		aims = append(aims,
			value("ebpf: run time of the programs by the kernel's statistics, a connection", showPrecise(each)),
			value("ebpf: runs of the programs, a connection", fmt.Sprintf("%.1f", float64(a.programs.runs)/n)),
			value("ebpf: that run time, as a share of the CPU of server and client", "at most "+showPercent(share)))
	}
	return aimTable("Aims of the connections", []string{fmt.Sprintf("The first line, and those of the subscription, are medians of %d pairs: for %v the programs are attached, or there is a subscription, and for "+
		"%v before and after there is not, while server and client make %d connections a second on one CPU; in brackets the interval that holds "+
		"the true median with a probability of 95 %%. To the cost of the pairs belongs the CPU of the kernel's workers of that CPU, which make the notifications. "+
		"Portwatcher without eBPF subscribes, and ends that above a rate (busyRate in internal/source/busy.go) which is to be the one at which it costs 1 %% of a core: its turns begin after that. That rate is of openings, by clients and by servers: here each connection has both. In the others the quartiles of the rounds are in brackets: where those of the noise are wider than "+
		"the aim, the machine was too busy for a result. The statistics are taken in a turn of their own. They are a bound: the time that "+
		"taking them needs is most of what they show for a program that returns after one comparison; the way into a program and back is left out.", len(a.programPairs), pairSpan, pairSpan, pairRate)}, aims)
}

// connectionEnds is how many sockets a connection of the load has in the namespace, each
// with an opening that the kernel counts and a notification when it goes.
const connectionEnds = 2

// showRate shows the rate at which something that takes so many CPU seconds each time
// takes 1 % of a core.
func showRate(seconds float64) string {
	if seconds <= 0 {
		return "none: no cost is measured"
	}
	return showCount(int64(0.01 / seconds))
}

func showFine(ratio float64) string { return fmt.Sprintf("%.3f", ratio) }

// showAdded shows the median and the quartiles of ratios, less one.
func showAdded(ratios []float64) string {
	return fmt.Sprintf("%s (%s to %s)", showSigned(median(ratios)-1), showSigned(quantile(ratios, 0.25)-1), showSigned(quantile(ratios, 0.75)-1))
}

func showSigned(share float64) string { return fmt.Sprintf("%+.2f %%", share*100) }
