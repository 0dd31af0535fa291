package main

import (
	"fmt"
	"math"
)

func captureTable(all []captured, count int) table {
	t := table{
		title: "What is caught of the same load",
		columns: []string{"Who watches", "cycles a second", "listed", "in bursts", "in gaps", "unaccounted", "with pid", "CPU an event",
			"held 50 ms: opened", "closed", "with pid"},
		notes: []string{fmt.Sprintf("%s times bind, listen and close of one TCP port in one container, without pause: %s openings and closings; then %d ports, "+
			"one each 10 ms, held 50 ms; one way after another. \"Listed\" are reported one by one, \"in bursts\" counted, \"in gaps\" admitted to be lost; "+
			"\"unaccounted\" is the rest. \"With pid\" are listed openings that name the process. \"CPU an event\" is the CPU clock of the watching process, for each opening and closing that happened. "+
			"The other tools watch the whole host, but for ss, and know no containers: of their losses as many count as are missing. ss tells of closes alone. "+
			"All write into a pipe that is read at once.", grouped(int64(count)), grouped(int64(2*count)), heldCount)},
	}
	for _, c := range all {
		t.rows = append(t.rows, c.cells(count))
	}
	return t
}

func (c *captured) cells(count int) []string {
	row := make([]string, 11)
	row[0] = c.way
	if c.missing != "" {
		row[1] = "missing"
		return row
	}
	row[1] = grouped(int64(c.perSecond))
	if c.way == wayNothing {
		return row
	}
	copy(row[2:], []string{grouped(int64(c.storm.opened + c.storm.closed)), grouped(int64(c.storm.bursts)), c.showLosses(), showSum(c.unaccounted(count)),
		showShare(c.storm.named, max(c.storm.opened, 1)), showPrecise(c.perEvent(count)),
		showShare(c.held.opened, heldCount), showShare(c.held.closed, heldCount), showShare(c.held.named, heldCount)})
	return row
}

// unaccounted is what of the storm is in no account; negative where more is than
// happened.
func (c *captured) unaccounted(count int) int {
	return 2*count - c.storm.opened - c.storm.closed - c.storm.bursts - c.losses
}

// accounted says whether all of the storm is; a gap may say that it does not know.
func (c *captured) accounted(count int) bool {
	missing := c.unaccounted(count)
	return missing == 0 || missing > 0 && c.unnumbered > 0 && c.source == sourceNetlink
}

func (c *captured) showLosses() string {
	switch {
	case c.ended != nil:
		return "it ended"
	case c.unnumbered > 0:
		return fmt.Sprintf("%s, and %d gaps without a number", grouped(int64(c.losses)), c.unnumbered)
	}
	return grouped(int64(c.losses))
}

// perEvent is the CPU time of one opening or closing, in seconds.
func (c *captured) perEvent(count int) float64 { return c.cpu.Seconds() / float64(2*count) }

// showSum shows a number that may be negative.
func showSum(n int) string {
	if n < 0 {
		return "-" + grouped(int64(-n))
	}
	return grouped(int64(n))
}

// showShare rounds down: 100 % is all.
func showShare(part, whole int) string {
	return fmt.Sprintf("%.2f %%", math.Floor(float64(part)/float64(whole)*1e4)/100)
}

// captureAims are those of portwatcher alone. More than all is missed, too: it
// would tell of what did not happen.
func captureAims(all []captured, count int) table {
	var other float64 // bpftrace's CPU an event
	for _, c := range all {
		if c.way == wayBpftrace && c.missing == "" && c.ended == nil {
			other = c.perEvent(count)
		}
	}
	var aims []aim
	for _, c := range all {
		if c.source == "" || c.missing != "" {
			continue
		}
		want, held := "0", reported{opened: heldCount, closed: heldCount, named: heldCount}
		if c.source == sourceNetlink {
			want, held.named = "0, or a gap without a number", c.held.named
		}
		cost := aim{c.source + ": CPU an event", showPrecise(c.perEvent(count)), "", false}
		if other > 0 {
			cost.aim, cost.met = "at most bpftrace's "+showPrecise(other), c.perEvent(count) <= other
		}
		aims = append(aims,
			aim{c.source + ": unaccounted of the " + grouped(int64(2*count)) + " openings and closings", showSum(c.unaccounted(count)), want, c.accounted(count)},
			cost,
			aim{c.source + ": of the ports held 50 ms", fmt.Sprintf("%d and %d", c.held.opened, c.held.closed), "all", c.held == held},
			aim{c.source + ": resident memory before", showMegabytes(c.memory.idle), "", false},
			aim{c.source + ": highest meanwhile", showMegabytes(c.memory.highest), "", false},
			aim{c.source + ": afterwards", showMegabytes(c.memory.after), "under " + showMegabytes(int64(aimRelease*float64(c.memory.idle))), c.memory.released()},
			aim{c.source + ": time until then", showTime(c.memory.back), "", false})
	}
	return aimTable("Aims of the capture", []string{
		fmt.Sprintf("Memory is VmRSS: before is %v after the complete list, with one port open; afterwards begins when all is reported, "+
			"and is looked at until it is under the aim, at most %v.", memorySettle, memoryPatience)}, aims)
}
