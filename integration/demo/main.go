// Command demo tries portwatcher from outside, on the containers that `make run` has
// started: each of its commands runs the workload in the demo container through the docker
// command, and shows what portwatcher reports of it, or compares that with what really
// happened.
//
// Settings are environment variables, as make exports them; see [settings]. Exit status 2
// is a wrong setting, 1 a failure at run time or a difference.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"portwatcher/integration/internal/docker"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// defaultProject is the name of the Compose project, as the Makefile has it.
const defaultProject = "portwatcher"

// settings are what the environment sets.
type settings struct {
	project        string
	port           int // 0: that of the command
	count, base    int
	hold, interval time.Duration
	held           bool // the environment sets hold
}

// A settingError is a wrong setting: exit status 2.
type settingError string

func (e settingError) Error() string { return string(e) }

// readSettings reads PORT, BURST_COUNT, BASE_PORT, HOLD_MS and INTERVAL_S.
func readSettings() (*settings, error) {
	s := &settings{project: os.Getenv("COMPOSE_PROJECT_NAME"), held: os.Getenv("HOLD_MS") != ""}
	if s.project == "" {
		s.project = defaultProject
	}
	var hold int
	for _, number := range []struct {
		name            string
		value           *int
		none, low, high int
	}{
		{"PORT", &s.port, 0, 1, 65535},
		{"BURST_COUNT", &s.count, 20, 1, 10_000},
		{"BASE_PORT", &s.base, 20_000, 1, 65535},
		{"HOLD_MS", &hold, 50, 0, 3_600_000},
	} {
		*number.value = number.none
		text := os.Getenv(number.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < number.low || n > number.high {
			return nil, settingError(fmt.Sprintf("%s=%s: want a whole number from %d to %d", number.name, text, number.low, number.high))
		}
		*number.value = n
	}
	if last := s.base + s.count - 1; last > 65535 {
		return nil, settingError(fmt.Sprintf("BASE_PORT=%d BURST_COUNT=%d: the last port is %d, over 65535", s.base, s.count, last))
	}
	s.hold, s.interval = time.Duration(hold)*time.Millisecond, 10*time.Millisecond
	if text := os.Getenv("INTERVAL_S"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds >= 0 && seconds < 10_000) {
			return nil, settingError(fmt.Sprintf("INTERVAL_S=%s: want seconds such as 0.05, at most 9999", text))
		}
		s.interval = time.Duration(seconds * float64(time.Second))
	}
	return s, nil
}

// A load is one command of the workload.
type load struct {
	arguments   []string
	first, last int // ports
	reports     int // the lines that portwatcher is to print of it
	// kill ends the workload by kill-port once its opening is reported.
	kill bool
}

// loads are those of the commands, by name. A port of its own, unless the settings name
// one, keeps what is verified apart from what the demo does itself.
func (s *settings) loads(verified bool) map[string]load {
	port := func(tried, verifiedPlus int) int {
		switch {
		case verified && s.port > 0:
			return s.port + verifiedPlus
		case verified:
			return 21_000 + verifiedPlus
		case s.port > 0:
			return s.port
		}
		return tried
	}
	hold, loads := s.hold.String(), map[string]load{}
	one := func(name string, port int, arguments ...string) {
		loads[name] = load{arguments: arguments, first: port, last: port, reports: 2}
	}
	http, udp := port(8081, 1), port(5300, 2)
	one("test-http", http, "http", "--port", strconv.Itoa(http), "--for", hold)
	one("test-udp", udp, "listen", "--udp", "0.0.0.0:"+strconv.Itoa(udp), "--for", hold)
	for _, protocol := range []string{"tcp", "udp"} {
		at := port(21_000, 0)
		one("test-"+protocol+"-transient", at, "transient", "--protocol", protocol, "--port", strconv.Itoa(at), "--hold", hold)
		loads["test-"+protocol+"-burst"] = load{first: s.base, last: s.base + s.count - 1, reports: 2 * s.count, arguments: []string{
			"burst", "--protocol", protocol, "--count", strconv.Itoa(s.count), "--base-port", strconv.Itoa(s.base), "--hold", hold, "--interval", s.interval.String()}}
	}
	killed := port(8080, 3)
	if verified {
		loads["kill-port"] = load{arguments: []string{"http", "--port", strconv.Itoa(killed)}, first: killed, last: killed, reports: 2, kill: true}
	} else {
		loads["kill-port"] = load{arguments: []string{"kill-port", "--port", strconv.Itoa(killed)}, first: killed, last: killed, reports: 1}
	}
	return loads
}

