package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"portwatcher/internal/clock"
	"portwatcher/internal/config"
	"portwatcher/internal/expect"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

func expectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "expect", Short: "Compare what is open with a file of what is expected",
		Long: `Compares what is open with a file of expectations, which people keep and review
like code, and helps to write it. The file is described in docs/expectations.md.`,
		Args: func(cmd *cobra.Command, arguments []string) error { return knownCommand(cmd, arguments) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(expectCheckCommand(), expectLearnCommand(), expectDiffCommand(), expectApproveCommand())
	return cmd
}

// expectCheck has the values of the flags of `portwatcher expect check`.
type expectCheck struct {
	at, since, format string
	wait              time.Duration
}

func expectCheckCommand() *cobra.Command {
	var q expectCheck
	cmd := settingsCommand("check", "Compare what is open with the file", []string{
		config.Expect, config.MonitorContainers, config.WatchPorts, config.Source, config.UDPClients, config.State,
		config.DockerHost, config.HostName, config.ProcRoot, config.CgroupRoot, config.ConfigFile,
	}, nil)
	cmd.Long = `Compares what is open now with the file of expectations and the containers'
labels, and prints each difference. With --wait it compares again until there is
none, for a pipeline after "docker compose up". With --at or --since it compares what
the journal has, also what has ended since.

The exit status is 0 where nothing differs, 1 where something does, 2 for wrong usage
and a file that is wrong.`
	cmd.Example = `  portwatcher expect check --expect ports.yaml
  portwatcher expect check --wait 30s --format junit > ports.xml
  portwatcher expect check --since 7d`
	flags := cmd.Flags()
	flags.StringVar(&q.format, "format", "table", "form of the output: "+strings.Join(expect.Formats, ", "))
	flags.StringVar(&q.at, "at", "", "what was open then, from the journal: a duration back from now (1h, 7d) or a time")
	flags.StringVar(&q.since, "since", "", "what was open since then, from the journal: a duration back from now (1h, 7d) or a time")
	flags.DurationVar(&q.wait, "wait", 0, "how long to wait at most until nothing differs, 0 to 24h")
	cmd.MarkFlagsMutuallyExclusive("at", "since", "wait")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		settings, err := loadWithout(cmd, "format")
		if err != nil {
			return err
		}
		if err := q.run(cmd.Context(), settings); err != nil {
			return runtimeError{err}
		}
		return nil
	}
	return cmd
}

// loadWithout loads the settings of a command that has a flag of its own with the name of a
// setting.
func loadWithout(cmd *cobra.Command, name string) (*config.Settings, error) {
	flags := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != name {
			flags.AddFlag(f)
		}
	})
	return config.NewLoader(flags, os.Environ()).Load()
}

// expectedFile reads the file of the settings. The default one need not exist where optional is
// true; then there is none.
func expectedFile(s *config.Settings, log logrus.FieldLogger, optional bool) (*expect.File, error) {
	x := newExpectations(s, log)
	x.optional = x.optional && optional
	if x.path == "" && !optional {
		return nil, usageError{errors.New("--expect: empty: allowed is the path of a file of expectations")}
	}
	return x.load()
}

func (q *expectCheck) run(ctx context.Context, s *config.Settings) error {
	if !slices.Contains(expect.Formats, q.format) {
		return flagError("format", q.format, "allowed are %s", strings.Join(expect.Formats, ", "))
	}
	if q.wait < 0 || q.wait > maxTimeout {
		return flagError("wait", q.wait.String(), "allowed are 0 to %s", maxTimeout)
	}
	s.LogLevel = logrus.WarnLevel // scripts do not need the steps of the start
	log := newLogger(s)
	file, err := expectedFile(s, log, true)
	if err != nil {
		return err
	}
	if file == nil {
		log.Warn("There is no file of expectations: only labels of containers are compared.")
	}
	report, err := q.compare(ctx, s, log, file)
	if err != nil {
		return err
	}
	if err := report.Write(os.Stdout, q.format); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if n := len(report.Drifts); n > 0 {
		return fmt.Errorf("what is open differs from what is expected: %d drifts", n)
	}
	return nil
}

func (q *expectCheck) compare(ctx context.Context, s *config.Settings, log *logrus.Logger, file *expect.File) (*expect.Report, error) {
	switch now := time.Now(); {
	case q.at != "":
		at, err := moment("at", q.at, now)
		if err != nil {
			return nil, err
		}
		return compareAt(ctx, s, log, file, at)
	case q.since != "":
		since, err := moment("since", q.since, now)
		if err != nil {
			return nil, err
		}
		return compareSince(ctx, s, log, file, since, now)
	}
	return compareNow(ctx, s, file, q.wait)
}

