package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"portwatcher/internal/config"
	"portwatcher/internal/controller"
	"portwatcher/internal/health"
	"portwatcher/internal/output"
	"portwatcher/internal/port"
	"portwatcher/internal/server"
	"portwatcher/internal/version"
)

func runCommand() *cobra.Command {
	return loaderCommand("run", "Watch until stopped, print events and record them", []string{
		config.MonitorContainers, config.WatchPorts, config.Source, config.ScanInterval, config.BurstScans, config.BurstDelay,
		config.CloseGrace, config.UDPClients, config.Format, config.State, config.Retain, config.RetainSize,
		config.Listen, config.TokenFile, config.TLSCert, config.TLSKey, config.AllowedHosts, config.MetricsMaxSeries,
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

	var c *controller.Controller
	record, err := openJournal(s, log, func(aside string) { c.Gap(damaged(aside)) })
	if err != nil {
		return err
	}
	defer closeWith(&err, record)
	queue := output.NewQueue(os.Stdout, output.Format(s.Format))
	measures := newMetrics(s, log)
	var web *server.Server
	c = newController(s, log, docker, func(o *controller.Options) {
		o.SinkQueue, o.Observer = queue.Fill, measures
		o.Journal, o.Resume = record, resume(record, time.Now())
		o.Sink = func(e *port.Event) bool {
			if web != nil {
				web.Event(e)
			}
			return queue.Offer(e)
		}
	})
	if web, err = newServer(s, log, c, record, measures); err != nil {
		return err
	}

	// These outlive the others, to write what they leave.
	printed := start(ctx, queue.Run)
	recorded := start(ctx, record.Run)

	group, ctx := errgroup.WithContext(ctx)
	watching, stopWatching := context.WithCancel(ctx)
	group.Go(func() error {
		defer stopWatching()
		return c.Run(watching)
	})
	ready := func() error { return errors.Join(c.Ready(), record.Err()) }
	group.Go(func() error { return serveHealth(watching, s, log, ready) })
	if web != nil {
		group.Go(func() error { return web.Serve(watching) })
	}
	group.Go(func() error {
		return reload(watching, loader, s, log, hangup, func(s *config.Settings) {
			setLogger(log, s)
			record.SetRetention(s.Retain, s.RetainSize)
			c.Tune(tuning(s, log))
		})
	})
	group.Go(func() error { // events that cannot be written end the program
		select {
		case <-printed.done:
			return printed.err
		case <-watching.Done():
			return nil
		}
	})
	err = group.Wait()
	recorded.stop()
	printed.stop()
	if !printed.wait(output.DrainTime) {
		log.Warn("Standard output is not read; the last events are lost.")
	} else if !errors.Is(err, printed.err) {
		err = errors.Join(err, printed.err)
	}
	if !recorded.wait(recordTime) {
		return errors.Join(err, fmt.Errorf("the journal could not be written within %s: its last events are lost", recordTime))
	}
	if err = errors.Join(err, recorded.err); err == nil {
		log.Info("Stopped.")
	}
	return err
}

// recordTime is how long a stop waits for the journal at most: less than the
// 10 s after which Docker kills.
const recordTime = 8 * time.Second

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

// wait returns false where the consumer has not ended in time.
func (c *consumer) wait(limit time.Duration) bool {
	select {
	case <-c.done:
		return true
	case <-time.After(limit):
		return false
	}
}

// serveHealth answers health checks. Without its socket the rest works all the
// same.
func serveHealth(ctx context.Context, s *config.Settings, log interface{ Warnf(string, ...any) }, ready func() error) error {
	if s.HealthSocket == "" {
		return nil
	}
	if err := health.Serve(ctx, s.HealthSocket, ready); err != nil {
		log.Warnf("Health checks are not answered: %v (is another portwatcher running? --health-socket names another)", err)
	}
	return nil
}