// A demo is what the commands need of the engine.
type demo struct {
	engine             *docker.Engine
	watcher, container string // names of portwatcher's container and of the demo's
	settings           *settings
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	var wrong settingError
	switch {
	case errors.As(err, &wrong):
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	s, err := readSettings()
	if err != nil {
		return err
	}
	names := append(slices.Sorted(maps.Keys(s.loads(false))), "verify-suite")
	if len(arguments) != 1 || !slices.Contains(names, arguments[0]) {
		return settingError("usage: demo " + strings.Join(names, "|"))
	}
	d := &demo{engine: &docker.Engine{}, settings: s}
	if d.watcher, err = d.serviceContainer(ctx, "portwatcher"); err != nil {
		return err
	}
	if d.container, err = d.serviceContainer(ctx, "demo"); err != nil {
		return err
	}
	source, err := d.source(ctx)
	if err != nil {
		return err
	}
	if arguments[0] == "verify-suite" {
		return d.verifySuite(ctx, source)
	}
	if source == model.SourceProc && !s.held {
		s.hold = procHold
	}
	return d.try(ctx, s.loads(false)[arguments[0]])
}

const (
	// shownLines bounds the lines of portwatcher that are shown.
	shownLines = 40
	// tryTime bounds the wait for them.
	tryTime = 5 * time.Second
	// pollTime passes from one reading of portwatcher's log to the next.
	pollTime = 200 * time.Millisecond
)

// try runs a load in the demo container, and prints what portwatcher reports of its ports
// as soon as that is complete.
func (d *demo) try(ctx context.Context, l load) error {
	since := time.Now()
	if _, err := d.engine.Run(ctx, d.exec(l.arguments)...); err != nil {
		return err
	}
	var lines []logLine
	for deadline := time.Now().Add(tryTime); ; {
		log, err := d.log(ctx, since)
		if err != nil {
			return err
		}
		lines = slices.DeleteFunc(log, func(r logLine) bool { return int(r.at.Port) < l.first || int(r.at.Port) > l.last })
		if len(lines) >= l.reports || time.Now().After(deadline) {
			break
		}
		if err := wait(ctx, pollTime); err != nil {
			return err
		}
	}
	fmt.Printf("In the container %s: workload %s\n", d.container, strings.Join(l.arguments, " "))
	fmt.Printf("portwatcher (docker logs %s) reports:\n", d.watcher)
	for _, line := range lines[:min(shownLines, len(lines))] {
		fmt.Println(line.text)
	}
	if more := len(lines) - shownLines; more > 0 {
		fmt.Printf("... and %d lines more\n", more)
	}
	if len(lines) < l.reports {
		fmt.Printf("These are %d of %d lines after %v. A port that is not selected is not reported; "+
			"by /proc alone, one that is held shorter than a scan interval (HOLD_MS=%d) is missed.\n", len(lines), l.reports, tryTime, d.settings.hold.Milliseconds())
	}
	return nil
}

// exec are the arguments of docker that run the workload in the demo container.
func (d *demo) exec(workload []string) []string {
	return append([]string{"exec", d.container, truth.WorkloadPath}, workload...)
}

// wait waits for this long, unless ctx ends before.
func wait(ctx context.Context, length time.Duration) error {
	select {
	case <-time.After(length):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