// newReport returns the report on a state.
func newReport(file *expect.File, state expect.State) *expect.Report {
	r := &expect.Report{Time: state.Time.UTC(), Drifts: []model.DriftPeriod{}, Notes: []string{}, Entries: file}
	if file != nil {
		r.File = file.Name
		for _, e := range file.Expiring(state.Time, expiryNotice) {
			r.Notes = append(r.Notes, fmt.Sprintf("line %d of the file: the entry for %s %s expires after %s", e.Line, e.Target, e.Ports, e.LastDay()))
		}
		for _, e := range file.Entries {
			if !e.Valid(state.Time) {
				r.Notes = append(r.Notes, fmt.Sprintf("line %d of the file: the entry for %s %s has expired after %s", e.Line, e.Target, e.Ports, e.LastDay()))
			}
		}
	}
	disagreements, invalid := expect.Disagreements(file, state.Containers, state.Time)
	r.Notes = append(r.Notes, invalid...)
	for i := range disagreements {
		r.Notes = append(r.Notes, disagreements[i].String())
	}
	for _, c := range state.Containers {
		r.Targets = append(r.Targets, c.Target())
	}
	return r
}

// checkAgain is the time between two scans of --wait.
const checkAgain = 500 * time.Millisecond

// compareNow scans the containers until nothing differs, or wait has passed.
func compareNow(ctx context.Context, s *config.Settings, file *expect.File, wait time.Duration) (_ *expect.Report, err error) {
	log, docker, err := prepareList(s)
	if err != nil {
		return nil, err
	}
	defer closeWith(&err, docker)
	for until := time.Now().Add(wait); ; {
		c := newCapture(s, log, docker, nil)
		open, err := c.List(ctx)
		if err != nil { // what cannot be read is not the same as what is not open
			if time.Now().Before(until) && clock.Sleep(ctx, checkAgain) {
				continue
			}
			return nil, err
		}
		state := expect.State{Time: time.Now().UTC(), Open: open}
		for _, one := range c.Containers() {
			if one.Monitored && !one.IsHost() {
				state.Containers = append(state.Containers, one.Ref())
			}
		}
		report := newReport(file, state)
		for _, d := range expect.Compare(file, state) {
			report.Drifts = append(report.Drifts, model.DriftPeriod{OpenDrift: d})
		}
		if len(report.Drifts) == 0 || !time.Now().Before(until) || !clock.Sleep(ctx, checkAgain) {
			return report, ctx.Err()
		}
	}
}

func expectLearnCommand() *cobra.Command {
	var since string
	cmd := settingsCommand("learn", "Print a file of what was open", []string{
		config.MonitorContainers, config.WatchPorts, config.State, config.LogFormat, config.LogLevel, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error { return learn(ctx, s, since) })
	cmd.Long = `Prints a file of expectations that has every port that was open, as the journal
recorded it: the widest exposure, and the processes. Ports that were open only for
moments, or rarely, are marked with a comment. It is a draft for people to read and
change: nothing is expected before it is in the file that --expect names.`
	cmd.Example = `  portwatcher expect learn --since 7d > expected.yaml
  portwatcher expect learn --monitor-containers 'shop/*'`
	cmd.Flags().StringVar(&since, "since", "7d", "from this time on: a duration back from now (1h, 7d) or a time")
	return cmd
}

func learn(ctx context.Context, s *config.Settings, text string) error {
	now := time.Now()
	since, err := moment("since", text, now)
	if err != nil {
		return err
	}
	if since.IsZero() || since.After(now) {
		return flagError("since", text, "allowed is a time in the past, such as 7d")
	}
	var learner *expect.Learner
	err = recordedSince(ctx, s, newLogger(s), since, func(open []model.Open, from time.Time) {
		learner = expect.NewLearner(from)
		learner.Begin(open)
	}, func(e *model.Event) { learner.Apply(e) })
	if err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString(learner.File(now)); err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	return nil
}

func expectDiffCommand() *cobra.Command {
	var cmd *cobra.Command
	cmd = settingsCommand("diff OLD NEW", "Print how two files differ", nil, func(context.Context, *config.Settings) error {
		return diffFiles(cmd.Flags().Args())
	})
	cmd.Args = cobra.ArbitraryArgs
	cmd.Long = `Prints what the second file allows or requires and the first does not (+), the
other way round (-), and what has changed (~). Comments, reasons and the order do not
count. The exit status is 0 where nothing differs, 1 where something does, 2 for wrong
usage and a file that is wrong.`
	return cmd
}

func diffFiles(arguments []string) error {
	if len(arguments) != 2 {
		return usageError{fmt.Errorf("%d files to compare: allowed are two, OLD and NEW", len(arguments))}
	}
	var files [2]*expect.File
	for i, path := range arguments {
		var err error
		if files[i], err = readExpectations(path); err != nil {
			return err
		}
	}
	differences := expect.Diff(files[0], files[1])
	for _, line := range differences {
		fmt.Println(output.Printable(line))
	}
	if n := len(differences); n > 0 {
		return fmt.Errorf("the files differ in %d entries", n)
	}
	return nil
}
