// Command bench measures portwatcher: beside other tools where there are peers, alone where
// there are none. It prints tables, and writes them as Markdown to the file that --markdown
// names.
//
// It is a module of its own, so that the tools it compares with are no dependencies of
// portwatcher. Each theme is one file: scan.go, fleet.go, capture.go, latency.go, accept.go,
// journal.go, web.go, soak.go. A theme that cannot run on a machine is named in the output
// with the reason; where PORTWATCHER_REQUIRE is 1 that is a failure.
//
// A missed aim is reported and is no failure: times depend on the machine. A sum of the soak
// that does not balance is one. Exit status 2 is a wrong flag, 1 a failure, 130 an interrupt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are the flags. Those of one theme begin with its name.
type settings struct {
	theme, markdown, portwatcher string

	scanRounds int

	fleetContainers, fleetPorts, fleetStarts int
	fleetNetwork                             string
	fleetSteady                              time.Duration

	captureCount, latencyCount int

	acceptRounds, acceptPairs int
	acceptTurn                time.Duration

	journalEvents int

	soakLength                time.Duration
	soakContainers, soakStorm int
}

// A theme measures one thing and adds its tables to the report.
type theme struct {
	name string
	run  func(ctx context.Context, s *settings, r *report) error
}

var themes = []theme{
	{"scan", runScan}, {"fleet", runFleet}, {"capture", runCapture}, {"latency", runLatency},
	{"accept", runAccept}, {"journal", runJournal}, {"web", runWeb}, {"soak", runSoak},
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
	var checks []func() error
	integer := func(value *int, name string, usual, low, high int, help string) {
		set.IntVar(value, name, usual, fmt.Sprintf("%s (%d to %d)", help, low, high))
		checks = append(checks, func() error { return inRange(name, *value, low, high) })
	}
	span := func(value *time.Duration, name string, usual, low, high time.Duration, help string) {
		set.DurationVar(value, name, usual, fmt.Sprintf("%s (%v to %v)", help, low, high))
		checks = append(checks, func() error { return inRange(name, *value, low, high) })
	}
	set.StringVar(&s.theme, "theme", "", "themes to run, separated by commas: "+themeNames()+"; empty is all")
	set.StringVar(&s.markdown, "markdown", "", "also write the report as Markdown to this `file`")
	set.StringVar(&s.portwatcher, "portwatcher", "", "the portwatcher `binary` to measure; empty builds one")
	integer(&s.scanRounds, "scan-rounds", 15, 1, 1000, "rounds of the scan, in each of which every way has its turn")
	integer(&s.fleetContainers, "fleet-containers", 100, 1, 500, "containers")
	integer(&s.fleetPorts, "fleet-ports", 10, 1, 100, "ports of each container; every fifth is UDP")
	set.StringVar(&s.fleetNetwork, "fleet-network", "bridge", "network of the containers: bridge or none")
	integer(&s.fleetStarts, "fleet-starts", 5, 1, 100, "starts of portwatcher with each source, whose median is taken")
	span(&s.fleetSteady, "fleet-steady", time.Minute, time.Second, time.Hour, "how long the steady state is measured; a minute contains one full list of the engine's containers")
	integer(&s.captureCount, "capture-count", 100_000, 1000, 10_000_000, "times to bind, listen and close without pause")
	integer(&s.latencyCount, "latency-count", 1000, 10, 10_000, "ports of each protocol, one each 5 ms")
	integer(&s.acceptRounds, "accept-rounds", 10, 2, 1000, "rounds of the connections, in each of which every way has its turn")
	integer(&s.acceptPairs, "accept-pairs", 300, 10, 10_000, "times that the eBPF programs are attached under the connections, and as often the subscription to notifications")
	span(&s.acceptTurn, "accept-turn", 800*time.Millisecond, 200*time.Millisecond, time.Hour, "how long a turn is measured")
	integer(&s.journalEvents, "journal-events", 1_000_000, 10_000, 100_000_000, "events in the journal")
	span(&s.soakLength, "soak-length", 10*time.Minute, 20*time.Second, 24*time.Hour, "how long containers come and go")
	integer(&s.soakContainers, "soak-containers", 200, 8, 10_000, "containers that come and go")
	integer(&s.soakStorm, "soak-storm", 20_000, 100, 1_000_000, "times that a storm opens and closes its port")
	if err := set.Parse(arguments); err != nil {
		return nil, nil, err
	}
	if set.NArg() > 0 {
		return nil, nil, fmt.Errorf("unexpected argument %q: every setting is a flag", set.Arg(0))
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return nil, nil, err
		}
	}
	if s.fleetNetwork != "bridge" && s.fleetNetwork != "none" {
		return nil, nil, fmt.Errorf("--fleet-network %q: want bridge or none", s.fleetNetwork)
	}
	chosen, err := chooseThemes(s.theme)
	return s, chosen, err
}

func inRange[T int | time.Duration](name string, value, low, high T) error {
	if value < low || value > high {
		return fmt.Errorf("--%s %v: want %v to %v", name, value, low, high)
	}
	return nil
}

func chooseThemes(names string) (chosen []theme, err error) {
	if names == "" {
		return themes, nil
	}
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(themes, func(t theme) bool { return t.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("--theme %q: there is no %q, only %s", names, name, themeNames())
		}
		chosen = append(chosen, themes[i])
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

// progress prints what happens now, for the person who waits.
func progress(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", arguments...)
}
