package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/config"
	"portwatcher/internal/output"
)

func alertsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "Test receivers of alerts, and show what was sent or would have been",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(alertsTestCommand(), alertsReplayCommand(), alertsListCommand())
	return cmd
}

// alertSettings are what the commands need to know the rules and receivers.
var alertSettings = []string{config.PublicURL, config.AlertWebhook, config.AlertEmail, config.SMTPURL}

func alertsTestCommand() *cobra.Command {
	cmd := settingsCommand("test RECEIVER", "Send a receiver an example, and print what was answered",
		slices.Concat(alertSettings, []string{config.HostName, config.LogFormat, config.LogLevel, config.ConfigFile}), nil)
	cmd.Long = `Sends a marked example to a receiver of the settings, and prints what was
answered. The exit status is 1 where it was not delivered.`
	cmd.Example = `  portwatcher alerts test ops
  ALERT_WEBHOOK=https://example.org/hook portwatcher alerts test webhook`
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		settings, err := config.NewLoader(cmd.Flags(), os.Environ()).Load()
		if err != nil {
			return err
		}
		return failure(testReceiver(cmd.Context(), settings, arguments[0]))
	}
	return cmd
}

func testReceiver(ctx context.Context, s *config.Settings, name string) (err error) {
	log := newLogger(s)
	c, err := parseAlerts(s)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(c.Receivers, func(r notify.ReceiverConfig) bool { return r.Name == name })
	if at < 0 {
		var names []string
		for i := range c.Receivers {
			names = append(names, c.Receivers[i].Name)
		}
		if len(names) == 0 {
			return usageError{errors.New("there is no receiver: the file of settings has none in alerts.receivers, and neither ALERT_WEBHOOK nor ALERT_EMAIL is set")}
		}
		return usageError{fmt.Errorf("%q: there is no such receiver; allowed are %s", name, strings.Join(names, ", "))}
	}
	target, err := newReceiver(s, log)(c.Receivers[at])
	if err != nil {
		return usageError{err}
	}
	defer closeWith(&err, target)
	host := s.HostName
	if host == "" {
		if host, err = os.Hostname(); err != nil {
			host = "localhost"
		}
	}
	example := notify.Examples(host, time.Now(), c.PublicURL)[0].Notification
	example.ID = fmt.Sprintf("%s/test/%d", host, time.Now().UnixNano())
	began := time.Now()
	outcome := target.Send(ctx, example)
	took := time.Since(began).Round(time.Millisecond)
	status := ""
	if outcome.Status != 0 {
		status = fmt.Sprintf(" (status %d)", outcome.Status)
	}
	if outcome.Response != "" {
		fmt.Printf("%s answered%s: %s\n", name, status, output.Printable(outcome.Response))
	}
	if !outcome.Delivered {
		return fmt.Errorf("%s, a receiver of the kind %s, was tried for %s%s: %w", name, target.Kind(), took, status,
			cmp.Or(outcome.Err, errors.New("it has not taken the example")))
	}
	fmt.Printf("Delivered to %s (%s) in %s%s.\n", name, target.Kind(), took, status)
	return nil
}
