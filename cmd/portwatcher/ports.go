package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

func portsCommand() *cobra.Command {
	var at string
	var outside *bool
	cmd := settingsCommand("ports", "Print what is open now, and exit", []string{
		config.MonitorContainers, config.WatchPorts, config.Source, config.UDPClients, config.Host, config.ProcessArguments, config.Format, config.State,
		config.LogFormat, config.LogLevel, config.DockerHost, config.HostName, config.ProcRoot, config.CgroupRoot, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error {
		if at != "" {
			return portsAt(ctx, s, at, outside)
		}
		return ports(ctx, s, outside)
	})
	cmd.Flags().StringVar(&at, "at", "", "what was open then, from the journal: a duration back from now (1h, 7d) or a time")
	outsideFlag(cmd.Flags(), &outside)
	return cmd
}

// portsAt prints what was open at a time, as the journal has it.
func portsAt(ctx context.Context, s *config.Settings, text string, outside *bool) error {
	log := newLogger(s)
	at, err := moment("at", text, time.Now())
	if err != nil {
		return err
	}
	return readJournal(s, func(reader *journal.Reader) error {
		open, watching, err := reader.At(ctx, at, model.Filter{Containers: s.Containers, Ports: s.WatchPorts, Outside: outside})
		if err != nil {
			return err
		}
		if !watching.Running {
			log.Warnf("portwatcher was not running at %s: this is the state at the end of its last run before (%s).",
				at.UTC().Format(time.RFC3339), watching.Stopped.UTC().Format(time.RFC3339))
		}
		if len(open) == 0 {
			log.Infof("No port to report was open at %s.", at.UTC().Format(time.RFC3339))
		}
		return output.WriteOpen(os.Stdout, output.Format(s.Format), open)
	})
}

func ports(ctx context.Context, s *config.Settings, outside *bool) (err error) {
	log, docker, err := prepareList(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	c := newCapture(s, log, docker, nil)
	open, failed := c.List(ctx)
	if open == nil && failed != nil {
		return failed
	}
	matcher := (&model.Filter{Outside: outside}).Matcher(nil)
	open = slices.DeleteFunc(open, func(o model.Open) bool { return !matcher.Open(&o) })
	if len(open) == 0 && failed == nil {
		log.Info(nothingOpen(c.Containers()))
	}
	return errors.Join(output.WriteOpen(os.Stdout, output.Format(s.Format), open), failed)
}

// nothingOpen returns why a list of open ports is empty.
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
