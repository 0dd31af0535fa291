package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"portwatcher/internal/config"
	"portwatcher/internal/health"
	"portwatcher/internal/output"
	"portwatcher/internal/version"
)

func runCommand() *cobra.Command {
	return settingsCommand("run", "Watch until stopped, and print events", []string{
		config.MonitorContainers, config.WatchPorts, config.Source, config.ScanInterval, config.BurstScans, config.BurstDelay,
		config.CloseGrace, config.UDPClients, config.Format,
		config.LogFormat, config.LogLevel, config.DockerHost, config.HostName, config.ProcRoot, config.CgroupRoot, config.HealthSocket,
	}, run)
}

func run(ctx context.Context, s *config.Settings) (err error) {
	log, docker, err := prepare(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	log.Info(version.String() + " starts.")

	queue := output.NewQueue(os.Stdout, output.Format(s.Format))
	c := newController(s, log, docker, queue.Offer)

	// The writer outlives the others, to write what they leave.
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	written := make(chan error, 1)
	go func() { written <- queue.Run(writing) }()

	group, ctx := errgroup.WithContext(ctx)
	watching, stopWatching := context.WithCancel(ctx)
	group.Go(func() error {
		defer stopWatching()
		return c.Run(watching)
	})
	group.Go(func() error { return serveHealth(watching, s, log, c.Ready) })
	group.Go(func() error { // events that cannot be written end the program
		select {
		case err := <-written:
			written <- err
			return err
		case <-watching.Done():
			return nil
		}
	})
	err = group.Wait()
	stopWriting()
	select {
	case problem := <-written:
		if !errors.Is(err, problem) {
			err = errors.Join(err, problem)
		}
	case <-time.After(output.DrainTime):
		log.Warn("Standard output is not read; the last events are lost.")
	}
	if err == nil {
		log.Info("Stopped.")
	}
	return err
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
