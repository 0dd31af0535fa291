package main

import (
	"fmt"
	"math"
	"time"
)

func captureTable(all []captured, count int) table {
	t := table{
		title: "What is caught of the same load",
		columns: []string{"Who watches", "cycles a second", "opened", "closed", "with pid", "tells of losses", "CPU an event",
			"held 50 ms: opened", "closed", "with pid"},
		notes: []string{fmt.Sprintf("%s times bind, listen and close of one TCP port in one container, without pause; then %d ports, one each "+
			"10 ms, held 50 ms. Shares of what the workload did, one way after another. \"With pid\" are openings that name the process. "+
			"\"CPU an event\" is the CPU clock of the watching process, for each opening and closing that it reported of the %s. "+
			"The other tools watch the whole host, but for ss, and know no containers; ss tells of closes alone. "+
			"All write into a pipe that is read at once.", grouped(int64(count)), heldCount, grouped(int64(count)))},
	}
	for _, c := range all {
		t.rows = append(t.rows, c.cells(count))
	}
	return t
}

func (c *captured) cells(count int) []string {
	if c.missing != "" {
		return []string{c.way, "missing", "", "", "", "", "", "", "", ""}
	}
	row := []string{c.way, grouped(int64(c.perSecond))}
	if c.way == wayNothing {
		return append(row, "", "", "", "", "", "", "", "")
	}
	row = append(row, showShare(c.storm.opened, count), showShare(c.storm.closed, count), showShare(c.storm.named, count), c.showLosses(), c.showCost())
	return append(row, showShare(c.held.opened, heldCount), showShare(c.held.closed, heldCount), showShare(c.held.named, heldCount))
}

func (c *captured) showLosses() string {
	switch {
	case c.ended != nil:
		return "it ended"
	case c.losses == 0:
		return "no"
	case c.source != "":
		return fmt.Sprintf("gaps: %s", grouped(int64(c.losses)))
	}
	return "lost: " + grouped(int64(c.losses))
}

// showCost shows the CPU time of one reported event.
func (c *captured) showCost() string {
	events := c.storm.opened + c.storm.closed
	if events == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f µs", float64(c.cpu)/float64(time.Microsecond)/float64(events))
}

// showShare rounds down: 100 % is all.
func showShare(part, whole int) string {
	return fmt.Sprintf("%.2f %%", math.Floor(float64(part)/float64(whole)*1e4)/100)
}

// captureAims are those of portwatcher alone. More than all is missed, too: it
// would tell of what did not happen.
func captureAims(all []captured, count int) table {
	var aims []aim
	for _, c := range all {
		if c.source == "" || c.missing != "" {
			continue
		}
		storm, held := reported{count, count, count}, reported{heldCount, heldCount, heldCount}
		want := "all, with pid"
		if c.source == sourceNetlink {
			want, storm.named, held.named = "all, or a gap", c.storm.named, c.held.named
		}
		caught := fmt.Sprintf("%s and %s", grouped(int64(c.storm.opened)), grouped(int64(c.storm.closed)))
		aims = append(aims,
			aim{c.source + ": openings and closings of the " + grouped(int64(count)), caught, want,
				c.storm == storm || c.source == sourceNetlink && c.losses > 0 && c.storm.opened <= count && c.storm.closed <= count},
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
