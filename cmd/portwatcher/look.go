package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
	"portwatcher/internal/health"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
	"portwatcher/internal/preflight"
)

func portsCommand() *cobra.Command {
	var at string
	cmd := settingsCommand("ports", "Print what is open now, and exit", []string{
		config.MonitorContainers, config.WatchPorts, config.Source, config.UDPClients, config.Format, config.State,
		config.LogFormat, config.LogLevel, config.DockerHost, config.HostName, config.ProcRoot, config.CgroupRoot, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error {
		if at != "" {
			return portsAt(ctx, s, at)
		}
		return ports(ctx, s)
	})
	cmd.Flags().StringVar(&at, "at", "", "what was open then, from the journal: a duration back from now (1h, 7d) or a time")
	return cmd
}

// portsAt prints what the journal knows to have been open at a time.
func portsAt(ctx context.Context, s *config.Settings, text string) (err error) {
	log := newLogger(s)
	at, err := moment("at", text, time.Now())
	if err != nil {
		return err
	}
	reader, err := openReader(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, reader)
	open, watching, err := reader.At(ctx, at)
	if err != nil {
		return err
	}
	if !watching.Running {
		log.Warnf("portwatcher was not running at %s: this is what it knew when it had last run (%s).",
			at.UTC().Format(time.RFC3339), watching.Stopped.UTC().Format(time.RFC3339))
	}
	chosen := []model.Open{} // an empty list, not none
	filter := model.Filter{Containers: s.Containers, Ports: s.WatchPorts}
	matcher := filter.Matcher(model.NamesIn(open))
	for _, o := range open {
		if matcher.Listener(&o.Listener) {
			chosen = append(chosen, o)
		}
	}
	if len(chosen) == 0 {
		log.Infof("No port to report was open at %s.", at.UTC().Format(time.RFC3339))
	}
	return output.WriteOpen(os.Stdout, output.Format(s.Format), chosen)
}

func ports(ctx context.Context, s *config.Settings) (err error) {
	log, docker, err := prepare(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	if err := insist(s); err != nil {
		return err
	}
	c, err := newCapture(s, log, docker, nil)
	if err != nil {
		return err
	}
	open, failed := c.Once(ctx)
	if open == nil && failed != nil {
		return failed
	}
	if len(open) == 0 && failed == nil {
		log.Info(nothingOpen(c.Containers()))
	}
	return errors.Join(output.WriteOpen(os.Stdout, output.Format(s.Format), open), failed)
}

// nothingOpen says why a list of open ports is empty.
func nothingOpen(containers []model.ContainerState) string {
	monitored := 0
	for _, c := range containers {
		if c.Monitored {
			monitored++
		}
	}
	switch {
	case len(containers) == 0:
		return "No container is running."
	case monitored == 0:
		return fmt.Sprintf("None of the running containers (%d) is selected by --monitor-containers and the containers' labels.", len(containers))
	}
	return fmt.Sprintf("No port to report is open in the selected containers (%d of %d that run).", monitored, len(containers))
}

// insist checks what --source insists on and one look would not need.
func insist(s *config.Settings) error {
	if s.Source != "ebpf" {
		return nil
	}
	if err := preflight.Failure(preflight.Sources(preflightOptions(s))); err != nil {
		return fmt.Errorf("--source ebpf: %w", err)
	}
	return nil
}

func checkCommand() *cobra.Command {
	return settingsCommand("check", "Tell what works on this host, and what to do about the rest", []string{
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
