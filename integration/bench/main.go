// Command bench measures portwatcher: beside other tools where there are
// peers, alone where there are none. It prints tables, and writes them as
// Markdown to the file that --markdown names.
//
// It is a module of its own, so that the tools it compares with are no
// dependencies of portwatcher. One file tells one theme: scan.go, fleet.go,
// capture.go, latency.go, accept.go, journal.go, web.go, soak.go. A theme that
// cannot run on a machine is named in the output with the reason; where
// PORTWATCHER_REQUIRE is 1 that is a failure.
//
// A missed aim is reported and is no failure: times depend on the machine. A sum
// of the soak that does not balance is one.
// Exit status 2 is a wrong flag, 1 a failure, 130 an interrupt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// settings are the flags. Those of one theme begin with its name.
type settings struct {
	theme       string
	markdown    string
	portwatcher string

	scanRounds int

	fleetContainers int
	fleetPorts      int
	fleetNetwork    string
	fleetStarts     int
	fleetSteady     time.Duration

	captureCount int
	latencyCount int
	acceptRounds int
	acceptTurn   time.Duration
	acceptPairs  int

	journalEvents int

	soakLength     time.Duration
	soakContainers int
	soakStorm      int
}

// A theme measures one thing and adds its tables to the report.
type theme struct {
	name string
	run  func(ctx context.Context, s *settings, r *report) error
}

var themes = []theme{
	{"scan", runScan},
	{"fleet", runFleet},
	{"capture", runCapture},
	{"latency", runLatency},
	{"accept", runAccept},
	{"journal", runJournal},
	{"web", runWeb},
	{"soak", runSoak},
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case namespaceCommand:
			os.Exit(helperStatus(measureNamespace(os.Args[2:])))
		case holderCommand:
			os.Exit(helperStatus(holdSockets(os.Args[2:])))
		}
	}
	// Only web.go asks what portwatcher serves, at an address of its own.
	if err := os.Setenv(listenVariable, ""); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	status := run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

func helperStatus(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// run returns the exit status.
func run(ctx context.Context, arguments []string) int {
	s, chosen, err := parse(arguments)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 2
	}
	r := &report{environment: describeEnvironment(arguments)}
	status := 0
	for _, t := range chosen {
		err := t.run(ctx, s, r)
		if ctx.Err() != nil {
			fmt.Fprintf(os.Stderr, "bench: interrupted in %s: %v\n", t.name, err)
			return 130
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", t.name, err)
			r.missing(t.name, err.Error())
			status = 1
		}
	}
	fmt.Println()
	r.writeText(os.Stdout)
	if len(r.gaps) > 0 && os.Getenv("PORTWATCHER_REQUIRE") == "1" {
		fmt.Fprintln(os.Stderr, "bench: not everything was measured, and PORTWATCHER_REQUIRE is 1")
		status = 1
	}
	if s.markdown != "" {
		if err := r.saveMarkdown(s.markdown); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
			status = 1
		}
	}
	return status
}

