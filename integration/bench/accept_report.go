package main

import (
	"fmt"
	"time"
)

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
		t.rows = append(t.rows, []string{name, grouped(int64(median(a.rate[name]))),
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
		{"ebpf: the same from whole turns of portwatcher", showAdded(a.ratios(sourceEBPF, a.server, a.client)), "", false},
		{"netlink: CPU added to server and client, from whole turns", showAdded(netlink), limit, median(netlink)-1 < aimAccept},
		{"netlink: CPU that a subscription to destroy notifications adds",
			fmt.Sprintf("%s (%s to %s)", showSigned(notice), showSigned(noticeLow), showSigned(noticeHigh)), "", false},
		{"netlink: the same for each connection", fmt.Sprintf("%s (%s to %s)", showPrecise(each), showPrecise(eachLow), showPrecise(eachHigh)), "", false},
		{"netlink: openings of connections a second at which that is 1 % of a core", showRate(each / connectionEnds), "", false},
	}
	aims = append(aims, aim{"the same between the turns without portwatcher: the noise", showAdded(a.ratios(turnAgain, a.server, a.client)), "", false})
	for _, source := range sources {
		aims = append(aims, aim{source + ": portwatcher's CPU where the clients close with a reset, share of one core", showPercent(a.resets[source]), "", false})
	}
	made, err := between(a.samples, a.programs.turn.begin, a.programs.turn.end)
	if err == nil {
		n := float64(made.Connections) * a.programs.turn.end.Sub(a.programs.turn.begin).Seconds() / made.span.Seconds()
		each := a.programs.runTime.Seconds() / n
		share := each / (median(a.server[turnWithout]) + median(a.client[turnWithout]))
		aims = append(aims,
			aim{"ebpf: run time of the programs by the kernel's statistics, a connection", showPrecise(each), "", false},
			aim{"ebpf: runs of the programs, a connection", fmt.Sprintf("%.1f", float64(a.programs.runs)/n), "", false},
			aim{"ebpf: that run time, as a share of the CPU of server and client", "at most " + showPercent(share), "", false})
	}
	return aimTable("Aims of the connections", []string{fmt.Sprintf("The first line, and those of the subscription, are medians of %d pairs: for %v the programs are attached, or there is a subscription, and for "+
		"%v before and after there is not, while server and client make %d connections a second on one CPU; in brackets the interval that holds "+
		"the true median with a probability of 95 %%. To the cost of the pairs belongs the CPU of the kernel's workers of that CPU, which make the notifications. "+
		"Portwatcher without eBPF subscribes, and ends that above a rate (busyRate in internal/source/busy.go) which is to be the one at which it costs 1 %% of a core: its turns begin after that. That rate is of openings, by clients and by servers: here each connection has both. In the others the quartiles of the rounds are in brackets: where those of the noise are wider than "+
		"the aim, the machine was too busy to tell. The statistics are taken in a turn of their own. They are a bound: the time that "+
		"taking them needs is most of what they show for a program that returns after one comparison; the way into a program and back is left out.", len(a.programPairs), pairSpan, pairSpan, pairRate)}, aims)
}

// connectionEnds is how many sockets a connection of the load has in the namespace, each
// with an opening that the kernel counts and a notification when it goes.
const connectionEnds = 2

// showRate shows the rate at which something that takes so many CPU seconds each time
// takes 1 % of a core.
func showRate(seconds float64) string {
	if seconds <= 0 {
		return "none: no cost is seen"
	}
	return grouped(int64(0.01 / seconds))
}

// showPrecise shows CPU seconds of something small.
func showPrecise(seconds float64) string {
	return fmt.Sprintf("%.2f µs", seconds*float64(time.Second/time.Microsecond))
}

func showFine(ratio float64) string { return fmt.Sprintf("%.3f", ratio) }

// showAdded shows the median and the quartiles of ratios, less one.
func showAdded(ratios []float64) string {
	return fmt.Sprintf("%s (%s to %s)", showSigned(median(ratios)-1), showSigned(quantile(ratios, 0.25)-1), showSigned(quantile(ratios, 0.75)-1))
}

func showSigned(share float64) string { return fmt.Sprintf("%+.2f %%", share*100) }
