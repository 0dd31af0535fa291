package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
	"portwatcher/internal/health"
	"portwatcher/internal/output"
	"portwatcher/internal/port"
	"portwatcher/internal/preflight"
)

func portsCommand() *cobra.Command {
	return settingsCommand("ports", "Print what is open now, and exit", []string{
		config.MonitorContainers, config.WatchPorts, config.Source, config.UDPClients, config.Format,
		config.LogFormat, config.LogLevel, config.DockerHost, config.HostName, config.ProcRoot, config.CgroupRoot,
	}, ports)
}

func ports(ctx context.Context, s *config.Settings) (err error) {
	log, docker, err := prepare(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	open, failed := newController(s, log, docker, func(*port.Event) bool { return true }).Once(ctx)
	if open == nil && failed != nil {
		return failed
	}
	return errors.Join(output.WriteOpen(os.Stdout, output.Format(s.Format), open), failed)
}

func checkCommand() *cobra.Command {
	return settingsCommand("check", "Tell what works on this host, and what to do about the rest", []string{
		config.Source, config.LogFormat, config.LogLevel, config.DockerHost, config.ProcRoot, config.CgroupRoot,
	}, check)
}

func check(ctx context.Context, s *config.Settings) (err error) {
	docker, err := newEngine(s, newLogger(s))
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	results := preflight.All(ctx, docker, preflightOptions(s))
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Name, r.State, r.Detail)
		if r.Remedy != "" {
			fmt.Fprintf(table, "\t\tremedy: %s\n", r.Remedy)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return preflight.Failure(results)
}

func healthcheckCommand() *cobra.Command {
	return settingsCommand("healthcheck", "Exit with 0 while a running instance is ready", []string{config.HealthSocket},
		func(ctx context.Context, s *config.Settings) error {
			if s.HealthSocket == "" {
				return errors.New("--health-socket is empty: nothing to ask")
			}
			if err := health.Check(ctx, s.HealthSocket); err != nil {
				return err
			}
			fmt.Println("ready")
			return nil
		})
}