func parse(arguments []string) (*settings, []theme, error) {
	s := &settings{}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.StringVar(&s.theme, "theme", "", "themes to run, separated by commas: "+themeNames()+"; empty is all")
	set.StringVar(&s.markdown, "markdown", "", "also write the report as Markdown to this `file`")
	set.StringVar(&s.portwatcher, "portwatcher", "", "the portwatcher `binary` to measure; empty builds one")
	set.IntVar(&s.scanRounds, "scan-rounds", 15, "rounds of the scan, in each of which every way has its turn (1 to 1000)")
	set.IntVar(&s.fleetContainers, "fleet-containers", 100, "containers (1 to 500)")
	set.IntVar(&s.fleetPorts, "fleet-ports", 10, "ports of each container (1 to 100); every fifth is UDP")
	set.StringVar(&s.fleetNetwork, "fleet-network", "bridge", "network of the containers: bridge or none")
	set.IntVar(&s.fleetStarts, "fleet-starts", 5, "starts of portwatcher with each source, whose median is taken (1 to 100)")
	set.DurationVar(&s.fleetSteady, "fleet-steady", time.Minute, "how long the steady state is measured (1s to 1h); a minute contains one full list of the engine's containers")
	set.IntVar(&s.captureCount, "capture-count", 100_000, "times to bind, listen and close without pause (1000 to 10,000,000)")
	set.IntVar(&s.latencyCount, "latency-count", 1000, "ports of each protocol, one each 5 ms (10 to 10,000)")
	set.IntVar(&s.acceptRounds, "accept-rounds", 10, "rounds of the connections, in each of which every way has its turn (2 to 1000)")
	set.IntVar(&s.acceptPairs, "accept-pairs", 300, "times that the eBPF programs are attached under the connections, and as often the subscription to notifications (10 to 10,000)")
	set.DurationVar(&s.acceptTurn, "accept-turn", 800*time.Millisecond, "how long a turn is measured (200ms to 1h)")
	set.IntVar(&s.journalEvents, "journal-events", 1_000_000, "events in the journal (10,000 to 100,000,000)")
	set.DurationVar(&s.soakLength, "soak-length", 10*time.Minute, "how long containers come and go (20s to 24h)")
	set.IntVar(&s.soakContainers, "soak-containers", 200, "containers that come and go (8 to 10,000)")
	set.IntVar(&s.soakStorm, "soak-storm", 20_000, "times that a storm opens and closes its port (100 to 1,000,000)")
	if err := set.Parse(arguments); err != nil {
		return nil, nil, err
	}
	if set.NArg() > 0 {
		return nil, nil, fmt.Errorf("unexpected argument %q: every setting is a flag", set.Arg(0))
	}
	for _, limit := range []struct {
		name             string
		value, low, high int
	}{
		{"scan-rounds", s.scanRounds, 1, 1000},
		{"fleet-containers", s.fleetContainers, 1, 500},
		{"fleet-ports", s.fleetPorts, 1, 100},
		{"fleet-starts", s.fleetStarts, 1, 100},
		{"capture-count", s.captureCount, 1000, 10_000_000},
		{"latency-count", s.latencyCount, 10, 10_000},
		{"accept-rounds", s.acceptRounds, 2, 1000},
		{"accept-pairs", s.acceptPairs, 10, 10_000},
		{"journal-events", s.journalEvents, 10_000, 100_000_000},
		{"soak-containers", s.soakContainers, 8, 10_000},
		{"soak-storm", s.soakStorm, 100, 1_000_000},
	} {
		if limit.value < limit.low || limit.value > limit.high {
			return nil, nil, fmt.Errorf("--%s %d: want %d to %d", limit.name, limit.value, limit.low, limit.high)
		}
	}
	if s.fleetSteady < time.Second || s.fleetSteady > time.Hour {
		return nil, nil, fmt.Errorf("--fleet-steady %v: want 1s to 1h", s.fleetSteady)
	}
	if s.acceptTurn < 200*time.Millisecond || s.acceptTurn > time.Hour {
		return nil, nil, fmt.Errorf("--accept-turn %v: want 200ms to 1h", s.acceptTurn)
	}
	if s.soakLength < 20*time.Second || s.soakLength > 24*time.Hour {
		return nil, nil, fmt.Errorf("--soak-length %v: want 20s to 24h", s.soakLength)
	}
	if s.fleetNetwork != "bridge" && s.fleetNetwork != "none" {
		return nil, nil, fmt.Errorf("--fleet-network %q: want bridge or none", s.fleetNetwork)
	}
	chosen, err := chooseThemes(s.theme)
	return s, chosen, err
}

func chooseThemes(names string) ([]theme, error) {
	if names == "" {
		return themes, nil
	}
	var chosen []theme
	for _, name := range strings.Split(names, ",") {
		found := false
		for _, t := range themes {
			if t.name == strings.TrimSpace(name) {
				chosen, found = append(chosen, t), true
			}
		}
		if !found {
			return nil, fmt.Errorf("--theme %q: there is no %q, only %s", names, name, themeNames())
		}
	}
	return chosen, nil
}

func themeNames() string {
	names := make([]string, len(themes))
	for i, t := range themes {
		names[i] = t.name
	}
	return strings.Join(names, ", ")
}

// progress tells the person who waits what happens now.
func progress(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", arguments...)
}
