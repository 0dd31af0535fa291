package main

import (
	"strings"
	"testing"
	"time"
)

func TestFlagsOutOfRangeAreRefused(t *testing.T) {
	for _, arguments := range []string{
		"--theme nothing", "--scan-rounds 0", "--fleet-containers 501", "--fleet-steady 1ms", "--fleet-network host", "--soak-length 1s", "scan",
	} {
		if _, _, err := parse(strings.Fields(arguments)); err == nil {
			t.Errorf("%s is accepted", arguments)
		}
	}
	if _, chosen, err := parse([]string{"--theme", "fleet,scan"}); err != nil || len(chosen) != 2 || chosen[0].name != "fleet" {
		t.Errorf("--theme fleet,scan chooses %v, %v", chosen, err)
	}
}

func TestNumbersAreShown(t *testing.T) {
	for want, got := range map[string]string{
		"0": showMean(0), "0.01": showMean(0.01), "1,234,567": showMean(1234567), "999": showCount(999), "-9,000": showCount(-9000), "1.37": showRatio(1.372),
		"28,707": showRatio(28707.4), "71 µs": showTime(71 * time.Microsecond), "2.4 ms": showTime(2400 * time.Microsecond), "217 ms": showTime(217 * time.Millisecond),
		"1.25 s": showTime(1250 * time.Millisecond), "19.7 MB": showMegabytes(19_700_000), "99.99 %": showShare(99_999, 100_000),
	} {
		if got != want {
			t.Errorf("shown as %q, want %q", got, want)
		}
	}
	if values := []int{5, 1, 4, 2, 3}; quantile(values, 0) != 1 || median(values) != 3 || quantile(values, 0.99) != 5 || values[0] != 5 {
		t.Errorf("quantiles of %v: %d, %d and %d", values, quantile(values, 0), median(values), quantile(values, 0.99))
	}
}

// The lines are those of real runs.
func TestLinesOfPeersAreRead(t *testing.T) {
	for name, test := range map[string]struct {
		parse func([]byte) observation
		line  string
		want  observation
	}{
		"opening":    {parseTCPStates, "ffff8881328f2e40 11944   workload   0.0.0.0         80    0.0.0.0         0     CLOSE       -> LISTEN      0.000", observation{opened: 1, named: true, port: 80}},
		"close":      {parseTCPStates, "ffff8881328f2e40 11944   workload   0.0.0.0         80    0.0.0.0         0     LISTEN      -> CLOSE       50.000", observation{closed: 1, named: true, port: 80}},
		"accepted":   {parseTCPStates, "ffff8881328f2e40 0       swapper/1  127.0.0.1       80    127.0.0.1       4711  LISTEN      -> SYN_RECV    0.000", observation{port: 80}},
		"lost":       {parseTCPStates, "lost 410 events on CPU #1", observation{losses: 410}},
		"bpftrace":   {parseBpftrace, "state 7 10 80 12098", observation{opened: 1, named: true, port: 80}},
		"its close":  {parseBpftrace, "state 10 7 80 12098", observation{closed: 1, named: true, port: 80}},
		"its losses": {parseBpftrace, "Lost 1895 events", observation{losses: 1895}},
		"its banner": {parseBpftrace, "Attaching 1 probe...", observation{}},
		"ss":         {parseSS, "UNCONN 0      0      127.0.0.1:29311 0.0.0.0:*", observation{closed: 1, port: 29311}},
		"nothing":    {parseSS, "", observation{}},
	} {
		if got := test.parse([]byte(test.line)); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}
