// Command portwatcher reports which ports containers really listen on.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	_ "time/tzdata" // the image has no files of time zones

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
	"portwatcher/internal/version"
)

// The exit statuses.
const (
	exitFailure = 1 // at run time
	exitUsage   = 2 // an invalid setting, flag or command
)

func main() {
	if err := root().ExecuteContext(untilSignal()); err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, "portwatcher: "+strings.TrimSuffix(line, "\n"))
		}
		os.Exit(status(err))
	}
}

// usageError is an invalid value that a command finds while it runs.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// runtimeError is a failure while a command runs; every other error is one of usage.
type runtimeError struct{ error }

func (e runtimeError) Unwrap() error { return e.error }

func status(err error) int {
	_, failed := errors.AsType[runtimeError](err)
	_, misused := errors.AsType[usageError](err)
	if failed && !misused {
		return exitFailure
	}
	return exitUsage
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "portwatcher",
		Short: "Reports which ports containers really listen on",
		Long: `portwatcher reports which TCP and UDP ports the containers of this host listen
on: which port opened or closed, when, on which address, in which container, by
which process, and whether it can be reached from outside.

Each setting is a flag, the environment variable named in brackets, or a line of
the file that --config names; the flag wins over the variable, and the variable
over the file.`,
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		SilenceErrors:              true,
		DisableFlagsInUseLine:      true,
		Args:                       knownCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.SetFlagErrorFunc(flagProblem)
	cmd.AddCommand(runCommand(), portsCommand(), eventsCommand(), explainCommand(), expectCommand(), alertsCommand(), topCommand(), waitCommand(), checkCommand(), healthcheckCommand(), configCommand(), versionCommand())
	plainSwitches(cmd)
	for _, one := range cmd.Commands() {
		plainSwitches(one)
		for _, part := range one.Commands() {
			plainSwitches(part)
		}
	}
	return cmd
}

// settingsCommand returns a command that takes settings and no arguments.
func settingsCommand(use, short string, names []string, run func(context.Context, *config.Settings) error) *cobra.Command {
	return loaderCommand(use, short, names, func(ctx context.Context, _ *config.Loader, s *config.Settings) error { return run(ctx, s) })
}

// loaderCommand is [settingsCommand] for a command that loads its settings again.
func loaderCommand(use, short string, names []string, run func(context.Context, *config.Loader, *config.Settings) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loader := config.NewLoader(cmd.Flags(), os.Environ())
			settings, err := loader.Load()
			if err != nil {
				return err
			}
			if err := run(cmd.Context(), loader, settings); err != nil {
				return runtimeError{err}
			}
			return nil
		},
	}
	cmd.Flags().SortFlags = false
	config.Register(cmd.Flags(), names...)
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print version, commit and Go version", Args: noArguments,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), version.String()) },
	}
}
