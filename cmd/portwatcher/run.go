package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"portwatcher/internal/alert"
	"portwatcher/internal/capture"
	"portwatcher/internal/config"
	"portwatcher/internal/expect"
	"portwatcher/internal/health"
	"portwatcher/internal/journal"
	"portwatcher/internal/metrics"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
	"portwatcher/internal/server"
	"portwatcher/internal/sink"
	"portwatcher/internal/version"
)

func runCommand() *cobra.Command {
	return loaderCommand("run", "Watch until stopped, print events and record them", []string{
		config.MonitorContainers, config.WatchPorts, config.Source, config.ScanInterval, config.BurstScans, config.BurstDelay,
		config.CloseGrace, config.UDPClients, config.Host, config.ProcessArguments, config.BurstLimit, config.ReceiveBuffers, config.Format, config.Expect, config.State, config.Retain, config.RetainSize,
		config.Listen, config.TokenFile, config.TLSCert, config.TLSKey, config.AllowedHosts, config.MetricsMaxSeries, config.Explain,
		config.PublicURL, config.AlertWebhook, config.AlertEmail, config.SMTPURL,
		config.LogFormat, config.LogLevel, config.DockerHost, config.HostName, config.ProcRoot, config.CgroupRoot, config.HealthSocket,
		config.ConfigFile,
	}, run)
}

func run(ctx context.Context, loader *config.Loader, s *config.Settings) (err error) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	log, docker, err := prepare(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	log.Info(version.String() + " starts.")
	m := &monitor{
		settings: s, log: log, output: sink.NewWriter(os.Stdout, output.Format(s.Format)), measures: newMetrics(s, log),
		live: sink.NewQueue[*model.Event]("live", liveCapacity, liveShare),
	}
	m.expectations = newExpectations(s, log)
	if m.expected, err = m.expectations.load(); err != nil {
		return err
	}
	m.expectations.report(m.expected, "read")
	setup, err := prepareAlerts(s, log)
	if err != nil {
		return err
	}
	if m.record, err = openJournal(s, log, func(reason string) { m.capture.Gap(reason) }); err != nil {
		return errors.Join(err, setup.Close())
	}
	defer closeWith(&err, m.record)
	m.capture = newCapture(s, log, docker, m.wire)
	m.alerts = alert.New(alert.Options{Journal: m.record, Setup: setup, View: m.capture.View, Ready: m.capture.Ready, Logger: log})
	if m.web, err = newServer(s, log, docker, m.capture, m.record, m.measures, m.alerts); err != nil {
		return err
	}
	if err = m.run(ctx, loader, hangup); err == nil {
		log.Info("Stopped.")
	}
	return err
}

// monitor is the capture with the consumers of its events.
type monitor struct {
	settings *config.Settings
	log      *logrus.Logger
	capture  *capture.Capture
	output   *sink.Writer
	record   *journal.Journal
	live     *sink.Queue[*model.Event]
	measures *metrics.Metrics
	web      *server.Server // nil where --listen is empty
	alerts   *alert.Alerts

	expectations *expectations
	expected     *expect.File // at the start; nil where there is no file
}

// wire adds the sinks of the capture.
func (m *monitor) wire(o *capture.Options) {
	o.Observer, o.Resume, o.Expect = m.measures, resume(m.record, time.Now()), m.expected
	o.Sinks = []capture.Sink{outputSink(m.output), journalSink(m.record)}
	if m.settings.Listen != "" {
		o.Sinks = append(o.Sinks, liveSink(m.live))
	}
}

// run watches until ctx ends or one of its parts fails.
func (m *monitor) run(ctx context.Context, loader *config.Loader, hangup <-chan os.Signal) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// These outlive the others, to write the last events.
	printed, recorded := start(ctx, m.output.Run), start(ctx, m.record.Run)
	group, ctx := errgroup.WithContext(ctx)
	watching, stopWatching := context.WithCancel(ctx)
	group.Go(func() error {
		defer stopWatching()
		return m.capture.Run(watching)
	})
	group.Go(func() error {
		freeMemory(watching, m.capture.Ready, m.log)
		return nil
	})
	ready := func() error { return errors.Join(m.capture.Ready(), m.record.Err()) }
	group.Go(func() error {
		if m.settings.HealthSocket != "" {
			health.Serve(watching, m.settings.HealthSocket, ready, m.log)
		}
		return nil
	})
	group.Go(func() error { return reload(watching, loader, m.settings, m.log, hangup, m.apply) })
	group.Go(func() error { return m.alerts.Run(watching) })
	group.Go(func() error { return m.expectations.run(watching, m.expected, m.capture.Expect) })
	if m.web != nil {
		group.Go(func() error { return m.web.Serve(watching) })
		group.Go(func() error {
			consume(watching, m.live, m.web.Event, m.web.Missed)
			return nil
		})
	}
	group.Go(func() error { // an error of standard output ends the program
		select {
		case <-printed.done:
			return printed.err
		case <-watching.Done():
			return nil
		}
	})
	return finish(group.Wait(), printed, recorded, writeLimit)
}

// apply applies the settings that can change while running; all of them or, with an error, none.
func (m *monitor) apply(s *config.Settings) error {
	setup, err := prepareAlerts(s, m.log)
	if err != nil {
		return err
	}
	m.alerts.Apply(setup)
	setLogger(m.log, s)
	m.record.SetRetention(s.Retain, s.RetainSize)
	m.capture.Tune(tuning(s, m.log))
	m.expectations.reload()
	return nil
}

// finish waits until the last events are written, and adds the errors of that.
func finish(err error, printed, recorded *consumer, limit time.Duration) error {
	recorded.stop()
	printed.stop()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if !printed.wait(ctx) {
		err = errors.Join(err, fmt.Errorf("standard output was not read within %s: the last events are missing from it", limit))
	} else if !errors.Is(err, printed.err) {
		err = errors.Join(err, printed.err)
	}
	if !recorded.wait(ctx) {
		return errors.Join(err, fmt.Errorf("the journal could not be written within %s: its last events are lost", limit))
	}
	return errors.Join(err, recorded.err)
}

// writeLimit is how long a stop waits at most for the consumers of events: less than the
// 10 s after which Docker kills.
const writeLimit = 8 * time.Second

// consumer is a goroutine that ends after the capture.
type consumer struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // valid after done
}

// start runs a consumer that does not end with ctx.
func start(ctx context.Context, run func(context.Context) error) *consumer {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &consumer{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = run(ctx)
	}()
	return c
}

// wait returns false where the consumer has not ended when ctx ends.
func (c *consumer) wait(ctx context.Context) bool {
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	select { // both may be so: another consumer may have used up the time
	case <-c.done:
		return true
	default:
		return false
	}
}
