package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
	"portwatcher/internal/preflight"
)

func checkCommand() *cobra.Command {
	return settingsCommand("check", "Print what works on this host, and what to do about the rest", []string{
		config.Source, config.LogFormat, config.LogLevel, config.DockerHost, config.ProcRoot, config.CgroupRoot, config.ConfigFile,
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
